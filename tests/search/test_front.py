"""The front kept incrementally is the front of all trials."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from search.front import Front, dominates
from search.records import Latency, Trial

POINT = st.tuples(st.integers(0, 6), st.integers(1, 6), st.integers(1, 6), st.booleans())


def trial(number: int, metric: int, latency: int, size: int, feasible: bool) -> Trial:
    return Trial(
        number=number,
        state="completed",
        metric=metric / 10,
        latency=Latency(p50_ms=1, p90_ms=1, ratio=latency / 10, ratio_ci=(0, 1), repeats=1),
        size_bytes=size,
        feasible=feasible,
    )


@given(st.lists(POINT, max_size=25))
def test_members_are_the_feasible_undominated(points: list[tuple[int, int, int, bool]]) -> None:
    trials = [trial(i, *p) for i, p in enumerate(points)]
    costs = {i: (-m / 10, lat / 10, float(s)) for i, (m, lat, s, ok) in enumerate(points) if ok}
    expected = {i for i, c in costs.items() if not any(dominates(other, c) for other in costs.values())}
    assert set(Front.of(trials).numbers) == expected


def test_add_says_whether_the_members_changed() -> None:
    front = Front()
    assert front.add(trial(0, 5, 5, 5, True))
    assert not front.add(trial(1, 4, 5, 5, True))
    assert not front.add(trial(2, 9, 1, 1, False))
    assert front.add(trial(3, 6, 4, 4, True))
    assert front.numbers == (3,)
