"""``make attest`` and ``make verify``: what is signed verifies, and what was changed does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support import attestations, oci
from tests.support.attestations import Keys, attest_image, tampered_with

if TYPE_CHECKING:
    from pathlib import Path

BILL = {"bomFormat": "CycloneDX", "specVersion": "1.5", "components": []}
PROVENANCE = {"buildDefinition": {"buildType": "x"}, "runDetails": {}}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return attestations.make_keys(tmp_path)


@pytest.fixture
def layout(tmp_path: Path, keys: Keys) -> Path:
    """A small image, signed."""
    folder = tmp_path / "mnist-x"
    digest = oci.write_layout(folder, [{"opt/a": (b"a", 1)}], created="2026")
    (tmp_path / "bill.json").write_text(json.dumps(BILL))
    metadata = {"containerimage.digest": digest, "buildx.build.provenance": PROVENANCE}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    done = sign(folder, keys.private)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def sign(folder: Path, key: Path) -> attestations.Done:
    top = folder.parent
    return attest_image("sign", folder, "--key", key, "--sbom", top / "bill.json", "--metadata", top / "metadata.json")


def test_verify_signed_image_succeeds(layout: Path, keys: Keys) -> None:
    done = attest_image("verify", layout, "--key", keys.public)
    digest = oci.index(layout)["manifests"][0]["digest"]
    expected = f"{layout} {digest}: bill of materials and provenance are signed with {keys.public}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_sign_statements_name_the_image_and_hold_the_documents(layout: Path) -> None:
    image, *attached = oci.index(layout)["manifests"]
    statements = {statement["predicateType"]: statement for statement in attestations.statements(layout)}
    assert len(attached) == len(statements) == 2
    assert statements["https://cyclonedx.org/bom"]["predicate"] == BILL
    assert statements["https://slsa.dev/provenance/v1"]["predicate"] == PROVENANCE
    for statement in statements.values():
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert [f"sha256:{subject['digest']['sha256']}" for subject in statement["subject"]] == [image["digest"]]
    for entry in attached:
        manifest = json.loads(oci.blob(layout, entry["digest"]).read_bytes())
        assert manifest["subject"] == image


def test_sign_again_replaces_the_earlier_statements(layout: Path, keys: Keys) -> None:
    assert sign(layout, keys.private).returncode == 0
    assert len(oci.index(layout)["manifests"]) == 3
    assert attest_image("verify", layout, "--key", keys.public).returncode == 0


@pytest.mark.parametrize("case", attestations.TAMPERING)
def test_verify_changed_image_or_statement_fails(layout: Path, keys: Keys, tmp_path: Path, case: str) -> None:
    changed = tampered_with(layout, tmp_path / "changed", case)
    done = attest_image("verify", changed, "--key", keys.public)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: not verified: ")
    assert attestations.TAMPERING[case] in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_other_key_fails(layout: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = attestations.make_keys(tmp_path / "other")
    done = attest_image("verify", layout, "--key", other.public)
    assert done.returncode == 1
    assert "is not signed with this key" in done.stderr


def test_verify_image_without_statements_fails(tmp_path: Path, keys: Keys) -> None:
    oci.write_layout(tmp_path / "bare", [{}])
    done = attest_image("verify", tmp_path / "bare", "--key", keys.public)
    assert done.returncode == 1
    assert "has no bill of materials; make attest adds it" in done.stderr


def test_sign_metadata_of_another_build_is_refused(layout: Path, keys: Keys) -> None:
    (layout.parent / "metadata.json").write_text(json.dumps({"containerimage.digest": "sha256:0"}))
    done = sign(layout, keys.private)
    assert done.returncode == 2
    assert "is of sha256:0, not of sha256:" in done.stderr


@pytest.mark.parametrize("key", ["", "nowhere", "bill.json"])
def test_sign_or_verify_with_no_key_is_an_error(layout: Path, key: str) -> None:
    for done in (sign(layout, layout.parent / key), attest_image("verify", layout, "--key", layout.parent / key)):
        assert done.returncode == 2
        assert "cannot be used as a p" in done.stderr
        assert "Traceback" not in done.stderr
