"""Where the console scripts begin: signals are taken before what takes half a second to import."""

from __future__ import annotations

from importlib import import_module

from jobs.training.signals import exit_at_once_on_signals


def mnist_tf() -> None:
    _begin("jobs.mnist_tf.cli")


def mnist_torch() -> None:
    _begin("jobs.mnist_torch.cli")


def _begin(module: str) -> None:
    exit_at_once_on_signals()
    import_module(module).main()
