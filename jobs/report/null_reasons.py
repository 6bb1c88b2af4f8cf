"""Why fields of a report are null: the usual reasons, and how a report's ``null_reasons`` are found.

A key is a field's path, with list items as ``[]``, and stands for everything below it. The most precise key counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USUAL_REASONS: Final = {
    "status_reason": "the run completed",
    "environment.cuda_runtime_version": "this build of the framework has no CUDA",
    "environment.cudnn_version": "this build of the framework finds no cuDNN",
    "environment.image": "not run from one of the project's images",
    "environment.image.ref": "the image's build did not name it",
    "environment.image.digest": "an image cannot know its own digest; set MNIST_JOBS_IMAGE_DIGEST to record it",
    "environment.git_sha": "neither a git checkout nor set by the image's build",
    "environment.kubernetes": "not run in Kubernetes",
    "environment.kubernetes.node": "the manifest passes no MNIST_JOBS_NODE_NAME",
    "environment.kubernetes.namespace": "the manifest passes no MNIST_JOBS_POD_NAMESPACE",
    "environment.kubernetes.pod": "the manifest passes no MNIST_JOBS_POD_NAME",
    "environment.kubernetes.job": "the manifest passes no MNIST_JOBS_JOB_NAME",
    "environment.kubernetes.index": "not an indexed Job",
    "environment.cpu.model": "the operating system does not name it",
    "environment.cpu.logical_cores": "the operating system does not count them",
    "environment.cpu.quota_cores": "no cgroup limit is set",
    "environment.cpu.affinity_cores": "the operating system does not say",
    "environment.memory_total_bytes": "the operating system does not say",
    "config.optimizer": "the optimizer has no such parameter",
    "config.numerics.intra_op_threads": "the framework does not say",
    "config.numerics.inter_op_threads": "the framework does not say",
    "config.numerics.thread_wait_policy": "the framework's idle threads sleep",
    "config.reduction": "one rank trains whole batches (neither --ranks nor --reduction)",
    "config.scaling": "one rank",
    "config.design": "not a run of a planned experiment (--design)",
    "results.test_accuracy_ratio": "no epoch was finished",
    "results.test_loss": "not finite",
    "results.train_loss": "not finite",
    "results.train_wall_s": "no epoch was finished",
    "results.steady_images_per_s": "no step followed the first one",
    "results.time_to_accuracy_s": "the target accuracy was not reached on MNIST",
    "results.target_accuracy_ratio": "the recipe has one for MNIST only",
    "results.reference_accuracy_ratio": "the recipe has one for its own settings on MNIST and synthetic only",
    "results.test_examples_evaluated": "no epoch was evaluated",
    "results.model_flop_per_image": "not known for this recipe",
    "results.achieved_flop_per_s": "no step followed the first one",
    "results.ceiling_flop_per_s": "not measured: use --measure-peak",
    "results.ceiling_share_ratio": "not measured: use --measure-peak",
    "results.framework_memory_peak_bytes": "the framework counts its allocations on GPUs only",
    "results.epochs[].train_loss": "not finite",
    "results.epochs[].test_loss": "not finite",
    "results.epochs[].test_accuracy_ratio": "the epoch was not evaluated",
    "results.repeats": "training was run once (--repeat 1)",
    "phases[].epoch": "outside the first training's epochs",
    "earlier_attempts[].cpu_model": "the operating system does not name it",
    "ranks[].node": "the host does not name itself",
    "ranks[].uuid": "the rank trained on a CPU, its GPU could not be read, or the run failed",
    "ranks[].energy_j": "the rank trained on a CPU, its GPU could not be read, or the run failed",
    "ranks[].util_percent": "the rank trained on a CPU, its GPU could not be read, or the run failed",
    "ranks[].compute_s": "no epoch was finished, or the framework cannot time it on this device",
    "ranks[].communication_s": "no epoch was finished, or the framework cannot time it on this device",
    "ranks[].wait_s": "no epoch was finished, or the framework cannot time it on this device",
    "ranks[].epochs[].compute_s": "the framework cannot time it on this device",
    "ranks[].epochs[].communication_s": "the framework cannot time it on this device",
    "one_rank": "not asked for (--with-baseline), or nothing was timed",
    "validity": "not judged",
    "parity": "not asked for (--parity-steps)",
    "parity.path": "a trace of before schema 1.2",
    "parity.rounding": "the run is in float64 itself",
}

GIVEN_BY_TELEMETRY: Final = (
    "environment.driver_version",
    "environment.cuda_driver_version",
    "devices[]",
    "phases[].gpu",
    "phases[].host",
    "training",
    "telemetry",
    "timeseries",
)
"""Parts whose reasons depend on driver, device and sampler. Telemetry gives a reason for each null in them."""


def nearest_key(path: str, reasons: Mapping[str, str]) -> str | None:
    """The key in ``reasons`` nearest to ``path``: itself or a parent."""
    return next((key for key in path_and_parents(path) if key in reasons), None)


def path_and_parents(path: str) -> Iterator[str]:
    """``a.b[].c``, ``a.b[]``, ``a.b``, ``a``."""
    while path:
        yield path
        path = path.removesuffix("[]") if path.endswith("[]") else path.rpartition(".")[0]


def null_paths(value: Any, path: str = "") -> Iterator[str]:
    """The path of every null in ``value``, a part of a report as JSON data; one may come several times."""
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from null_paths(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from null_paths(item, f"{path}[]")
