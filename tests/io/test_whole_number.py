from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.io.whole_number import LARGEST, whole_number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", "1e3", " 1", "1\n", "1_000", "²", "٣", "\udce9", "9" * 10, "9" * 5000]
)
def test_whole_number_of_other_text_is_none(text: str) -> None:
    assert whole_number(text) is None


@given(st.integers(0, LARGEST))
def test_whole_number_of_its_digits_is_the_number(number: int) -> None:
    assert whole_number(str(number)) == number
    assert whole_number(str(LARGEST + 1 + number)) is None
