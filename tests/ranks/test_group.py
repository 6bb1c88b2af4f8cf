from __future__ import annotations

from typing import Any

import pytest

from jobs.choices import SHARDS
from jobs.ranks.group import MAX_STRIDE, STOP_INTERVAL_S, RankGroup


class Stopped(BaseException):
    """What the group's ``interrupt`` raises."""


def interrupt(number: int) -> None:
    raise Stopped(number)


@pytest.mark.parametrize("size", range(1, SHARDS + 1))
def test_shards_of_all_ranks_are_each_once(size: int) -> None:
    dealt = [shard for rank in range(size) for shard in RankGroup(rank=rank, size=size).shards]
    assert dealt == list(range(SHARDS))


def test_next_stop_after_fast_steps_is_further_and_after_slow_ones_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("jobs.ranks.group.time.monotonic", lambda: now_s)
    group = RankGroup()
    step, distances = 0, []
    for step_s in [0.001] * 12 + [1.0] * 12:
        stop = group.next_stop(step, 10**9)
        distances.append(stop - step)
        now_s += step_s * (stop - step)
        step = stop
    assert distances[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert max(distances) < STOP_INTERVAL_S / 0.001 * 2
    assert distances[-1] == 1


def test_next_stop_is_at_most_the_end_and_a_limit() -> None:
    group = RankGroup()
    step = 0
    for _ in range(30):
        step = group.next_stop(step, 10**9)
    assert group.next_stop(step, 10**9) - step <= MAX_STRIDE
    assert group.next_stop(step, step + 1) == step + 1


def test_next_stop_with_a_signal_to_another_rank_interrupts_this_one() -> None:
    group = RankGroup(rank=0, size=2, exchange=lambda part: [part, {**part, "signal": 15}], interrupt=interrupt)
    with pytest.raises(Stopped, match="15"):
        group.next_stop(3, 10)


def test_next_stop_takes_the_distance_of_rank_0() -> None:
    def exchange(part: Any) -> list[Any]:
        return [{**part, "stride": 7}, part]

    assert RankGroup(rank=1, size=2, exchange=exchange).next_stop(2, 100) == 9
