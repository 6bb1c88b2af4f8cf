"""A plan: its settings and the record of its runs, in one file that survives a kill at any moment."""

from __future__ import annotations

import fcntl
import math
import os
import secrets
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.choices import FRAMEWORKS, FrameworkName
from jobs.errors import BadInput, NotWritable
from jobs.io.atomic_file import check_writable, write_file
from jobs.io.file_lock import try_lock
from jobs.report.configuration import Amount, Count, RunId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLAN_FILE: Final = "plan.json"
REPORTS: Final = "reports"
"""The folder of the reports, beside the plan's file. One folder a run."""


class Settings(BaseModel):
    """What was asked for. It cannot change after the first run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Count
    """Block N trains with the seed N above it, in both frameworks."""
    blocks: Annotated[int, Field(ge=1)]
    half_width_percent: Annotated[float, Field(gt=0)] | None
    runner: Literal["program", "docker"]
    targets: dict[FrameworkName, str]
    """By framework: its program, or its image."""
    gpu: str | None
    """The GPU's UUID or index; ``None`` runs on the CPU."""
    train_options: list[str]


class RunRecord(BaseModel):
    """One run. It is recorded before it starts, so that a run that was killed is known too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block: Count
    position: Annotated[int, Field(ge=0, le=1)]
    framework: FrameworkName
    started_at_utc: datetime
    outcome: Literal["started", "completed", "lost"] = "started"
    reason: str | None = None
    """Why the run is lost."""
    steady_images_per_s: Amount | None = None

    @property
    def name(self) -> str:
        return f"block-{self.block:03d}-{self.position}-{self.framework}"


class Plan(BaseModel):
    """The content of the plan's file."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    plan_id: RunId
    """The seed from which the order within the blocks is drawn, so the reports have it."""
    settings: Settings
    runs: list[RunRecord] = []

    @property
    def next_block(self) -> int:
        """A number that no run has. A lost block is not repeated under its number, so no two runs have one place."""
        return 1 + max((run.block for run in self.runs), default=-1)

    @property
    def lost_runs(self) -> list[RunRecord]:
        return [run for run in self.runs if run.outcome == "lost"]

    def log_ratios(self) -> list[float]:
        """Of each complete block: the logarithm of torch's steady speed over TensorFlow's."""
        below, above = ({run.block: run.steady_images_per_s for run in self._completed(side)} for side in FRAMEWORKS)
        return [math.log((above[block] or 0) / (below[block] or 1)) for block in sorted(above.keys() & below.keys())]

    def _completed(self, framework: FrameworkName) -> list[RunRecord]:
        return [run for run in self.runs if run.outcome == "completed" and run.framework == framework]


class PlanFolder:
    """The folder of a plan that no other process works on; see :func:`open_plan`."""

    def __init__(self, folder: Path, plan: Plan, run_lock: int) -> None:
        self.folder = folder
        self.plan = plan
        self.run_lock = run_lock
        """A locked descriptor that each run inherits, so that the lock lasts as long as the run, also without us."""

    def save(self) -> None:
        """Write the plan's file, whole or not at all.

        Raises:
            NotWritable: the folder is gone, not writable or full.
        """
        try:
            write_file((self.plan.model_dump_json(indent=1) + "\n").encode(), self.folder / PLAN_FILE)
        except OSError as error:
            raise NotWritable(
                f"{str(self.folder / PLAN_FILE)!r} cannot be written ({error.strerror or error}); "
                "fix its folder's owner, mode or free space, then give the same command again"
            ) from error

    def record(self, run: RunRecord) -> None:
        """Add ``run``, or its outcome in place of its start, and save."""
        runs = self.plan.runs
        if runs and runs[-1].name == run.name:
            runs[-1] = run
        else:
            runs.append(run)
        self.save()


@contextmanager
def open_plan(folder: Path, settings: Settings, say: Callable[[str], None]) -> Iterator[PlanFolder]:
    """The plan of ``settings`` in ``folder``, begun if there is none. Waits for a run that a killed duel left behind.

    Raises:
        BadInput: the folder has another plan, a damaged one, or reports without a plan, or is in use.
        NotWritable: the folder cannot be written.
    """
    check_writable(folder, kind="plan", option="FOLDER")
    duel_lock, run_lock = (_open_lock(folder / f".{name}.lock") for name in ("duel", "run"))
    try:
        if not try_lock(duel_lock):
            raise BadInput(f"another duel works in {str(folder)!r}; wait until it ends, or give another folder")
        if not try_lock(run_lock):
            say("a run that an earlier duel started here is not done yet: waiting for it")
            fcntl.flock(run_lock, fcntl.LOCK_EX)
        plan = _read(folder, settings)
        found = PlanFolder(folder, plan or Plan(plan_id=_new_id(), settings=settings), run_lock)
        if plan is None:
            found.save()
        yield found
    finally:
        os.close(duel_lock)
        os.close(run_lock)


def _read(folder: Path, settings: Settings) -> Plan | None:
    path = folder / PLAN_FILE
    try:
        text = path.read_text(encoding="utf-8")
        plan = Plan.model_validate_json(text)
    except FileNotFoundError:
        if any((folder / REPORTS).glob("*")):
            raise BadInput(f"{str(folder / REPORTS)!r} has reports that are of no plan; give another folder") from None
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise BadInput(
            f"{str(path)!r} cannot be read as the plan of a duel of this release ({why}); give another folder"
        ) from error
    asked, kept = settings.model_dump(), plan.settings.model_dump()
    changed = [f"{name} is {kept[name]!r} there and {asked[name]!r} here" for name in kept if kept[name] != asked[name]]
    if changed:
        raise BadInput(
            f"{str(folder)!r} holds another plan ({plan.plan_id}): {'; '.join(changed)}; "
            "a plan does not change once its runs have begun: give the same options, or another folder"
        )
    return plan


def _new_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-duel-{secrets.token_hex(3)}"


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
