from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from jobs.harness.interrupt import Interrupted, InterruptGuard


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_raised_where_it_is_checked(number: signal.Signals, code: int) -> None:
    with InterruptGuard() as guard:
        guard.wait_for_checks()
        guard.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=number.name) as caught:
            guard.check()
    assert caught.value.exit_code == code


def test_before_training_a_signal_is_raised_where_it_comes_and_stays_known() -> None:
    with InterruptGuard() as guard:
        with pytest.raises(Interrupted, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        # Whoever swallowed it, a library's import for example, does not get the run past the next check.
        with pytest.raises(Interrupted, match="SIGTERM"):
            guard.check()


def test_no_library_takes_it_for_an_error_of_its_own() -> None:
    assert not issubclass(Interrupted, Exception)


def test_what_was_handled_before_is_handled_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with InterruptGuard():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_leaves_at_once() -> None:
    program = (
        "import os, signal\n"
        "from jobs.harness.interrupt import InterruptGuard\n"
        "with InterruptGuard() as guard:\n"
        "    guard.wait_for_checks()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 143
    assert done.stdout == b""
