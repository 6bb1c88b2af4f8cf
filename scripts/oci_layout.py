"""OCI image layouts, as ``make oci`` writes them: a folder with ``index.json`` and the content by its digest.

Format: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class UnreadableLayout(Exception):
    """A folder is no OCI image layout with one image, or its content is not what its digests say."""


class Layout:
    """The layout of one image, and of what is attached to it."""

    def __init__(self, folder: Path) -> None:
        """Read the index.

        Raises:
            UnreadableLayout: the folder is no layout, or does not contain exactly one image.
        """
        self.folder = folder
        try:
            self.index: dict[str, Any] = json.loads((folder / "index.json").read_bytes())
            self.attached: list[dict[str, Any]] = [
                entry for entry in self.index["manifests"] if "artifactType" in entry
            ]
            (self.image,) = (entry for entry in self.index["manifests"] if "artifactType" not in entry)
            self.digest = str(self.image["digest"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableLayout(f"{folder} is no OCI image layout with one image ({error}); run make oci") from error

    def blob(self, digest: str) -> Path:
        """Where the content with a digest is."""
        algorithm, _, digits = digest.partition(":")
        if algorithm != "sha256" or len(digits) != 64 or not digits.isalnum():
            raise UnreadableLayout(f"{self.folder}: {digest!r} is no SHA-256 digest")
        return self.folder / "blobs" / algorithm / digits

    def read(self, descriptor: dict[str, Any]) -> dict[str, Any]:
        """The JSON document that a descriptor names; its digest is checked.

        Raises:
            UnreadableLayout: it is missing, is no JSON object, or is another document.
        """
        try:
            self.check(descriptor)
            document = json.loads(self.blob(descriptor["digest"]).read_bytes())
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableLayout(f"{self.folder}: {descriptor} cannot be read ({error})") from error
        if not isinstance(document, dict):
            raise UnreadableLayout(f"{self.folder}: {descriptor['digest']} is no JSON object")
        return document

    def check(self, descriptor: dict[str, Any]) -> None:
        """Compute the digest of what a descriptor names.

        Raises:
            UnreadableLayout: the content is missing, or has another digest.
        """
        digest = str(descriptor["digest"])
        try:
            with self.blob(digest).open("rb") as file:
                found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UnreadableLayout(f"{self.folder}: {digest} cannot be read ({error.strerror})") from error
        if found != digest:
            raise UnreadableLayout(f"{self.folder}: the content of {digest} was changed, it is {found}")

    def check_image(self) -> None:
        """Compute the digests of the image's manifest, configuration and layers.

        Raises:
            UnreadableLayout: one of them is missing, or was changed.
        """
        manifest = self.read(self.image)
        for descriptor in (manifest["config"], *manifest["layers"]):
            self.check(descriptor)

    def add(self, content: bytes) -> dict[str, Any]:
        """Store content; the digest and size that name it in a descriptor."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.blob(digest).write_bytes(content)
        return {"digest": digest, "size": len(content)}

    def write_index(self) -> None:
        """Write the index with what is attached now."""
        index = {**self.index, "manifests": [self.image, *self.attached]}
        new = self.folder / "index.json.new"
        new.write_text(json.dumps(index), encoding="utf-8")
        new.replace(self.folder / "index.json")
