"""What holds of every Job, in the base and in each overlay: locked down, bounded, and in step with the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs.cli.app import build_app
from jobs.exit_codes import ExitCode
from jobs.mnist_tf.cli import PROGRAM as MNIST_TF
from jobs.mnist_torch.cli import PROGRAM as MNIST_TORCH
from jobs.training import environment
from jobs.training import termination_message as termination
from tests.k8s.manifests import GPU, NAME, QUEUE, RANK, RANKS, SETS, Document, Job, documents, jobs, of_kind

PROGRAMS = {"mnist-tf": MNIST_TF, "mnist-torch": MNIST_TORCH}
TERMINATION_LOG = "/dev/termination-log"

each_set = pytest.mark.parametrize("name", SETS)

# By exit code of a training job: can another attempt change it?
ANOTHER_ATTEMPT_CHANGES_NOTHING = {
    ExitCode.BAD_INPUT,
    ExitCode.NO_USABLE_GPU,
    ExitCode.BELOW_REFERENCE,
    ExitCode.DATASET_REFUSED,
    ExitCode.REPORT_NOT_WRITABLE,
    ExitCode.FRAMEWORK_MISSING,
    ExitCode.DIVERGED,
}
ANOTHER_ATTEMPT_MAY_HELP = {
    ExitCode.INTERNAL_ERROR,
    ExitCode.OUT_OF_MEMORY,
    ExitCode.RANKS_NOT_CONNECTED,
    ExitCode.PEER_LOST,
    ExitCode.INTERRUPTED,
    ExitCode.INTERRUPTED_BY_KEYBOARD,
}
NOT_A_TRAINING_JOB_S = {ExitCode.DONE, ExitCode.NOT_COMPARABLE, ExitCode.REGRESSION}
# Of one of several ranks: the cause is in another pod.
CAUSED_BY_ANOTHER_RANK = {ExitCode.RANKS_NOT_CONNECTED, ExitCode.PEER_LOST, ExitCode.INTERRUPTED}
RETRIES = 2


@each_set
def test_namespace_enforces_restricted(name: str) -> None:
    (namespace,) = of_kind(name, "Namespace")
    labels = namespace["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


@each_set
def test_network_policy_denies_ingress_and_egress(name: str) -> None:
    all_pods, *others = of_kind(name, "NetworkPolicy")
    assert all_pods["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    # What they allow has a test of its own.
    assert len(others) == (1 if name in RANKS else 0)


@each_set
def test_pods_meet_the_restricted_standard(name: str) -> None:
    for job in jobs(name):
        pod = job.pod
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in job.containers:
            assert not {"ports", "lifecycle", "livenessProbe", "restartPolicy"} & container.keys()
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        assert all({"emptyDir", "persistentVolumeClaim"} & volume.keys() for volume in pod["volumes"])


@each_set
def test_pods_have_no_token_and_no_service_variables(name: str) -> None:
    for job in jobs(name):
        assert job.pod["automountServiceAccountToken"] is False
        assert job.pod["enableServiceLinks"] is False


@each_set
def test_images_are_the_built_ones(name: str) -> None:
    for job in jobs(name):
        images = [container["image"].partition(":")[0] for container in job.containers]
        assert images == (["mnist-torch", "mnist-tf", "mnist-torch"] if name == "duel" else [job.program])
        assert {container["imagePullPolicy"] for container in job.containers} == {"IfNotPresent"}


@each_set
def test_resource_requests_equal_limits_and_gpu_taint_is_tolerated(name: str) -> None:
    for job in jobs(name):
        for resources in (container["resources"] for container in job.containers):
            assert resources["requests"] == resources["limits"]
            assert {"cpu", "memory", "ephemeral-storage"} <= resources["limits"].keys()
        assert job.pod["tolerations"] == [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]


@each_set
def test_pods_are_not_restarted_and_replaced_only_after_failure(name: str) -> None:
    for job in jobs(name):
        assert job.pod["restartPolicy"] == "Never"
        assert job.spec["podReplacementPolicy"] == "Failed"
        if name in RANKS:
            # No limit by index: a run has all its ranks or none.
            assert "backoffLimitPerIndex" not in job.spec
            retries = job.spec["backoffLimit"], 0 if job.jobset is None else job.jobset["failurePolicy"]["maxRestarts"]
            assert sorted(retries) == [0, RETRIES]
        elif job.spec.get("completionMode") == "Indexed":
            assert "backoffLimit" not in job.spec
            assert 0 <= job.spec["backoffLimitPerIndex"] <= 3
        else:
            assert 0 < job.spec["backoffLimit"] <= 3


def codes_by_action(job: Job) -> dict[str, set[int]]:
    """What the policy does at which exit codes; a disruption must come first, and be ignored where a pod is one run."""
    disruption, *rules = job.spec["podFailurePolicy"]["rules"]
    several = len(job.containers) > 1
    action = "FailIndex" if several else "Ignore"
    assert disruption == {"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    # A rule without a name is for all containers.
    names = {rule["onExitCodes"].get("containerName") for rule in rules}
    assert names == {None if several else job.container["name"]}
    assert all(rule["onExitCodes"]["operator"] == "In" for rule in rules)
    return {rule["action"]: set(rule["onExitCodes"]["values"]) for rule in rules}


@each_set
def test_failure_policy_matches_the_exit_codes(name: str) -> None:
    for job in filter(lambda job: job.trains, jobs(name)):
        actions = codes_by_action(job)
        assert actions.pop("Ignore", set()) == (CAUSED_BY_ANOTHER_RANK if name in RANKS else set())
        assert set.union(*actions.values()) == ANOTHER_ATTEMPT_CHANGES_NOTHING
        assert sum(map(len, actions.values())) == len(ANOTHER_ATTEMPT_CHANGES_NOTHING)
        indexed = job.spec.get("completionMode") == "Indexed" and name not in RANKS
        assert actions.keys() == ({"FailJob", "FailIndex"} if indexed else {"FailJob"})


def test_exit_codes_all_have_a_policy() -> None:
    decided = [ANOTHER_ATTEMPT_CHANGES_NOTHING, ANOTHER_ATTEMPT_MAY_HELP, NOT_A_TRAINING_JOB_S]
    assert sorted(code for codes in decided for code in codes) == sorted(ExitCode)


@each_set
def test_job_times_are_limited(name: str) -> None:
    for job in jobs(name):
        assert 600 <= job.spec["activeDeadlineSeconds"] <= 24 * 3600
        # A Job of a JobSet that is removed by its own limit would be made again.
        assert ("ttlSecondsAfterFinished" in job.spec) == (job.jobset is None)
        assert (job.jobset or job.spec)["ttlSecondsAfterFinished"] >= 24 * 3600
        assert job.pod["terminationGracePeriodSeconds"] >= 30


@each_set
def test_job_arguments_are_accepted_by_the_program(name: str) -> None:
    for job in filter(lambda job: job.trains, jobs(name)):
        for container in job.containers:
            words = [word.replace("$(JOB_COMPLETION_INDEX)", "3") for word in container["args"]]
            program = container["image"].partition(":")[0]
            if "command" in container:
                # What comes before the program is the duel's, and has a test of its own.
                words = words[words.index("--") + 1 :]
                assert words.pop(0) == program
            command, *options = words
            group: Any = typer.main.get_command(build_app(PROGRAMS[program]))
            params = group.commands[command].make_context(command, options).params
            # Never a silent CPU run: where a GPU is asked of the cluster, the program must find it.
            assert params["device"] == ("cpu" if name == "cpu" else "gpu")


@each_set
def test_volume_claims_exist(name: str) -> None:
    claims = {
        claim["metadata"]["name"] for claim in of_kind("rwx" if name == "merge" else name, "PersistentVolumeClaim")
    }
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for job in jobs(name)
        for volume in job.pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert used == claims


@each_set
def test_written_paths_have_a_volume(name: str) -> None:
    for job in jobs(name):
        assert {"/reports", "/tmp"} <= job.mounts.keys()  # noqa: S108 - paths in a container
        # Without the group, a fresh volume belongs to root and the job could not write to it.
        assert job.pod["securityContext"]["fsGroup"] == job.pod["securityContext"]["runAsGroup"]
        for volume in job.mounts.values():
            assert "persistentVolumeClaim" in volume or "sizeLimit" in volume["emptyDir"]
        if job.trains:
            assert job.mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"  # noqa: S108


def fields_of(container: Document) -> dict[str, str]:
    """By environment variable: the field of the pod that it is taken from."""
    values = {entry["name"]: entry.get("valueFrom", {}).get("fieldRef") for entry in container["env"]}
    return {name: value["fieldPath"] for name, value in values.items() if value}


@each_set
def test_environment_names_node_pod_and_namespace(name: str) -> None:
    for job in jobs(name):
        fields = fields_of(job.container)
        assert all(fields_of(container) == fields for container in job.containers)
        expected = {
            "MNIST_JOBS_NODE_NAME": "spec.nodeName",
            "MNIST_JOBS_POD_NAME": "metadata.name",
            "MNIST_JOBS_POD_NAMESPACE": "metadata.namespace",
        }
        if job.trains:
            expected["MNIST_JOBS_JOB_NAME"] = "metadata.labels['batch.kubernetes.io/job-name']"
            read = set(re.findall(r"MNIST_JOBS_[A-Z_]+", Path(environment.__file__).read_text("utf-8")))
            assert expected.keys() <= read
        if name == "duel":
            # Read by the manifest's own arguments.
            expected["MNIST_JOBS_PLAN"] = "metadata.labels['batch.kubernetes.io/controller-uid']"
        assert fields == expected


@each_set
def test_thread_counts_equal_the_cpu_limit(name: str) -> None:
    for job in filter(lambda job: job.trains, jobs(name)):
        limited = {"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}
        for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
            assert all({"name": variable, **limited} in container["env"] for container in job.containers)


@each_set
def test_termination_message_path_matches_the_variable(name: str) -> None:
    for job in jobs(name):
        for container in job.containers:
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
            if job.trains:
                assert container["terminationMessagePath"] == TERMINATION_LOG
                assert {"name": termination.PATH_VARIABLE, "value": TERMINATION_LOG} in container["env"]


@each_set
def test_labels_of_a_job_and_its_pods_are_equal(name: str) -> None:
    for job in jobs(name):
        # Read by Kueue, Kubeflow Trainer and the network policy. All other labels are equal.
        own = {QUEUE, "trainer.kubeflow.org/trainjob-ancestor-step", RANK}
        of_job, of_pod = (
            {key: value for key, value in labelled["metadata"]["labels"].items() if key not in own}
            for labelled in (job.document, job.spec["template"])
        )
        assert of_pod == of_job
        labels = job.spec["template"]["metadata"]["labels"]
        assert (labels.get(RANK) == "true") == (name in RANKS)
        assert labels[NAME] == job.program


@each_set
def test_sets_hold_jobs_and_a_namespace(name: str) -> None:
    assert jobs(name)
    assert {document["kind"] for document in documents(name)} >= {"Namespace", "NetworkPolicy"}
