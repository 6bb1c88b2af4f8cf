"""What each overlay is there for."""

from __future__ import annotations

import json

import pytest

from jobs.comparison.analysis.fleet import AGAIN, RUNS_AGAIN
from jobs.duel.stopping import MIN_BLOCKS
from jobs.exit_codes import ExitCode
from tests.k8s.manifests import APPLIED, GPU, INSTANCE, NAME, OVERLAYS, PART_OF, RANKS, SETS, Job, job, jobs, of_kind
from tests.k8s.test_policy import codes_by_action

BOTH = ("mnist-tf", "mnist-torch")


def gpus(job: Job) -> dict[str, str]:
    """The extended resources a Job asks for."""
    limits = job.container["resources"]["limits"]
    return {name: count for name, count in limits.items() if name.startswith("nvidia.com/")}


def test_overlays_are_the_documented_ones() -> None:
    one_pod = ["cpu", "dra", "duel", "fleet", "fleet-again", "kueue", "merge", "mig", "rwx", "trials"]
    assert sorted([*one_pod, *RANKS]) == OVERLAYS


@pytest.mark.parametrize("name", [name for name in SETS if name not in {"duel", "fleet", "fleet-again", "merge"}])
def test_jobs_of_both_frameworks_differ_in_names_only(name: str) -> None:
    tf, torch = (json.dumps(job(name, program).document, sort_keys=True) for program in BOTH)
    assert tf.replace("mnist-tf", "mnist-torch").replace("reports-tf", "reports-torch") == torch


@pytest.mark.parametrize("name", [APPLIED, "duel", "trials", "fleet", "kueue", "rwx", *RANKS])
def test_jobs_request_one_whole_gpu(name: str) -> None:
    assert [gpus(job) for job in jobs(name)] == [{GPU: "1"}] * len(jobs(name))


@pytest.mark.parametrize("name", [APPLIED, "cpu", "trials", "kueue", "dra", "mig"])
def test_jobs_have_separate_volumes(name: str) -> None:
    claims = of_kind(name, "PersistentVolumeClaim")
    assert [claim["spec"]["accessModes"] for claim in claims] == [["ReadWriteOnce"]] * 2
    used = [job.mounts["/reports"]["persistentVolumeClaim"]["claimName"] for job in jobs(name)]
    assert sorted(used) == sorted(claim["metadata"]["name"] for claim in claims)


def test_cpu_requests_no_gpu_and_one_cpu() -> None:
    for found in jobs("cpu"):
        assert gpus(found) == {}
        assert found.container["resources"]["limits"]["cpu"] == "1"


def test_trials_have_one_seed_for_each_index() -> None:
    for found in jobs("trials"):
        assert found.spec["completionMode"] == "Indexed"
        # Fewer runs a side and the comparison gives no verdict.
        assert found.spec["completions"] >= 5
        # Its volume is ReadWriteOnce.
        assert found.spec["parallelism"] == 1
        args = found.container["args"]
        assert args[args.index("--seed") + 1] == "$(JOB_COMPLETION_INDEX)"
        assert codes_by_action(found)["FailIndex"] == {
            ExitCode.NO_USABLE_GPU,
            ExitCode.BELOW_REFERENCE,
            ExitCode.DIVERGED,
        }


def test_fleet_has_one_pod_for_each_node_and_no_retry() -> None:
    (found,) = jobs("fleet")
    assert found.spec["completionMode"] == "Indexed"
    assert found.spec["parallelism"] == found.spec["completions"] > 1
    assert found.spec["backoffLimitPerIndex"] == 0
    assert "maxFailedIndexes" not in found.spec
    ((term,),) = found.pod["affinity"]["podAntiAffinity"].values()
    assert term["topologyKey"] == "kubernetes.io/hostname"
    labels = found.spec["template"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"] == {key: labels[key] for key in (NAME, INSTANCE)}
    # A volume would have to be the node's own.
    assert of_kind("fleet", "PersistentVolumeClaim") == []
    assert "emptyDir" in found.mounts["/reports"]
    # Whatever may be a node's fault must not keep the others from being looked at.
    assert codes_by_action(found)["FailJob"] == {ExitCode.BAD_INPUT, ExitCode.FRAMEWORK_MISSING}


def test_duel_containers_of_a_block_take_one_gpu_in_turn() -> None:
    (found,) = jobs("duel")
    first, tensorflow, second = found.containers
    # Init containers run one after the other, before the container, and the kubelet gives it their GPU.
    assert [container["resources"] for container in found.containers] == [found.container["resources"]] * 3
    assert gpus(found) == {GPU: "1"}
    # Whichever order is drawn, each framework has one turn.
    turns = [container["args"][0].removeprefix("--turn=") for container in found.containers]
    assert turns == ["first", "either", "second"]
    for container in found.containers:
        assert container["command"] == ["python", "-m", "jobs.duel.turn"]
        assert container["args"][1:4] == ["--plan=$(MNIST_JOBS_PLAN)", "--block=$(JOB_COMPLETION_INDEX)", "--"]
    # Everything else is the same for both frameworks.
    assert first["args"][4:] == second["args"][4:]
    assert [word.replace("mnist-tf", "mnist-torch") for word in tensorflow["args"][4:]] == first["args"][4:]
    assert {**first, "name": "", "args": []} == {**second, "name": "", "args": []}


def test_duel_has_a_block_for_each_index_and_repeats_none() -> None:
    (found,) = jobs("duel")
    assert found.spec["completionMode"] == "Indexed"
    assert found.spec["completions"] >= MIN_BLOCKS
    assert found.spec["parallelism"] == 1
    assert found.spec["backoffLimitPerIndex"] == 0
    ((term,),) = found.pod["affinity"]["podAntiAffinity"].values()
    labels = found.spec["template"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"] == {key: labels[key] for key in (NAME, INSTANCE)}
    assert of_kind("duel", "PersistentVolumeClaim") == []
    assert codes_by_action(found)["FailIndex"] == {
        ExitCode.NO_USABLE_GPU,
        ExitCode.BELOW_REFERENCE,
        ExitCode.DIVERGED,
    }


def test_kueue_jobs_name_a_queue_and_do_not_set_suspend() -> None:
    for found in jobs("kueue"):
        assert found.document["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "mnist-jobs"
        assert "suspend" not in found.spec


def test_dra_claims_one_gpu_of_its_class() -> None:
    (template,) = of_kind("dra", "ResourceClaimTemplate")
    assert template["apiVersion"] == "resource.k8s.io/v1"
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"] == {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 1}
    for found in jobs("dra"):
        (claim,) = found.pod["resourceClaims"]
        assert claim["resourceClaimTemplateName"] == template["metadata"]["name"]
        assert found.container["resources"]["claims"] == [{"name": claim["name"]}]
        assert gpus(found) == {}


def test_mig_requests_one_slice() -> None:
    for found in jobs("mig"):
        ((resource, count),) = gpus(found).items()
        assert resource.startswith("nvidia.com/mig-")
        assert count == "1"


def test_rwx_volume_is_shared_with_merge() -> None:
    (claim,) = of_kind("rwx", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["labels"].keys() >= {PART_OF, INSTANCE}
    assert NAME not in claim["metadata"]["labels"]
    (merge,) = jobs("merge")
    volumes = [found.mounts["/reports"] for found in (*jobs("rwx"), merge)]
    assert {volume["persistentVolumeClaim"]["claimName"] for volume in volumes} == {claim["metadata"]["name"]}
    assert codes_by_action(merge) == {
        "FailJob": {
            ExitCode.BAD_INPUT,
            ExitCode.REPORT_NOT_WRITABLE,
            ExitCode.FRAMEWORK_MISSING,
            ExitCode.NOT_COMPARABLE,
            ExitCode.REGRESSION,
        }
    }
    assert gpus(merge) == {}


def test_fleet_again_runs_on_labelled_nodes_only_one_pod_a_node_at_a_time() -> None:
    (found,) = jobs("fleet-again")
    assert found.pod["nodeSelector"] == {"mnist-jobs/again": "yes"}
    nodes = found.spec["parallelism"]
    assert nodes == 2 * AGAIN
    # A fast node may take a slow node's turn.
    assert found.spec["completions"] >= (RUNS_AGAIN + 2) * nodes
    (apart,) = found.pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert (
        apart["labelSelector"]["matchLabels"].items()
        <= found.document["spec"]["template"]["metadata"]["labels"].items()
    )
