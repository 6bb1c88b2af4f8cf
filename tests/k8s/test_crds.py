"""The objects of JobSet and Kubeflow Trainer fit those projects' schemas. Skipped where these are not at hand."""

from __future__ import annotations

import copy

import pytest

from tests.k8s.crds import errors, need_crds
from tests.k8s.manifests import CUSTOM_KINDS, Document, documents, label

each_overlay = pytest.mark.parametrize("name", ["jobset", "trainjob"])


def custom(name: str) -> list[Document]:
    return [document for document in documents(name) if document["kind"] in CUSTOM_KINDS]


@each_overlay
def test_custom_objects_are_valid(name: str) -> None:
    folder = need_crds()
    found = {label(document): errors(folder, document) for document in custom(name)}
    assert found == {found_label: [] for found_label in found}
    assert len(found) == {"jobset": 2, "trainjob": 4}[name]


@each_overlay
def test_custom_object_unknown_field_is_refused(name: str) -> None:
    folder = need_crds()
    for document in custom(name):
        changed = copy.deepcopy(document)
        changed["spec"]["unknown"] = 1
        (error,) = errors(folder, changed)
        assert "unknown" in error


def test_job_unknown_field_in_a_runtime_is_refused() -> None:
    folder = need_crds()
    changed = copy.deepcopy(custom("trainjob")[0])
    (replicated,) = changed["spec"]["template"]["spec"]["replicatedJobs"]
    replicated["template"]["spec"]["template"]["spec"]["containers"][0]["arguments"] = []
    (error,) = errors(folder, changed)
    assert "arguments" in error
