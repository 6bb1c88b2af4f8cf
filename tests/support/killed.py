"""Runs a program of this project and kills it, as a node that dies would, right after a step of its choice.

``python killed.py MODULE EPOCH STEP ARGUMENT…``: SIGKILL after ``STEP`` steps of epoch ``EPOCH``, or at the next time
that the program looks.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobs.training import loop as training

if TYPE_CHECKING:
    from collections.abc import Callable


SIGNAL_VARIABLE = "MNIST_JOBS_TEST_SIGNAL"
"""The number of another signal, which is sent once."""


def main(module: str, epoch: str, step: str, *arguments: str) -> None:
    at = (int(epoch), int(step))
    number = int(os.environ.get(SIGNAL_VARIABLE, signal.SIGKILL))
    sent = False
    make_hook = training._step_hook

    def deadly_hook(loop: Any, progress: Any, show: Any, **options: Any) -> Callable[[int], None]:
        on_step = make_hook(loop, progress, show, **options)

        def then_die(done: int) -> None:
            nonlocal sent
            on_step(done)
            if (progress.epoch, done) >= at and not sent:
                sent = True
                os.kill(os.getpid(), number)

        return then_die

    training._step_hook = deadly_hook
    sys.argv = [module, *arguments]
    import_module(module).main()


if __name__ == "__main__":
    main(*sys.argv[1:])
