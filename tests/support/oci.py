"""Small OCI image layouts, in the form that ``make oci`` writes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def write_layout(folder: Path, layers: Sequence[Mapping[str, tuple[bytes, int]]], **config: Any) -> str:
    """An image with ``layers``, each a mapping from a path to content and time; its digest."""
    (folder / "blobs/sha256").mkdir(parents=True)
    packed = [gzip.compress(_tar(files), mtime=0) for files in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _add(folder, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [_add(folder, layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in packed],
    }
    image = _add(folder, json.dumps(manifest).encode(), MANIFEST)
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [image]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(image["digest"])


def copy_layout(source: Path, folder: Path) -> Path:
    """A copy that shares its files with the source. A file must be replaced, never written into."""
    return shutil.copytree(source, folder, copy_function=_link_or_copy)


def index(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "index.json").read_bytes())
    return document


def replace(path: Path, content: bytes) -> None:
    """Write a file anew, so that one shared with another folder stays as it is there."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def add(folder: Path, content: bytes) -> dict[str, Any]:
    """Store content; its digest and size."""
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    replace(blob(folder, digest), content)
    return {"digest": digest, "size": len(content)}


def _add(folder: Path, content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, **add(folder, content)}


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copyfile(source, target)


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, (content, time) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), time
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()
