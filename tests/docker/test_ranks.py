"""The Job of the overlay ``ranks`` without a cluster: a container for each pod, on a network with the pods' names."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest

from jobs.report import LINE_MARKER, from_line
from jobs.report.rank_record import RANK_MARKER
from tests.docker.conftest import LOCKED_DOWN, QUICK_RUN, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.docker, pytest.mark.slow]

JOB, SERVICE, RANKS = "mnist-ranks-job", "mnist-ranks", 2


@pytest.fixture
def network() -> Iterator[str]:
    name = f"ranks-{uuid.uuid4().hex[:8]}"
    # Like the overlay's NetworkPolicy: the ranks reach one another, and nothing outside.
    created = docker("network", "create", "--internal", name)
    assert created.returncode == 0, created.stderr
    yield name
    docker("network", "rm", name)


def test_containers_of_a_ranks_job_train_one_run_over_their_network(image: str, network: str, digits: str) -> None:
    locked_down = [option for option in LOCKED_DOWN if not option.startswith("--network") and option != "--rm"]
    names = [f"{network}-{index}" for index in range(RANKS)]
    try:
        for index, name in enumerate(names):
            variables = {
                "JOB_COMPLETION_INDEX": str(index),
                "MNIST_JOBS_JOB_NAME": JOB,
                "MNIST_JOBS_RANKS_SERVICE": SERVICE,
                "MNIST_JOBS_RANK_TIMEOUT": "120",
                "MNIST_JOBS_NODE_NAME": f"node-{index}",
            }
            where = ("--detach", "--name", name, "--network", network, "--network-alias", f"{JOB}-{index}.{SERVICE}")
            environment = [part for key, value in variables.items() for part in ("--env", f"{key}={value}")]
            started = docker(
                "run", *where, *locked_down, "--tmpfs=/reports:mode=1777", *environment, digits, image, *QUICK_RUN,
                "--ranks=2",
            )  # fmt: skip
            assert started.returncode == 0, started.stderr
        codes = [docker("wait", name).stdout.strip() for name in names]
        logs = [docker("logs", name) for name in names]
        assert codes == ["0", "0"], [log.stderr[-2000:] for log in logs]
        (line,) = [line for log in logs for line in log.stdout.splitlines() if line.startswith(LINE_MARKER)]
        report = from_line(line, origin="log")
        assert report is not None
        assert [part.node for part in report.ranks] == ["node-0", "node-1"]
        assert len({part.epochs[-1].weights_sha256 for part in report.ranks}) == 1
        for index, log in enumerate(logs):
            last = [text for text in log.stderr.splitlines() if text.startswith(RANK_MARKER)][-1]
            assert json.loads(last.removeprefix(RANK_MARKER))["part"]["rank"] == index
    finally:
        for name in names:
            docker("rm", "--force", name)
