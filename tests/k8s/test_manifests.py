"""The manifests as a cluster would take them: valid in every Kubernetes we can check, admitted by ``restricted``, and
in step with the images, the exit codes and the environment variables they rely on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from jobs import __version__
from jobs.exit_codes import ExitCode
from jobs.harness import environment
from jobs.harness.cli import build_app
from jobs.mnist_tf.cli import PROGRAM as MNIST_TF
from jobs.mnist_torch.cli import PROGRAM as MNIST_TORCH

Document = dict[str, Any]

K8S = Path(__file__).resolve().parents[2] / "k8s"
FILES = sorted(path for path in K8S.iterdir() if path.is_file())
DOCUMENTS: list[Document] = [document for path in FILES for document in yaml.safe_load_all(path.read_text("utf-8"))]
JOBS = {document["metadata"]["name"]: document for document in DOCUMENTS if document["kind"] == "Job"}
PROGRAMS = {"mnist-tf": MNIST_TF, "mnist-torch": MNIST_TORCH}
PART_OF = "app.kubernetes.io/part-of"

NEWEST_MINOR = int(kubernetes_validate.latest_version().split(".")[1])
VERSIONS = [f"1.{minor}" for minor in range(31, NEWEST_MINOR + 1)]

each_job = pytest.mark.parametrize("name", PROGRAMS)


def pod_of(name: str) -> Document:
    pod: Document = JOBS[name]["spec"]["template"]["spec"]
    return pod


def container_of(name: str) -> Document:
    (container,) = pod_of(name)["containers"]
    assert isinstance(container, dict)
    return container


def label(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=label)
def test_valid_in_every_version(document: Document, version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_folder_holds_only_what_apply_takes() -> None:
    assert [path.suffix for path in FILES] == [".yaml"] * len(FILES)
    assert all({"apiVersion", "kind", "metadata"} <= document.keys() for document in DOCUMENTS)
    assert "Kustomization" not in {document["kind"] for document in DOCUMENTS}


def test_the_namespace_comes_first_and_holds_the_rest() -> None:
    namespace, *rest = DOCUMENTS
    assert namespace["kind"] == "Namespace"
    assert {document["metadata"]["namespace"] for document in rest} == {namespace["metadata"]["name"]}
    assert {document["metadata"]["labels"][PART_OF] for document in DOCUMENTS} == {"mnist-jobs"}


def test_the_namespace_enforces_restricted() -> None:
    labels = DOCUMENTS[0]["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


def test_nobody_talks_to_the_jobs_or_is_talked_to() -> None:
    (policy,) = (document for document in DOCUMENTS if document["kind"] == "NetworkPolicy")
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_jobs_are_the_programs_and_differ_in_name_only() -> None:
    assert JOBS.keys() == PROGRAMS.keys()
    tf, torch = (yaml.safe_dump(JOBS[name]).replace(name, "NAME") for name in PROGRAMS)
    assert tf == torch


@each_job
def test_restricted_pod_security(name: str) -> None:
    pod, container = pod_of(name), container_of(name)
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert not {"ports"} & container.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all({"emptyDir", "persistentVolumeClaim"} & volume.keys() for volume in pod["volumes"])


@each_job
def test_no_token_and_no_service_variables(name: str) -> None:
    assert pod_of(name)["automountServiceAccountToken"] is False
    assert pod_of(name)["enableServiceLinks"] is False


@each_job
def test_image_is_the_one_that_make_images_builds(name: str) -> None:
    assert container_of(name)["image"] == f"{name}:{__version__}"
    assert container_of(name)["imagePullPolicy"] == "IfNotPresent"
    for metadata in (JOBS[name]["metadata"], JOBS[name]["spec"]["template"]["metadata"]):
        assert metadata["labels"]["app.kubernetes.io/version"] == __version__


@each_job
def test_one_gpu_and_a_guaranteed_share(name: str) -> None:
    resources = container_of(name)["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"].keys() == {"cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"}
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert pod_of(name)["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


@each_job
def test_the_program_accepts_its_arguments_and_never_falls_back_to_the_cpu(name: str) -> None:
    command, *options = container_of(name)["args"]
    group: Any = typer.main.get_command(build_app(PROGRAMS[name]))
    context = group.commands[command].make_context(command, options)
    assert context.params["device"] == "gpu"


@each_job
def test_retries(name: str) -> None:
    spec = JOBS[name]["spec"]
    assert pod_of(name)["restartPolicy"] == "Never"
    assert spec["podReplacementPolicy"] == "Failed"
    assert 0 < spec["backoffLimit"] <= 3
    ignore, fail = spec["podFailurePolicy"]["rules"]
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"]["containerName"] == container_of(name)["name"]
    assert fail["onExitCodes"]["operator"] == "In"
    assert fail["onExitCodes"]["values"] == [int(code) for code in FAIL_AT_ONCE]


FAIL_AT_ONCE = [
    ExitCode.BAD_INPUT,
    ExitCode.NO_USABLE_GPU,
    ExitCode.BELOW_REFERENCE,
    ExitCode.DATASET_REFUSED,
    ExitCode.REPORT_NOT_WRITABLE,
    ExitCode.FRAMEWORK_MISSING,
    ExitCode.DIVERGED,
]
ANOTHER_ATTEMPT_MAY_HELP = {ExitCode.INTERNAL_ERROR, ExitCode.INTERRUPTED, ExitCode.INTERRUPTED_BY_KEYBOARD}
NOT_A_JOB_S = {ExitCode.DONE, ExitCode.NOT_COMPARABLE, ExitCode.REGRESSION}


def test_every_exit_code_is_decided_upon() -> None:
    assert set(ExitCode) == {*FAIL_AT_ONCE, *ANOTHER_ATTEMPT_MAY_HELP, *NOT_A_JOB_S}


@each_job
def test_times(name: str) -> None:
    spec = JOBS[name]["spec"]
    assert 600 <= spec["activeDeadlineSeconds"] <= 24 * 3600
    assert spec["ttlSecondsAfterFinished"] >= 24 * 3600
    assert pod_of(name)["terminationGracePeriodSeconds"] >= 30


@each_job
def test_reports_go_to_a_volume_of_the_job_s_own(name: str) -> None:
    claims = {document["metadata"]["name"]: document for document in DOCUMENTS if "Claim" in document["kind"]}
    volumes = {volume["name"]: volume for volume in pod_of(name)["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container_of(name)["volumeMounts"]}
    assert mounts.keys() == {"/reports", "/tmp", "/dev/shm"}  # noqa: S108 - paths in a container
    claim = mounts["/reports"]["persistentVolumeClaim"]["claimName"]
    assert claim == f"{name}-reports"
    assert claims[claim]["spec"]["accessModes"] == ["ReadWriteOnce"]
    # Without the group, a fresh volume belongs to root and the job could not write to it.
    assert pod_of(name)["securityContext"]["fsGroup"] == pod_of(name)["securityContext"]["runAsGroup"]
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"  # noqa: S108
    assert "sizeLimit" in mounts["/dev/shm"]["emptyDir"]  # noqa: S108


@each_job
def test_the_report_learns_where_it_ran(name: str) -> None:
    variables = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container_of(name)["env"]}
    assert variables == {
        "MNIST_JOBS_NODE_NAME": "spec.nodeName",
        "MNIST_JOBS_POD_NAME": "metadata.name",
        "MNIST_JOBS_POD_NAMESPACE": "metadata.namespace",
        "MNIST_JOBS_JOB_NAME": "metadata.labels['batch.kubernetes.io/job-name']",
    }
    read = set(re.findall(r"MNIST_JOBS_[A-Z_]+", Path(environment.__file__).read_text("utf-8")))
    assert variables.keys() <= read
