from __future__ import annotations

import pytest

from jobs.report.measuring import too_short_text


@pytest.mark.parametrize(
    ("train_s", "repeat", "epochs", "text"),
    [
        (1.2, 1, 5, "too short to judge: 1.2 s of training; use --repeat 25 or --epochs 125"),
        (2.0, 4, 1, "too short to judge: 2 s of training; use --repeat 60 or --epochs 15"),
        (0.0432, 1, 1, "too short to judge: 0.043 s of training; use --repeat 695 or --epochs 695"),
        # Long enough, in phases that are too short: one repeat makes them one phase.
        (40.4, 1, 500, "too short to judge: 40 s of training; use --repeat 2 or --epochs 1000"),
        (0.0, 1, 1, "too short to judge: 0 s of training; use --repeat 2 or --epochs 2"),
    ],
)
def test_too_short_text_of_a_short_run_names_numbers_that_reach_30_s(
    train_s: float, repeat: int, epochs: int, text: str
) -> None:
    assert too_short_text(train_s, repeat=repeat, epochs=epochs) == text
