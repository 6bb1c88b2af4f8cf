"""Sign what is said of an image, and verify it without a network: ``make attest`` and ``make verify``.

Two in-toto statements name the image by its digest: its bill of materials (CycloneDX) and the provenance that BuildKit
recorded (SLSA). Each is signed in a DSSE envelope and attached to the image in its OCI layout as a Sigstore bundle.
Releases attach bundles of the same format, signed without a key.

Formats: https://github.com/in-toto/attestation/tree/main/spec/v1,
https://github.com/secure-systems-lab/dsse and https://docs.sigstore.dev/about/bundle
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Any

import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from oci_layout import MANIFEST, Layout, UnreadableLayout
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
EMPTY = "application/vnd.oci.empty.v1+json"
PREDICATE_TYPE = "dev.sigstore.bundle.predicateType"

BILL = "https://cyclonedx.org/bom"
PROVENANCE = ("https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2")
"""BuildKit writes one or the other, depending on its version."""
REQUIRED = {"bill of materials": (BILL,), "provenance": PROVENANCE}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


class BadInput(Exception):
    """A file that was named cannot be used."""


class NotVerified(Exception):
    """A statement is missing, is of another image, or is not signed with the key."""


@app.command()
def sign(
    layout: Annotated[Path, typer.Argument(help="the image's OCI layout, as make oci writes it")],
    key: Annotated[Path, typer.Option(help="the private key, in PEM and without a password")],
    sbom: Annotated[Path, typer.Option(help="the bill of materials, CycloneDX in JSON")],
    metadata: Annotated[Path, typer.Option(help="what docker buildx build --metadata-file wrote")],
) -> None:
    """Sign the image's bill of materials and provenance, and attach both."""
    image = Layout(layout)
    image.check_image()
    signer = _signer(key)
    built = _json(metadata)
    if built.get("containerimage.digest") != image.digest:
        raise BadInput(f"{metadata} is of {built.get('containerimage.digest')}, not of {image.digest}; run make oci")
    provenance = built.get("buildx.build.provenance")
    if not isinstance(provenance, dict):
        raise BadInput(f"{metadata} holds no provenance; run make oci, with docker buildx 0.14 or later")
    attach(image, signer, BILL, _json(sbom))
    attach(image, signer, PROVENANCE[0 if "buildDefinition" in provenance else 1], provenance)
    image.write_index()
    print(f"{layout} {image.digest}: bill of materials and provenance signed")


@app.command()
def verify(
    layout: Annotated[Path, typer.Argument(help="the image's OCI layout")],
    key: Annotated[Path, typer.Option(help="the public key, in PEM")],
) -> None:
    """Verify the image's content, and the signatures of its bill of materials and provenance."""
    image = Layout(layout)
    public = _public_key(key)
    try:
        image.check_image()
    except UnreadableLayout as error:
        raise NotVerified(str(error)) from error
    for what, types in REQUIRED.items():
        entries = [entry for entry in image.attached if entry.get("annotations", {}).get(PREDICATE_TYPE) in types]
        if not entries:
            raise NotVerified(f"{layout} has no {what}; make attest adds it")
        for entry in entries:
            try:
                check(image, entry, public)
            except (UnreadableLayout, ValueError, KeyError, TypeError, VerificationError) as error:
                raise NotVerified(f"{layout}: the {what} cannot be trusted: {error}") from error
    print(f"{layout} {image.digest}: bill of materials and provenance are signed with {key}")


def attach(image: Layout, signer: CryptoSigner, predicate_type: str, predicate: dict[str, Any]) -> None:
    """Sign a statement of the image, and attach it in place of an earlier one of its type."""
    subject = {"name": image.folder.name, "digest": {"sha256": image.digest.removeprefix("sha256:")}}
    statement = {"_type": STATEMENT, "subject": [subject], "predicateType": predicate_type, "predicate": predicate}
    envelope = Envelope(json.dumps(statement).encode(), PAYLOAD, {})
    envelope.sign(signer)
    hint = base64.b64encode(bytes.fromhex(signer.public_key.keyid)).decode()
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": envelope.to_dict(),
    }
    annotations = {"dev.sigstore.bundle.content": "dsse-envelope", PREDICATE_TYPE: predicate_type}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": {"mediaType": EMPTY, **image.add(b"{}")},
        "layers": [{"mediaType": BUNDLE, **image.add(json.dumps(bundle).encode())}],
        "subject": {name: image.image[name] for name in ("mediaType", "digest", "size")},
        "annotations": annotations,
    }
    descriptor = image.add(json.dumps(manifest).encode())
    image.attached = [e for e in image.attached if e.get("annotations", {}).get(PREDICATE_TYPE) != predicate_type]
    image.attached.append({"mediaType": MANIFEST, "artifactType": BUNDLE, "annotations": annotations, **descriptor})


def check(image: Layout, entry: dict[str, Any], key: Key) -> None:
    """Verify one attached statement: its signature, then that it is of this image and of the type it is listed as.

    Raises:
        VerificationError: it is not signed with the key, or its content was changed.
        ValueError: it is of another image or type, or not in the format; so also KeyError and TypeError.
        UnreadableLayout: what is attached cannot be read.
    """
    (layer,) = image.read(entry)["layers"]
    envelope = Envelope.from_dict(image.read(layer)["dsseEnvelope"])
    try:
        envelope.verify([key], 1)
    except VerificationError as error:
        raise VerificationError("it is not signed with this key, or was changed after it was signed") from error
    statement = json.loads(envelope.payload)
    if envelope.payload_type != PAYLOAD or statement["_type"] != STATEMENT:
        raise ValueError("it is no in-toto statement")
    if statement["predicateType"] != entry["annotations"][PREDICATE_TYPE]:
        raise ValueError(f"it is a {statement['predicateType']}")
    digests = [f"sha256:{subject['digest']['sha256']}" for subject in statement["subject"]]
    if digests != [image.digest]:
        raise ValueError(f"it is of {', '.join(digests)}, and the image is {image.digest}")


def _signer(path: Path) -> CryptoSigner:
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{path} cannot be used as a private key ({error}); see docs/docker.md") from error


def _public_key(path: Path) -> SSlibKey:
    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{path} cannot be used as a public key ({error}); see docs/docker.md") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise BadInput(f"{path} is no JSON object")
    return document


def main() -> None:
    """Exit code 1 if something is not verified, 2 if a file cannot be used."""
    try:
        app()
    except NotVerified as error:
        print(f"error: not verified: {error}", file=sys.stderr)
        sys.exit(1)
    except (BadInput, UnreadableLayout) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
