"""The schemas of kinds that Kubernetes does not know, from the CustomResourceDefinitions of their projects.

``python -m tests.k8s.crds FOLDER`` downloads them: ``make test-crds``.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pooch
import pytest
import yaml

from tests.k8s.manifests import CUSTOM_KINDS, documents

VARIABLE = "MNIST_JOBS_CRDS"
"""Names a folder with the definitions of JobSet and Kubeflow Trainer, as their repositories or releases have them."""

JOBSET = "https://raw.githubusercontent.com/kubernetes-sigs/jobset/v0.12.0/config/components/crd/bases"
TRAINER = "https://raw.githubusercontent.com/kubeflow/trainer/v2.3.0/manifests/base/crds"
DOWNLOADS = {
    f"{JOBSET}/jobset.x-k8s.io_jobsets.yaml": "d022b87624512cf0b6741b31b24a2bea9945b5a838b50713af29332c878bb6fe",
    f"{TRAINER}/trainer.kubeflow.org_clustertrainingruntimes.yaml": (
        "ec84dc3388fcdbe8c61d3c247a773d14458dd9438e995bea8e50d2a18080eef9"
    ),
    f"{TRAINER}/trainer.kubeflow.org_trainjobs.yaml": (
        "a742cafc5b5582640c7e0b7467c024fc237256fbca5ba0a9f0531dfb66d64416"
    ),
}
"""Addresses of releases, and the files' SHA-256."""


def uses_custom_kinds(name: str) -> bool:
    return any(document["kind"] in CUSTOM_KINDS for document in documents(name))


def need_crds() -> Path:
    folder = os.environ.get(VARIABLE)
    if not folder:
        kinds = ", ".join(sorted(CUSTOM_KINDS))
        pytest.skip(f"no schemas of {kinds}: a folder with their definitions goes into {VARIABLE}")
    return Path(folder)


@cache
def definitions(folder: Path) -> tuple[dict[str, Any], ...]:
    """Every CustomResourceDefinition in the YAML files of ``folder`` and below, of :data:`CUSTOM_KINDS`."""
    found = [document for path in sorted(folder.rglob("*.yaml")) for document in yaml.safe_load_all(path.read_text())]
    definitions = tuple(
        document
        for document in found
        if isinstance(document, dict)
        and document.get("kind") == "CustomResourceDefinition"
        and document["spec"]["names"]["kind"] in CUSTOM_KINDS
    )
    missing = CUSTOM_KINDS - {document["spec"]["names"]["kind"] for document in definitions}
    assert not missing, f"{VARIABLE}={folder} has no definition of {sorted(missing)}"
    return definitions


def errors(folder: Path, document: dict[str, Any]) -> list[str]:
    """What the API server would refuse, and what it would silently drop: fields that the schema does not name."""
    group, _, version = document["apiVersion"].partition("/")
    (schema,) = [
        served["schema"]["openAPIV3Schema"]
        for definition in definitions(folder)
        if (definition["spec"]["group"], definition["spec"]["names"]["kind"]) == (group, document["kind"])
        for served in definition["spec"]["versions"]
        if served["name"] == version
    ]
    schema = _strict(schema)
    # The same for all kinds; the definitions leave it out.
    schema["properties"]["metadata"] = {"type": "object"}
    found = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, error.path))}: {error.message[:300]}" for error in found]


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {
        key: {name: _strict(part) for name, part in value.items()} if key == "properties" else _strict(value)
        for key, value in schema.items()
    }
    if schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict


if __name__ == "__main__":
    for url, sha256 in DOWNLOADS.items():
        pooch.retrieve(url, f"sha256:{sha256}", fname=url.rpartition("/")[2], path=sys.argv[1])
