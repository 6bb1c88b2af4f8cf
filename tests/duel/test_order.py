from __future__ import annotations

from collections import Counter
from itertools import pairwise

from scipy import stats

from jobs.duel.order import order_in_block


def test_order_in_block_is_a_fair_coin_without_memory() -> None:
    drawn = [order_in_block(f"plan-{plan}", block)[0] for plan in range(100) for block in range(100)]
    assert stats.binomtest(drawn.count("torch"), len(drawn)).pvalue > 0.001
    repeated = sum(one == other for one, other in pairwise(drawn))
    assert stats.binomtest(repeated, len(drawn) - 1).pvalue > 0.001
    # By block number, over the plans: no block has an order of its own.
    firsts = [Counter(order_in_block(f"plan-{plan}", block)[0] for plan in range(400))["torch"] for block in range(20)]
    assert min(stats.binomtest(count, 400).pvalue for count in firsts) > 0.0005


def test_order_in_block_of_one_plan_and_block_never_changes() -> None:
    """Reports name the plan, so this release and later ones must draw what an earlier one drew."""
    orders = [order_in_block("20260102T030405Z-duel-a1b2c3", block)[0] for block in range(8)]
    assert [name == "torch" for name in orders] == [False, False, False, False, True, False, True, False]
