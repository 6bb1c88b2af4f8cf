"""What is applied is what is rendered, and the API of every Kubernetes that can be checked here takes it."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml

from jobs import __version__
from scripts import render_manifests
from tests.k8s.manifests import (
    APPLIED,
    CUSTOM_KINDS,
    INSTANCE,
    K8S,
    PART_OF,
    SETS,
    VERSION,
    documents,
    files,
    jobs,
    label,
    need_kubectl,
    of_kind,
)

NEWEST_MINOR = int(kubernetes_validate.latest_version().split(".")[1])
OLDEST_MINOR = 31
# The first version that serves resource.k8s.io/v1.
OLDEST_MINOR_OF = {"dra": 34}

each_set = pytest.mark.parametrize("name", SETS)


@each_set
@pytest.mark.parametrize("minor", range(OLDEST_MINOR, NEWEST_MINOR + 1))
def test_manifests_every_kubernetes_version_are_valid(name: str, minor: int) -> None:
    known = [document for document in documents(name) if document["kind"] not in CUSTOM_KINDS]
    for document in known + [job.document for job in jobs(name) if job.jobset is not None]:
        if document["kind"] == "ResourceClaimTemplate" and minor < OLDEST_MINOR_OF[name]:
            continue
        kubernetes_validate.validate(document, f"1.{minor}", strict=True)


def test_validation_unknown_field_is_refused() -> None:
    document = {**documents(APPLIED)[0], "spec": {"unknown": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, f"1.{NEWEST_MINOR}", strict=True)


def test_files_equal_the_rendered_base() -> None:
    need_kubectl()
    rendered = {name: list(yaml.safe_load_all(text)) for name, text in render_manifests.files().items()}
    written = {path.name: list(yaml.safe_load_all(path.read_text("utf-8"))) for path in files()}
    assert rendered == written, "run make manifests"


def test_folder_holds_only_manifests() -> None:
    assert [path.suffix for path in files()] == [".yaml"] * len(files())
    assert all({"apiVersion", "kind", "metadata"} <= document.keys() for document in documents(APPLIED))
    assert not list(K8S.glob("kustomization*"))
    assert all(path.read_text("utf-8").startswith(render_manifests.HEADER) for path in files())


@each_set
def test_namespace_is_first_and_holds_the_rest(name: str) -> None:
    namespace, *rest = documents(name)
    assert namespace["kind"] == "Namespace"
    placed = {label(document): document["metadata"].get("namespace") for document in rest}
    for found in of_kind(name, "ClusterTrainingRuntime"):
        # It belongs to no namespace.
        assert placed.pop(label(found)) is None
    assert set(placed.values()) == {namespace["metadata"]["name"]}


@each_set
def test_objects_are_all_labelled(name: str) -> None:
    instance = "default" if name == APPLIED else name
    for labelled in [*documents(name), *(job.spec["template"] for job in jobs(name))]:
        labels = labelled["metadata"]["labels"]
        assert labels[PART_OF] == "mnist-jobs"
        assert labels[INSTANCE] == instance


def test_sets_share_no_object_names() -> None:
    """A Job cannot be changed into another one: names that two sets share would be refused."""
    kinds = {"PersistentVolumeClaim", "Service", *CUSTOM_KINDS}
    names = [label(document) for name in SETS for document in documents(name) if document["kind"] in kinds]
    names += [label(job.document) for name in SETS for job in jobs(name)]
    assert len(names) == len(set(names))


@each_set
def test_version_label_and_image_tag_equal_the_package_version(name: str) -> None:
    for document in documents(name):
        assert document["metadata"]["labels"][VERSION] == __version__
    for container in (container for job in jobs(name) for container in job.containers):
        assert container["image"].rpartition(":")[2] == __version__
