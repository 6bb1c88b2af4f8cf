from __future__ import annotations

from jobs.exit_codes import ExitCode


def test_exit_codes_are_distinct_and_explained() -> None:
    assert len({int(code) for code in ExitCode}) == len(ExitCode.__members__)
    assert all(code.meaning for code in ExitCode)


def test_exit_codes_of_signals_follow_the_shell() -> None:
    assert ExitCode.INTERRUPTED == 128 + 15
    assert ExitCode.INTERRUPTED_BY_KEYBOARD == 128 + 2
