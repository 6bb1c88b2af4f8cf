"""The overlays in which one run is trained by several pods: their number, their names, and the way between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobs.ranks.place import find_place
from tests.k8s.manifests import QUEUE, RANK, RANKS, Document, Job, documents, jobs, of_kind

if TYPE_CHECKING:
    from jobs.choices import FrameworkName

each_overlay = pytest.mark.parametrize("name", RANKS)
FRAMEWORKS: dict[str, FrameworkName] = {"mnist-tf": "tensorflow", "mnist-torch": "torch"}
POD_BACKOFF_S = 600
"""The longest time that the Job controller waits before it replaces a failed pod (``MaxJobPodFailureBackOff``)."""


def option(args: list[str], name: str) -> str:
    return args[args.index(name) + 1]


def variables(job: Job) -> dict[str, str]:
    """Those that the manifest gives a value."""
    return {entry["name"]: entry["value"] for entry in job.container["env"] if "value" in entry}


@each_overlay
def test_number_of_ranks_is_the_same_everywhere(name: str) -> None:
    assert len(jobs(name)) == 2
    for job in jobs(name):
        numbers = [job.spec["completions"], job.spec["parallelism"], int(option(job.container["args"], "--ranks"))]
        assert len(set(numbers)) == 1
        assert numbers[0] in {2, 4, 8}
        assert job.spec["completionMode"] == "Indexed"


def test_trainjob_equals_its_runtime() -> None:
    """The TrainJob's number and arguments replace the runtime's."""
    runtimes = {found["metadata"]["name"]: found["spec"] for found in of_kind("trainjob", "ClusterTrainingRuntime")}
    made = {job.program: job for job in jobs("trainjob")}
    trainjobs = of_kind("trainjob", "TrainJob")
    assert len(trainjobs) == len(runtimes) == 2
    for found in trainjobs:
        reference, trainer = found["spec"]["runtimeRef"], found["spec"]["trainer"]
        job = made[found["metadata"]["labels"]["app.kubernetes.io/name"]]
        assert reference["kind"] == "ClusterTrainingRuntime"
        assert runtimes[reference["name"]]["mlPolicy"] == {"numNodes": trainer["numNodes"]}
        assert trainer == {"numNodes": job.spec["completions"], "args": job.container["args"]}
        # The JobSet has the TrainJob's name, and the pods' names are made of it.
        assert job.name == f"{found['metadata']['name']}-node-0"


def test_runtime_has_the_names_that_kubeflow_trainer_needs() -> None:
    for found in of_kind("trainjob", "ClusterTrainingRuntime"):
        (replicated,) = found["spec"]["template"]["spec"]["replicatedJobs"]
        assert replicated["name"] == "node"
        labels = replicated["template"]["metadata"]["labels"]
        assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
        (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
        assert container["name"] == "node"


@each_overlay
def test_pods_find_each_other_by_the_names_that_kubernetes_gives(name: str) -> None:
    for job in jobs(name):
        fixed, size = variables(job), job.spec["completions"]
        for index in range(size):
            place = find_place(
                {**fixed, "MNIST_JOBS_JOB_NAME": job.name, "JOB_COMPLETION_INDEX": str(index)},
                framework=FRAMEWORKS[job.program],
                ranks=size,
                service=fixed["MNIST_JOBS_RANKS_SERVICE"],
            )
            assert place is not None
            assert place.rank == index
            # The Job controller gives these host names to the pods of an Indexed Job.
            hosts = [f"{job.name}-{number}" for number in range(size)]
            assert all(len(host) <= 63 for host in hosts)
            assert [host for host, _ in place.addresses] == [f"{host}.{job.pod['subdomain']}" for host in hosts]


@each_overlay
def test_service_names_pods_before_they_are_ready(name: str) -> None:
    for job in jobs(name):
        if job.jobset is None:
            (service,) = of_kind(name, "Service")
            assert service["metadata"]["name"] == job.pod["subdomain"]
            spec = service["spec"]
            assert spec["clusterIP"] == "None"
            assert spec["publishNotReadyAddresses"] is True
            assert spec["selector"].items() <= job.spec["template"]["metadata"]["labels"].items()
        else:
            # The JobSet controller makes the service.
            assert of_kind(name, "Service") == []
            assert job.jobset["network"] == {
                "enableDNSHostnames": True,
                "publishNotReadyAddresses": True,
                "subdomain": job.pod["subdomain"],
            }
            assert job.name.startswith(f"{job.pod['subdomain']}-")


def allowed_ports(rules: list[Document], direction: str) -> list[Document]:
    """The ports that the rules open between pods of the label, and of this namespace."""
    peer = [{"podSelector": {"matchLabels": {RANK: "true"}}}]
    return [port for rule in rules if rule[direction] == peer for port in rule["ports"]]


@each_overlay
def test_network_policy_allows_ranks_and_name_resolution_only(name: str) -> None:
    _, policy = of_kind(name, "NetworkPolicy")
    spec = policy["spec"]
    assert spec["podSelector"] == {"matchLabels": {RANK: "true"}}
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    # Every TCP port: the framework's, the control channel's, and those that gloo and NCCL let the kernel choose.
    assert allowed_ports(spec["ingress"], "from") == allowed_ports(spec["egress"], "to") == [{"protocol": "TCP"}]
    assert len(spec["ingress"]) == 1
    (dns,) = [rule for rule in spec["egress"] if "namespaceSelector" in rule["to"][0]]
    assert len(spec["egress"]) == 2
    assert dns["to"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ]
    assert dns["ports"] == [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]


@each_overlay
def test_owner_of_the_pods_names_a_queue_and_does_not_set_suspend(name: str) -> None:
    owners = {"ranks": "Job", "jobset": "JobSet", "trainjob": "TrainJob"}
    labelled = [document for document in documents(name) if QUEUE in document["metadata"]["labels"]]
    # Kueue suspends the owner. It would count the pods twice if what the owner makes had the label too.
    assert [document["kind"] for document in labelled] == [owners[name]] * 2
    for document in labelled:
        assert document["metadata"]["labels"][QUEUE] == "mnist-jobs"
        assert "suspend" not in document["spec"]
    assert all(QUEUE not in job.spec["template"]["metadata"]["labels"] for job in jobs(name))


@each_overlay
def test_checkpoints_are_on_a_volume_that_all_pods_can_write(name: str) -> None:
    assert [claim["spec"]["accessModes"] for claim in of_kind(name, "PersistentVolumeClaim")] == [["ReadWriteMany"]] * 2
    claims = set()
    for job in jobs(name):
        assert option(job.container["args"], "--checkpoint-dir").startswith("/reports/")
        claims.add(job.mounts["/reports"]["persistentVolumeClaim"]["claimName"])
    assert len(claims) == 2


@each_overlay
def test_ranks_wait_longer_than_a_pod_takes_to_be_replaced(name: str) -> None:
    for job in jobs(name):
        assert POD_BACKOFF_S < int(variables(job)["MNIST_JOBS_RANK_TIMEOUT"]) < job.spec["activeDeadlineSeconds"]


def test_jobsets_start_all_ranks_again_except_where_it_changes_nothing() -> None:
    for job in [*jobs("jobset"), *jobs("trainjob")]:
        assert job.jobset is not None
        (rule,) = job.jobset["failurePolicy"]["rules"]
        assert rule["action"] == "FailJobSet"
        assert set(rule["onJobFailureReasons"]) == {"PodFailurePolicy", "DeadlineExceeded"}
