"""The images of ``make oci``, signed with a throw-away key. ``make test-attestations`` builds and requires one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.docker.conftest import write_sbom
from tests.support import attestations, oci
from tests.support.attestations import Keys, attest_image, tampered_with
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LAYOUTS = [
    "mnist-tf-amd64",
    *(f"{name}-{cpu}" for name in ("mnist-torch", "mnist-merge") for cpu in ("amd64", "arm64")),
]
REQUIRED = os.environ.get("MNIST_JOBS_REQUIRE_LAYOUTS", "").split()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return attestations.make_keys(tmp_path)


@pytest.fixture(params=LAYOUTS)
def signed(request: pytest.FixtureRequest, keys: Keys) -> Path:
    """A signed copy of an image's layout, beside it, so that both can share the layers."""
    source = ROOT / "build/oci" / request.param
    if not source.is_dir():
        reason = f"no {source}; make oci builds it"
        pytest.fail(reason) if request.param in REQUIRED else pytest.skip(reason)
    folder = oci.copy_layout(source, keys.public.parent / request.param)
    bill = write_sbom(request.param.rpartition("-")[0], keys.public.parent)
    options = ("--key", keys.private, "--sbom", bill, "--metadata", source.with_name(f"{request.param}.json"))
    done = attest_image("sign", folder, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_image_signed_with_a_key_verifies_and_a_change_does_not(signed: Path, keys: Keys, tmp_path: Path) -> None:
    done = attest_image("verify", signed, "--key", keys.public)
    assert done.returncode == 0, done.stderr
    for number, (case, reason) in enumerate(attestations.TAMPERING.items()):
        done = attest_image("verify", tampered_with(signed, tmp_path / str(number), case), "--key", keys.public)
        assert done.returncode == 1, case
        assert reason in done.stderr


def test_image_provenance_names_the_builder_and_the_base(signed: Path) -> None:
    statements = {statement["predicateType"]: statement["predicate"] for statement in attestations.statements(signed)}
    (provenance,) = (predicate for name, predicate in statements.items() if "slsa.dev/provenance" in name)
    definition = provenance.get("buildDefinition", provenance)
    assert "buildkit" in definition["buildType"]
    materials = definition.get("resolvedDependencies") or definition.get("materials")
    assert all(material["digest"]["sha256"] for material in materials)
