"""The epochs for which both adapters' tests count compilations."""

from __future__ import annotations

import pytest

EPOCHS_AND_BATCH_SIZES = pytest.mark.parametrize(
    ("input_path", "images", "done", "sizes"),
    [
        ("streamed", 2 * 64 + 8, 0, 2),
        # Only the smaller batch is left to a resumed epoch, and the next one begins with a whole one.
        ("streamed", 2 * 64 + 8, 2, 2),
        ("streamed", 40, 0, 1),
        ("resident", 2 * 64 + 8, 0, 1),
    ],
)
"""Batches of 64; ``done`` of them are trained before the first epoch begins, and ``sizes`` are to be compiled."""
