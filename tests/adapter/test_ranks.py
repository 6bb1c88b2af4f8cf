"""One run over several ranks, as a user or an engine starts it: real processes, real framework, small data."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from safetensors.numpy import load_file

from jobs.exit_codes import ExitCode
from jobs.ranks.launcher import free_ports
from jobs.recipes import RECIPES
from jobs.report.rank_record import RANK_MARKER, RankRecord
from tests.support.digits import small_digits, write_idx_folder
from tests.support.programs import (
    TORTURE,
    command_of,
    error_line,
    killed_command_of,
    once,
    only_report,
    reports_in,
    rounds,
    started_in,
)
from tests.support.ranks import end_ranks, start_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobs.cli.app import Program

EPOCHS = 2
SURVIVORS_S = 30


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five full batches of 64 and a short one, most of whose shards are empty."""
    return write_idx_folder(tmp_path_factory.mktemp("data") / "bars", small_digits(train=330, test=100))


@pytest.fixture
def command(program: Program, bars: Path, tmp_path: Path) -> Callable[..., list[str]]:
    def make(*arguments: str, folder: str = "run") -> list[str]:
        into = tmp_path / folder
        fixed = ("--device", "cpu", "--telemetry", "off", "--dataset", str(bars), "--epochs", str(EPOCHS))
        folders = ("--report-dir", str(into / "reports"), "--export-dir", str(into / "weights"))
        return command_of(program, "train", *fixed, *folders, *arguments)

    return make


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def weights_hash(folder: Path) -> str:
    """SHA-256 of the weights that a run exported into ``folder``."""
    (file,) = (folder / "weights").glob("*.safetensors")
    digest = hashlib.sha256()
    for _, array in sorted(load_file(file).items()):
        digest.update(array.tobytes())
    return digest.hexdigest()


def until_listening(port: int) -> socket.socket:
    """A connection to ``port``, as soon as a program listens there."""
    end_s = time.monotonic() + 60
    while True:
        with suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port))
        assert time.monotonic() < end_s


def records(stderr: str) -> list[RankRecord]:
    lines = (line for line in stderr.splitlines() if line.startswith(RANK_MARKER))
    return [RankRecord.from_data(json.loads(line.removeprefix(RANK_MARKER))) for line in lines]


def test_train_with_two_ranks_writes_one_report_with_the_bits_of_one_rank(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    alone = run(command("--reduction", "exact", folder="alone"))
    together = run(command("--ranks", "2", "--with-baseline", "--measure-peak", folder="together"))
    assert (alone.returncode, together.returncode) == (0, 0), alone.stderr + together.stderr
    assert weights_hash(tmp_path / "together") == weights_hash(tmp_path / "alone")
    one, two = only_report(tmp_path / "alone" / "reports"), only_report(tmp_path / "together" / "reports")
    assert (one.config.ranks, one.config.reduction, one.config.scaling) == (1, "exact", None)
    (alone_part,) = one.ranks
    assert [epoch.weights_sha256 for epoch in alone_part.epochs] == [
        epoch.weights_sha256 for epoch in two.ranks[0].epochs
    ]
    assert (two.config.ranks, two.config.reduction, two.config.scaling) == (2, "exact", "strong")
    assert [epoch.train_loss for epoch in two.results.epochs] == [epoch.train_loss for epoch in one.results.epochs]
    assert two.results.test_accuracy_ratio == one.results.test_accuracy_ratio
    assert two.results.achieved_flop_per_s is not None
    assert two.results.ceiling_flop_per_s is not None
    of_one_rank = two.results.achieved_flop_per_s / 2
    assert two.results.ceiling_share_ratio == pytest.approx(of_one_rank / two.results.ceiling_flop_per_s)
    assert [(part.rank, part.steps, len(part.epochs)) for part in two.ranks] == [(0, 12, 2), (1, 12, 2)]
    for first, second in zip(*(part.epochs for part in two.ranks), strict=True):
        assert first.weights_sha256 == second.weights_sha256
    for part in two.ranks:
        assert part.compute_s is not None
        assert part.communication_s is not None
        assert part.wait_s is not None
        assert 0 < part.compute_s < 300
        assert 0 <= part.wait_s <= part.communication_s
    assert min(part.wait_s or 0 for part in two.ranks) < max(part.communication_s or 0 for part in two.ranks)
    assert two.one_rank is not None
    assert [part.position for part in two.one_rank.parts] == ["before", "after"]
    assert {part.images for part in two.one_rank.parts} == {330 - 64}
    lines = records(together.stderr)
    assert {(line.run_id, line.ranks) for line in lines} == {(two.run_id, 2)}
    assert sorted((line.part.rank, len(line.part.epochs), line.ended) for line in lines) == sorted(
        (rank, epochs, ended) for rank in (0, 1) for epochs, ended in ((1, False), (2, False), (2, True))
    )
    assert not started_in(tmp_path / "together" / "reports")


@pytest.mark.skipif(not TORTURE, reason="make torture; the adapters' own tests have fewer cases of it")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_train_exact_has_the_same_bits_for_any_number_of_ranks(
    command: Callable[..., list[str]], tmp_path: Path, recipe: str, precision: str
) -> None:
    hashes = {}
    for ranks in (1, 2, 4, 8):
        options = ("--reduction", "exact", "--ranks", str(ranks), "--recipe", recipe, "--precision", precision)
        done = run(command(*options, folder=str(ranks)))
        assert done.returncode in {0, ExitCode.BELOW_REFERENCE}, done.stderr
        hashes[ranks] = weights_hash(tmp_path / str(ranks))
    assert len({*hashes.values()}) == 1, hashes


def test_train_exact_and_fast_agree_in_fp64_with_dropout(command: Callable[..., list[str]], tmp_path: Path) -> None:
    common = ("--ranks", "2", "--recipe", "basic-cnn", "--precision", "fp64", "--epochs", "1")
    for reduction in ("exact", "fast"):
        done = run(command(*common, "--reduction", reduction, folder=reduction))
        assert done.returncode == 0, done.stderr
    exact, fast = (load_file(next((tmp_path / name / "weights").iterdir())) for name in ("exact", "fast"))
    for name, array in exact.items():
        assert abs(fast[name] - array).max() <= 1e-12 * max(1.0, abs(array).max())


@pytest.mark.slow
def test_train_after_sigkill_of_a_rank_ends_the_others_and_resumes_to_the_same_bits(
    command: Callable[..., list[str]], program: Program, tmp_path: Path
) -> None:
    assert run(command("--reduction", "exact", folder="undisturbed")).returncode == 0
    expected = weights_hash(tmp_path / "undisturbed")
    draw = random.Random(18)  # noqa: S311 - a fixed choice, not a secret
    for attempt in range(rounds(1, 20)):
        size = 2 if attempt % 2 == 0 else 4
        victim, epoch, step = draw.randrange(size), draw.randint(1, EPOCHS), draw.randint(1, 6)
        folder = f"killed-{attempt}"
        options = ("--checkpoint-dir", str(tmp_path / folder / "checkpoints"), "--checkpoint-steps", "2")
        whole = command("--ranks", str(size), *options, folder=folder)
        deadly = killed_command_of(program, epoch, step, *whole[whole.index("train") :])
        commands = [deadly if rank == victim else whole for rank in range(size)]
        processes = start_ranks(commands, program.framework)
        processes[victim].wait(timeout=300)
        died_s = time.monotonic()
        ends = end_ranks(processes)
        assert time.monotonic() - died_s < SURVIVORS_S
        assert ends[victim][0] == -signal.SIGKILL
        for rank, (code, stderr) in enumerate(ends):
            if rank != victim:
                assert code == ExitCode.PEER_LOST, stderr
                assert f"peer lost: rank {victim} (node " in stderr
        again = run(whole)
        assert again.returncode == 0, again.stderr
        assert weights_hash(tmp_path / folder) == expected, (victim, epoch, step)


def test_train_after_sigterm_to_one_rank_ends_all_with_143_and_resumes(
    command: Callable[..., list[str]], program: Program, tmp_path: Path
) -> None:
    assert run(command("--reduction", "exact", folder="undisturbed")).returncode == 0
    options = ("--checkpoint-dir", str(tmp_path / "checkpoints"), "--ranks", "2")
    whole = command(*options)
    # Rank 1 sends the signal to itself in the middle of an epoch.
    signalled = killed_command_of(program, 1, 2, *whole[whole.index("train") :])
    number = str(int(signal.SIGTERM))
    processes = start_ranks([whole, signalled], program.framework, MNIST_JOBS_TEST_SIGNAL=number)
    ends = end_ranks(processes)
    assert [code for code, _ in ends] == [ExitCode.INTERRUPTED] * 2, ends
    (report,) = (tmp_path / "run" / "reports").glob("*.json")
    assert json.loads(report.read_text())["status"] == "interrupted"
    again = run(whole)
    assert again.returncode == 0, again.stderr
    assert "resuming from" in again.stderr
    assert weights_hash(tmp_path / "run") == weights_hash(tmp_path / "undisturbed")


def test_train_with_a_rank_that_does_not_come_ends_with_its_own_code(
    command: Callable[..., list[str]], program: Program
) -> None:
    whole = command("--ranks", "2", "--rank-timeout", "5")
    processes = start_ranks([whole, [sys.executable, "-c", ""]], program.framework)
    started_s = time.monotonic()
    (code, stderr), _ = end_ranks(processes)
    assert code == ExitCode.RANKS_NOT_CONNECTED
    assert "rank 1 of 2 did not come within 5 s" in stderr
    assert time.monotonic() - started_s < 60


def test_train_with_different_settings_is_refused_in_every_rank(
    command: Callable[..., list[str]], program: Program
) -> None:
    ends = end_ranks(start_ranks([command(), command("--seed", "2")], program.framework))
    assert [code for code, _ in ends] == [ExitCode.BAD_INPUT] * 2
    assert all("train with different settings: seed" in stderr for _, stderr in ends)


@pytest.mark.parametrize("options", [("--trials", "2"), ("--with-baseline",), ("--checkpoint-steps", "2")])
def test_train_with_ranks_that_would_meet_at_other_times_is_refused_in_every_rank(
    command: Callable[..., list[str]], program: Program, tmp_path: Path, options: tuple[str, ...]
) -> None:
    common = ("--ranks", "2", "--checkpoint-dir", str(tmp_path / "checkpoints"))
    ends = end_ranks(start_ranks([command(*common), command(*common, *options)], program.framework), timeout_s=60)
    assert [code for code, _ in ends] == [ExitCode.BAD_INPUT] * 2, ends
    setting = options[0].removeprefix("--").replace("-", "_")
    assert all(f"train with different settings: {setting} is" in stderr for _, stderr in ends)


def test_train_with_ranks_and_trials_reports_each_run_alone(command: Callable[..., list[str]], tmp_path: Path) -> None:
    done = run(command("--ranks", "2", "--trials", "2", "--epochs", "1"))
    assert done.returncode == 0, done.stderr
    reports = reports_in(tmp_path / "run" / "reports")
    assert [report.config.seed for report in reports] == [1, 2]
    for report in reports:
        assert [(part.steps, [epoch.epoch for epoch in part.epochs]) for part in report.ranks] == [(6, [1])] * 2
        assert not report.unexplained_nulls()
    assert [len(record.part.epochs) for record in records(done.stderr)] == [1] * 8


def test_train_again_with_ranks_and_another_export_folder_exports_the_finished_run(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    options = ("--ranks", "2", "--epochs", "1", "--checkpoint-dir", str(tmp_path / "checkpoints"))
    assert run(command(*options, folder="first")).returncode == 0
    again = run(command(*options, "--rank-timeout", "20", folder="second"))
    assert again.returncode == 0, again.stderr
    assert weights_hash(tmp_path / "second") == weights_hash(tmp_path / "first")


@once
def test_train_after_sigterm_while_it_waits_for_a_rank_ends_with_143(
    command: Callable[..., list[str]], program: Program
) -> None:
    (port,) = free_ports(1)
    absent = [sys.executable, "-c", ""]
    processes = start_ranks([command(), absent], program.framework, MNIST_JOBS_RANK_CONTROL_PORT=str(port))
    with until_listening(port):
        processes[0].send_signal(signal.SIGTERM)
        (code, stderr), _ = end_ranks(processes)
    assert code == ExitCode.INTERRUPTED, stderr
    assert "interrupted by SIGTERM before training began" in stderr
    assert "Traceback" not in stderr


def test_train_with_checkpoints_of_one_rank_only_is_refused(
    command: Callable[..., list[str]], program: Program, tmp_path: Path
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    commands = [command("--checkpoint-dir", str(folder), "--epochs", "1") for folder in folders]
    assert [code for code, _ in end_ranks(start_ranks(commands, program.framework))] == [0, 0]
    for path in folders[0].glob("*.finished"):
        path.unlink()
    ends = end_ranks(start_ranks(commands, program.framework))
    assert [code for code, _ in ends] == [ExitCode.BAD_INPUT] * 2
    assert all("do not see the same checkpoints" in stderr for _, stderr in ends)


def test_train_with_options_that_ranks_cannot_have_is_refused_once(command: Callable[..., list[str]]) -> None:
    done = run(command("--ranks", "2", "--protocol", "published"))
    assert done.returncode == ExitCode.BAD_INPUT
    assert "ranks and --reduction need --protocol matched" in error_line(done)


def test_train_under_torchrun_is_one_run(command: Callable[..., list[str]], program: Program, tmp_path: Path) -> None:
    if program.framework != "torch":
        pytest.skip("torchrun starts torch's ranks")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    done = run([*launcher, *command("--epochs", "1")])
    assert done.returncode == 0, done.stderr
    assert only_report(tmp_path / "run" / "reports").config.ranks == 2
