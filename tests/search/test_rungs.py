"""Plans of rungs: what they promise to fit into the seconds that are left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from search.rungs import EPOCHS_CAP, SMALLEST_RUNG, plan_rungs


@given(
    seconds=st.floats(2, 1e5),
    slots=st.integers(1, 64),
    speed=st.floats(1, 1e6),
    rows=st.integers(10, 10**7),
    most=st.integers(1, 1000),
)
def test_plans_grow_and_fit(seconds: float, slots: int, speed: float, rows: int, most: int) -> None:
    plan = plan_rungs(now=100.0, end=100.0 + seconds, slots=slots, speed=speed, rows=rows, max_candidates=most)
    first, second, top = plan.samples
    assert 0 < first <= second <= top
    assert 1 <= plan.candidates[0] <= max(most, 1)
    assert plan.candidates[0] >= plan.candidates[1] >= 1
    assert 1 <= plan.candidates[2] <= slots
    assert 100.0 <= plan.top_starts <= plan.end
    assert first <= max(EPOCHS_CAP[0] * rows, SMALLEST_RUNG)
    spent = first * plan.candidates[0] + (second - first) * plan.candidates[1] + (top - second) * plan.candidates[2]
    affordable = seconds * slots * speed
    assert spent <= 1.05 * max(affordable, 3 * SMALLEST_RUNG * plan.candidates[0])


def test_more_seconds_on_a_small_dataset_mean_more_candidates() -> None:
    few = plan_rungs(now=0, end=60, slots=2, speed=1000, rows=1000, max_candidates=100)
    many = plan_rungs(now=0, end=600, slots=2, speed=1000, rows=1000, max_candidates=100)
    assert many.candidates[0] > few.candidates[0]
