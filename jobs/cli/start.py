"""The console scripts. Signals are handled before the imports, which take half a second."""

from __future__ import annotations

from importlib import import_module

from jobs.training.signals import exit_at_once_on_signals


def mnist_tf() -> None:
    _run("jobs.mnist_tf.cli")


def mnist_torch() -> None:
    _run("jobs.mnist_torch.cli")


def _run(module: str) -> None:
    exit_at_once_on_signals()
    import_module(module).main()
