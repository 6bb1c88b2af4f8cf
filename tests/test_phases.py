from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from jobs.phases import Clock, PhaseRecorder

if TYPE_CHECKING:
    from jobs.report.schema import PhaseName


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_phases_follow_each_other_without_a_gap() -> None:
    clock = Hand()
    recorder = PhaseRecorder(clock)
    recorder.enter("startup")
    later: list[tuple[PhaseName, int | None, float]] = [
        ("dataset", None, 2.0),
        ("first_step", 1, 3.0),
        ("train", 1, 3.5),
        ("train", 2, 8.0),
    ]
    for name, epoch, at_s in later:
        clock.now_s = at_s
        recorder.enter(name, epoch=epoch)
    clock.now_s = 10.0
    recorder.finish()
    spans = recorder.spans
    assert [span.end_s for span in spans[:-1]] == [span.start_s for span in spans[1:]]
    assert sum(span.duration_s for span in spans) == 10.0
    assert recorder.total_s("train") == 6.5
    assert recorder.total_s("first_step", "train", epoch=1) == 5.0


def test_phase_end_waits_for_the_device() -> None:
    clock = Hand()
    recorder = PhaseRecorder(clock)
    recorder.enter("train", epoch=1)

    def finish_queued_work() -> None:
        clock.now_s += 5.0

    recorder.synchronize = finish_queued_work
    recorder.enter("evaluate", epoch=1)
    assert recorder.total_s("train") == 5.0


def test_finish_called_twice_adds_nothing() -> None:
    recorder = PhaseRecorder(Hand())
    recorder.enter("startup")
    recorder.finish()
    recorder.finish()
    assert len(recorder.spans) == 1


def test_clock_since_process_start_counts_the_start_up() -> None:
    started = Clock.since_process_start()()
    assert started >= 0
    assert Clock()() < 1
    assert Clock(already_passed_s=5)() >= 5


def test_clock_with_a_wall_clock_set_back_counts_the_same() -> None:
    before_s, after_s = (
        float(text)
        for text in of_a_new_process(
            "before_s = Clock.since_process_start()()\n"
            "time.time = lambda: 0.0\n"
            "print(before_s, Clock.since_process_start()())"
        ).split()
    )
    assert 0 < before_s <= after_s < before_s + 1


def test_clock_of_a_new_process_starts_when_it_did() -> None:
    before_s = time.time()
    started_s = float(of_a_new_process("print(time.time() - Clock.since_process_start()())"))
    # The system counts in hundredths of a second. The start that psutil gives was up to a second early.
    assert before_s - 0.05 <= started_s <= time.time()


def of_a_new_process(code: str) -> str:
    """What this code prints. The process that runs the tests may be older than the clock takes for a start-up."""
    code = f"import time\nfrom jobs.phases import Clock\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
