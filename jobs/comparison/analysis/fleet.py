"""Compares nodes that ran one configuration, in two passes: a slow node is measured again before it is called slow.

One value a node cannot tell a bad node from the slow end of a heavy-tailed fleet. So the first pass only says which
nodes to run again, beside others that were ordinary. The second pass decides.
"""

from __future__ import annotations

from collections import defaultdict
from math import log
from shlex import quote
from statistics import median
from typing import TYPE_CHECKING, Final

from jobs.comparison.analysis.fleet_limit import node_scale, slowest_limit
from jobs.comparison.analysis.statistics import RUNS_FOR_A_VERDICT, SMALLEST_EFFECT, observed
from jobs.comparison.schema import Node, SecondPass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from jobs.choices import FrameworkName
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import OutlierKind

SUSPICIOUS_SCORE: Final = 2.75
"""Robust standard deviations below the median from which a node is run again."""

NODES_FOR_OUTLIERS: Final = RUNS_FOR_A_VERDICT
"""With fewer nodes no node is suspicious."""

AGAIN: Final = 3
"""Nodes that are run again at once, and others beside them."""

RUNS_AGAIN: Final = 5
"""Runs that each node needs in the second pass."""

_PROGRAMS: Final[dict[FrameworkName, str]] = {"tensorflow": "mnist-tf", "torch": "mnist-torch"}

Key = tuple[str | None, tuple[str, ...]]


def by_node(runs: Iterable[RunSummary]) -> list[Node]:
    """Each node and GPU of ``runs``, slowest first, after those without a speed; empty with fewer than two."""
    runs_of: dict[Key, list[RunSummary]] = defaultdict(list)
    for run in runs:
        if run.node is not None or run.gpu_uuids:
            runs_of[run.node, run.gpu_uuids].append(run)
    if len(runs_of) < 2:
        return []
    scores, outliers = _judge(runs_of)
    nodes: list[Node] = []
    for key, inside in runs_of.items():
        speeds = observed(inside)
        nodes.append(
            Node(
                node=key[0],
                gpu_uuids=list(key[1]),
                runs=len(inside),
                n=len(speeds),
                median=median(speeds) if speeds else None,
                score=scores.get(key),
                outlier=outliers.get(key) if speeds else "no_speed",
            )
        )
    return sorted(nodes, key=lambda node: (node.median or 0.0, node.node or "", node.gpu_uuids))


def second_pass(nodes: Sequence[Node], like: RunSummary) -> SecondPass | None:
    """What to run before a node is called slow: the slowest suspicious nodes, and as many ordinary ones.

    ``like`` is a run of the first pass.
    """
    again = [node for node in nodes if node.outlier == "to_confirm"][:AGAIN]
    ordinary = [node for node in nodes if node.outlier is None and node.score is not None]
    beside = sorted(ordinary, key=lambda node: (abs(node.score or 0.0), node.node or "", node.gpu_uuids))[:AGAIN]
    if not again or len(beside) < AGAIN:
        return None
    return SecondPass(
        again=list(map(node_name, again)), beside=list(map(node_name, beside)), command=_command(again, beside, like)
    )


def _judge(runs_of: Mapping[Key, Sequence[RunSummary]]) -> tuple[dict[Key, float], dict[Key, OutlierKind]]:
    first, second = _passes(runs_of)
    if len(first) < NODES_FOR_OUTLIERS:
        return {}, {}
    middle, scale = median(first.values()), node_scale(list(first.values()))
    scores = {key: (speed - middle) / scale if scale > 0 else 0.0 for key, speed in first.items()}
    floor = log(SMALLEST_EFFECT)
    suspicious = {key for key, speed in first.items() if middle - speed > max(floor, SUSPICIOUS_SCORE * scale)}
    controls = [speed for key, speed in second.items() if key not in suspicious]
    limit = max(floor, slowest_limit(list(first.values())) * scale)
    outliers: dict[Key, OutlierKind] = {}
    for key in suspicious:
        if key not in second or len(controls) < AGAIN:
            outliers[key] = "to_confirm"
        elif median(controls) - second[key] > limit:
            outliers[key] = "slow"
    return scores, outliers


def _passes(runs_of: Mapping[Key, Sequence[RunSummary]]) -> tuple[dict[Key, float], dict[Key, float]]:
    """Log speeds of the nodes in the first pass, and in the second of each node that has it.

    Runs that started after every node had started are the second pass of their node.
    """
    speeds_of = {key: _speeds(runs) for key, runs in runs_of.items()}
    speeds_of = {key: speeds for key, speeds in speeds_of.items() if speeds}
    if not speeds_of:
        return {}, {}
    everyone = max(speeds[0][0] for speeds in speeds_of.values())
    first = {key: _middle([speed for start, speed in speeds if start <= everyone]) for key, speeds in speeds_of.items()}
    later = {key: [speed for start, speed in speeds if start > everyone] for key, speeds in speeds_of.items()}
    return first, {key: _middle(speeds) for key, speeds in later.items() if len(speeds) >= RUNS_AGAIN}


def _speeds(runs: Sequence[RunSummary]) -> list[tuple[datetime, float]]:
    """Start and speed of each run that counts, by start; a speed of 0 has no logarithm and does not count."""
    found = [(run.started_at_utc, observed([run])) for run in runs]
    return sorted((start, speeds[0]) for start, speeds in found if speeds and speeds[0] > 0)


def _middle(speeds: Sequence[float]) -> float:
    return median(map(log, speeds))


def node_name(node: Node) -> str:
    """Node and GPUs, as far as known."""
    return " ".join(part for part in (node.node, ", ".join(node.gpu_uuids)) if part)


def _command(again: Sequence[Node], beside: Sequence[Node], like: RunSummary) -> str:
    names = [node.node for node in (*again, *beside)]
    if None not in names and len({*names}) == len(names):
        label = " ".join(quote(str(name)) for name in names)
        return f"kubectl label nodes {label} mnist-jobs/again=yes && kubectl apply -k k8s/overlays/fleet-again"
    gpus = " ".join(quote(",".join(node.gpu_uuids)) for node in (*again, *beside))
    train = f"{_PROGRAMS[like.framework]} train --device gpu --recipe {quote(like.recipe)} --protocol {like.protocol}"
    return (
        f"for gpu in $(for i in $(seq {RUNS_AGAIN}); do echo {gpus}; done); do CUDA_VISIBLE_DEVICES=$gpu {train}; done"
    )
