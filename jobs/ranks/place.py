"""The place of one rank among all: its number, and where the others are."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from jobs.choices import SHARDS
from jobs.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs.choices import FrameworkName

Engine = Literal["torchrun", "tf_config", "indexed_job"]
"""What started the ranks and says where they are."""

PORT: Final = 29500
"""The first rank's port for the framework's connections, as torchrun's default is; the next one is ours."""
TOKEN_VARIABLE: Final = "MNIST_JOBS_RANK_TOKEN"  # noqa: S105 - the variable's name
CONTROL_PORT_VARIABLE: Final = "MNIST_JOBS_RANK_CONTROL_PORT"

Address = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """One process of a run over several.

    ``addresses`` are host and port for the framework's own connections: one for each rank, or with ``torchrun`` that
    of rank 0 alone. ``control`` is where rank 0 listens for :class:`~jobs.ranks.channel.Channel`.
    """

    rank: int
    size: int
    local_rank: int
    """The rank's number among the ``local_size`` ranks of its machine, which chooses its GPU."""
    local_size: int
    addresses: tuple[Address, ...]
    control: Address
    engine: Engine
    token: str = ""
    """Ranks with another token are of another run."""


def find_place(
    variables: Mapping[str, str], *, framework: FrameworkName, ranks: int, service: str | None
) -> RankPlace | None:
    """The place of this process, if something has started it as one of several ranks; else ``None``.

    ``ranks`` and ``service`` are the options: the pods of an Indexed Job do not know otherwise how many they are.

    Raises:
        BadInput: the variables contradict one another or the options, or are another framework's.
    """
    place: RankPlace | None
    if service is not None:
        place = _of_indexed_job(variables, ranks=ranks, service=service)
    elif framework == "torch":
        _refuse_other_engine(_workers(variables), "TF_CONFIG", "torchrun's variables")
        place = _of_torchrun(variables)
    else:
        _refuse_other_engine(_number(variables, "WORLD_SIZE", 1), "WORLD_SIZE", "TF_CONFIG")
        place = _of_tf_config(variables)
    if place is None:
        return None
    if place.size > SHARDS:
        raise BadInput(f"{place.size} ranks were started; at most {SHARDS} are supported")
    if ranks not in {1, place.size}:
        raise BadInput(f"--ranks {ranks}, but {place.size} ranks were started; leave the option out or make them equal")
    return place if place.size > 1 else None


def _of_torchrun(variables: Mapping[str, str]) -> RankPlace | None:
    if "RANK" not in variables or "WORLD_SIZE" not in variables:
        return None
    size = _number(variables, "WORLD_SIZE")
    if size == 1:
        return None
    rank = _number(variables, "RANK")
    if rank >= size:
        raise BadInput(f"RANK={rank} is not below WORLD_SIZE={size}; start the ranks with torchrun, or with --ranks")
    if "MASTER_ADDR" not in variables or "MASTER_PORT" not in variables:
        raise BadInput(
            "RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT; start the ranks with torchrun"
        )
    host, port = variables["MASTER_ADDR"], _port(variables, "MASTER_PORT")
    return RankPlace(
        rank=rank,
        size=size,
        local_rank=_number(variables, "LOCAL_RANK", 0),
        local_size=_number(variables, "LOCAL_WORLD_SIZE", 1),
        addresses=((host, port),),
        control=(host, _port(variables, CONTROL_PORT_VARIABLE, port + 1)),
        engine="torchrun",
        token=variables.get(TOKEN_VARIABLE) or variables.get("TORCHELASTIC_RUN_ID", ""),
    )


def _of_tf_config(variables: Mapping[str, str]) -> RankPlace | None:
    config = _tf_config(variables)
    if config is None:
        return None
    workers, index = config
    if index >= len(workers):
        raise BadInput(f"TF_CONFIG: task index {index}, but there are {len(workers)} workers")
    host, port = workers[0]
    return RankPlace(
        rank=index,
        size=len(workers),
        # How many workers share a machine follows from the addresses.
        local_rank=[name for name, _ in workers[:index]].count(workers[index][0]),
        local_size=[name for name, _ in workers].count(workers[index][0]),
        addresses=workers,
        # Workers of one machine often have ports one apart.
        control=(host, _port(variables, CONTROL_PORT_VARIABLE, _next_port(host, port, workers))),
        engine="tf_config",
        token=variables.get(TOKEN_VARIABLE, ""),
    )


def _of_indexed_job(variables: Mapping[str, str], *, ranks: int, service: str) -> RankPlace:
    if ranks < 2:
        raise BadInput(f"--ranks-service {service!r} also needs the number of pods: give --ranks N of 2 or more")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", service):
        raise BadInput(f"--ranks-service {service[:100]!r} is no name of a service")
    rank, job = _number(variables, "JOB_COMPLETION_INDEX"), variables.get("MNIST_JOBS_JOB_NAME", "")
    if rank >= ranks:
        raise BadInput(
            f"JOB_COMPLETION_INDEX={rank}, but --ranks {ranks}; the Job's completions must be the same number"
        )
    if not job:
        raise BadInput("--ranks-service needs the Job's name in MNIST_JOBS_JOB_NAME, as the overlay `ranks` sets it")
    addresses = tuple((f"{job}-{index}.{service}", PORT) for index in range(ranks))
    return RankPlace(
        rank=rank,
        size=ranks,
        local_rank=0,
        local_size=1,
        addresses=addresses,
        control=(addresses[0][0], _port(variables, CONTROL_PORT_VARIABLE, PORT + 1)),
        engine="indexed_job",
        token=variables.get(TOKEN_VARIABLE) or job,
    )


def _next_port(host: str, port: int, workers: Sequence[Address]) -> int:
    """The first port after ``port`` that no worker has on ``host``."""
    while (host, port) in workers:
        port += 1
    return port


def _workers(variables: Mapping[str, str]) -> int:
    config = _tf_config(variables)
    return 1 if config is None else len(config[0])


def _tf_config(variables: Mapping[str, str]) -> tuple[tuple[Address, ...], int] | None:
    """The workers and this one's index in ``TF_CONFIG``; ``None`` without one.

    Only workers are supported: a chief or a parameter server has no counterpart in torch.
    """
    text = variables.get("TF_CONFIG", "")
    if not text:
        return None
    try:
        config: Any = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        workers = tuple(_address(worker) for worker in cluster["worker"])
        index = task["index"]
        valid = (
            set(cluster) == {"worker"} and task["type"] == "worker" and type(index) is int and index >= 0 < len(workers)
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        valid = False
    if not valid:
        raise BadInput(
            f"TF_CONFIG {text[:200]!r} is not a cluster of workers only, as in "
            '{"cluster": {"worker": ["host:2222", "other:2222"]}, "task": {"type": "worker", "index": 0}}'
        )
    return workers, index


def _address(text: Any) -> Address:
    if not isinstance(text, str):
        raise TypeError
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 0 < int(port) < 65536:
        raise ValueError
    return host, int(port)


def _refuse_other_engine(ranks: int, name: str, needed: str) -> None:
    """Refuse variables that this framework does not read: each process would train the whole run alone."""
    if ranks > 1:
        raise BadInput(
            f"{name} says that there are {ranks} ranks, but this framework needs {needed}; or give --ranks alone"
        )


def _number(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = variables.get(name, "")
    if not text and default is not None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise BadInput(f"{name} is {text[:40]!r}, and should be a number from 0")
    return int(text)


def _port(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    port = _number(variables, name, default)
    if not 0 < port < 65536:
        raise BadInput(f"{name} is {port}, and should be a port from 1 to 65535")
    return port
