from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.telemetry.sampler.loop import LATE_THRESHOLD_S, Rate


@given(interval_s=st.floats(0.01, 2), delays=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=50))
def test_rate_any_delays_keep_deadlines_on_the_grid(interval_s: float, delays: list[tuple[float, float]]) -> None:
    rate = Rate(interval_s, deadline_s=0.0)
    now_s = 0.0
    for waited_s, read_s in delays:
        now_s = max(now_s, rate.deadline_s) + waited_s
        assert rate.begin(now_s)
        now_s += read_s
        rate.end(now_s)
        steps = rate.deadline_s / interval_s
        assert abs(steps - round(steps)) < 1e-6 * max(1.0, steps)
        # At most one reading is owed: a backlog is counted as missed, not worked off.
        assert rate.deadline_s > now_s - interval_s - 1e-9
    statistics = rate.statistics()
    assert statistics["taken"] == len(delays)
    assert statistics["planned"] == statistics["taken"] + statistics["missed"]
    assert round(rate.deadline_s / interval_s) == statistics["planned"]
    assert statistics["late"] == sum(lateness > LATE_THRESHOLD_S for lateness in rate.lateness_s)


def test_rate_before_its_deadline_is_not_due() -> None:
    rate = Rate(1.0, deadline_s=5.0)
    assert not rate.begin(4.999)
    assert rate.statistics()["lateness_p95_ms"] is None
    assert rate.begin(5.002)
    assert round(rate.statistics()["lateness_p95_ms"], 3) == 2.0
