"""The manifests as objects: what ``kubectl apply -f k8s/`` takes, and what each overlay renders to."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import render_manifests

Document = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
APPLIED = "k8s"
"""The name of the set that a bare ``kubectl apply -f k8s/`` takes, beside the overlays'."""
SETS = [APPLIED, *OVERLAYS]

PART_OF = "app.kubernetes.io/part-of"
INSTANCE = "app.kubernetes.io/instance"
NAME = "app.kubernetes.io/name"
VERSION = "app.kubernetes.io/version"
QUEUE = "kueue.x-k8s.io/queue-name"
RANK = "mnist-jobs/ranks"
"""The label of pods that are ranks of one run."""
GPU = "nvidia.com/gpu"

RANKS = ("jobset", "ranks", "trainjob")
"""The overlays in which a Job is one run over several pods."""
CUSTOM_KINDS = {"JobSet", "ClusterTrainingRuntime", "TrainJob"}
"""Kinds that Kubernetes itself does not know."""


@dataclass(frozen=True)
class Job:
    """A Job and the parts of it that most tests ask for."""

    document: Document
    jobset: Document | None = None
    """The specification of the JobSet that makes the Job, if one does."""

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def program(self) -> str:
        """The image's name, which is the console script's where the Job trains."""
        return str(self.document["metadata"]["labels"][NAME])

    @property
    def trains(self) -> bool:
        return bool(self.document["metadata"]["labels"]["app.kubernetes.io/component"] == "training")

    @property
    def spec(self) -> Document:
        spec: Document = self.document["spec"]
        return spec

    @property
    def pod(self) -> Document:
        pod: Document = self.spec["template"]["spec"]
        return pod

    @property
    def container(self) -> Document:
        (container,) = self.pod["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def containers(self) -> list[Document]:
        """All of the pod's, in the order in which they run."""
        return [*self.pod.get("initContainers", []), self.container]

    @property
    def mounts(self) -> dict[str, Document]:
        """By mount path: its volume."""
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        return {mount["mountPath"]: volumes[mount["name"]] for mount in self.container["volumeMounts"]}


def files() -> list[Path]:
    return sorted(path for path in K8S.iterdir() if path.is_file())


def need_kubectl() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, and it renders the overlays")


@cache
def documents(name: str) -> list[Document]:
    """The objects of one of :data:`SETS`, in the order in which they are applied."""
    if name == APPLIED:
        return [document for path in files() for document in yaml.safe_load_all(path.read_text("utf-8"))]
    need_kubectl()
    return [yaml.safe_load(text) for text in render_manifests.kustomize(K8S / "overlays" / name)]


def of_kind(name: str, kind: str) -> list[Document]:
    return [document for document in documents(name) if document["kind"] == kind]


def jobs(name: str) -> list[Job]:
    """The Jobs of a set, also those that the JobSet controller makes of its JobSets and runtimes."""
    found = [Job(document) for document in of_kind(name, "Job")]
    for document in [*of_kind(name, "JobSet"), *of_kind(name, "ClusterTrainingRuntime")]:
        found += _jobs_of_jobset(document)
    return found


def _jobs_of_jobset(document: Document) -> list[Job]:
    """With the names that JobSet gives: ``<JobSet>-<replicated job>-<index>``. A TrainJob's JobSet has its name."""
    metadata = document["metadata"]
    jobset = document["spec"] if document["kind"] == "JobSet" else document["spec"]["template"]["spec"]
    return [
        Job(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {
                    "name": f"{metadata['name']}-{replicated['name']}-{index}",
                    "namespace": "mnist-jobs",
                    "labels": {**metadata["labels"], **replicated["template"].get("metadata", {}).get("labels", {})},
                },
                "spec": replicated["template"]["spec"],
            },
            jobset,
        )
        for replicated in jobset["replicatedJobs"]
        for index in range(replicated.get("replicas", 1))
    ]


def job(name: str, program: str) -> Job:
    (found,) = (job for job in jobs(name) if job.program == program)
    return found


def label(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"
