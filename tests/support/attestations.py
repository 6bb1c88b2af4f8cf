"""Throw-away keys, and signed images that were changed after they were signed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support import oci
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

Done = subprocess.CompletedProcess[str]

TAMPERING = {
    "image digest": "and the image is sha256:",
    "image content": "was changed, it is sha256:",
    "payload": "was changed after it was signed",
    "listed type": "it is a https://cyclonedx.org/bom",
    "no signature": "is not signed with this key",
}
"""By case: a part of the error."""


class Keys(NamedTuple):
    private: Path
    public: Path


def make_keys(folder: Path) -> Keys:
    """A key pair as docs/docker.md makes one with openssl."""
    key = ec.generate_private_key(ec.SECP256R1())
    keys = Keys(folder / "key.pem", folder / "key.pub")
    keys.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    keys.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return keys


def attest_image(*arguments: str | Path) -> Done:
    command = [sys.executable, str(ROOT / "scripts/attest_image.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _bundle(layout: Path, entry: dict[str, Any]) -> dict[str, Any]:
    manifest = json.loads(oci.blob(layout, entry["digest"]).read_bytes())
    bundle: dict[str, Any] = json.loads(oci.blob(layout, manifest["layers"][0]["digest"]).read_bytes())
    return bundle


def statements(layout: Path) -> list[dict[str, Any]]:
    """What is attached to the image, signed or not."""
    attached = [entry for entry in oci.index(layout)["manifests"] if "artifactType" in entry]
    return [json.loads(base64.b64decode(_bundle(layout, entry)["dsseEnvelope"]["payload"])) for entry in attached]


def tampered_with(layout: Path, folder: Path, case: str) -> Path:
    """A copy of a signed layout that an attacker without the key changed; every digest of theirs is right."""
    oci.copy_layout(layout, folder)
    index = oci.index(folder)
    image, *attached = index["manifests"]
    if case == "image digest":
        # Another image of the same content, with the statements of the first one.
        manifest = json.loads(oci.blob(folder, image["digest"]).read_bytes())
        changed = oci.add(folder, json.dumps({**manifest, "annotations": {"changed": case}}).encode())
        index["manifests"][0] = {**image, **changed}
    elif case == "image content":
        manifest = json.loads(oci.blob(folder, image["digest"]).read_bytes())
        path = oci.blob(folder, manifest["config"]["digest"])
        oci.replace(path, path.read_bytes().replace(b"{", b"{ ", 1))
    elif case == "listed type":
        bill = next(entry for entry in attached if "cyclonedx" in str(entry["annotations"]))
        provenance = next(entry for entry in attached if entry is not bill)
        index["manifests"] = [image, bill, {**bill, "annotations": provenance["annotations"]}]
    else:
        for entry in attached:
            bundle = _bundle(folder, entry)
            envelope = bundle["dsseEnvelope"]
            if case == "payload":
                statement = json.loads(base64.b64decode(envelope["payload"]))
                statement["predicate"]["added"] = "by someone else"
                envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
            else:
                envelope["signatures"] = []
            manifest = json.loads(oci.blob(folder, entry["digest"]).read_bytes())
            manifest["layers"][0].update(oci.add(folder, json.dumps(bundle).encode()))
            entry.update(oci.add(folder, json.dumps(manifest).encode()))
    oci.replace(folder / "index.json", json.dumps(index).encode())
    return folder
