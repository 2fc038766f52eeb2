"""Every strategy: new knobs each time, inside the space, the same for the same seed."""

from __future__ import annotations

import json
import time

import pytest

from search.sampler import Sampler, Strategy
from search.space import Space

FULL = Space(pruning=True, distillation=True, quantization=True, aims=False)
STRATEGIES: tuple[Strategy, ...] = ("auto", "tpe", "random")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_knobs_lie_in_the_space_and_do_not_repeat(strategy: Strategy) -> None:
    sampler = Sampler(FULL, strategy, seed=1)
    seen = set()
    for number in range(30):
        asked = sampler.ask(number)
        assert asked is not None
        knobs, origin = asked
        assert set(knobs) == set(FULL.dimensions)
        for name, distribution in FULL.dimensions.items():
            assert distribution._contains(distribution.to_internal_repr(knobs[name]))
        seen.add(json.dumps(knobs, sort_keys=True))
        assert origin in ("solver", "tpe", "random")
        sampler.tell(number, knobs["sharpness"], {"budget": 0.0})
    assert len(seen) == 30


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_seed_same_knobs(strategy: Strategy) -> None:
    def knobs() -> list[object]:
        sampler = Sampler(FULL, strategy, seed=3)
        found: list[object] = []
        for number in range(15):
            asked = sampler.ask(number)
            assert asked is not None
            found.append(asked)
            sampler.tell(number, float(number % 4), {})
        return found

    assert knobs() == knobs()


def test_auto_begins_with_the_solver() -> None:
    sampler = Sampler(FULL, "auto", seed=0)
    asked = [sampler.ask(n) for n in range(6)]
    assert [a[1] for a in asked if a is not None] == ["solver"] * 5 + ["tpe"]


def test_a_small_space_is_exhausted() -> None:
    sampler = Sampler(Space(pruning=False, distillation=False, quantization=True, aims=False), "auto", seed=0)
    found = []
    for number in range(10):
        asked = sampler.ask(number)
        if asked is None:
            break
        found.append(asked[0]["observer"])
        sampler.tell(number, 0.5, {})
    assert sorted(found) == ["min_max", "mse", "percentile"]


def test_replayed_trials_count_as_asked() -> None:
    first = Sampler(FULL, "auto", seed=0)
    rows = []
    for number in range(8):
        asked = first.ask(number)
        assert asked is not None
        rows.append(asked[0])
        first.tell(number, 0.1 * number, {"latency_ratio": -0.1})
    second = Sampler(FULL, "auto", seed=0)
    for number, knobs in enumerate(rows):
        second.replay(number, knobs)
        second.tell(number, 0.1 * number, {"latency_ratio": -0.1})
    asked = second.ask(8)
    assert asked is not None
    assert asked[0] not in rows


def test_an_infeasible_trial_is_told_as_such() -> None:
    sampler = Sampler(FULL, "tpe", seed=0)
    for number in range(25):
        asked = sampler.ask(number)
        assert asked is not None
        low = asked[0]["sharpness"] < 1.0
        sampler.tell(number, 1.0 if low else 0.5, {"latency_ratio": 0.3 if low else -0.1})
    values = []
    for number in range(25, 45):
        asked = sampler.ask(number)
        assert asked is not None
        values.append(asked[0]["sharpness"])
        sampler.tell(number, 0.5, {"latency_ratio": -0.1})
    assert sum(v >= 1.0 for v in values) > 10, "the sampler keeps to the feasible side although it scores lower"


def test_asking_stays_cheap() -> None:
    sampler = Sampler(FULL, "auto", seed=0)
    for number in range(300):
        asked = sampler.ask(number)
        assert asked is not None
        sampler.tell(number, 0.5, {})
    began = time.perf_counter()
    sampler.ask(300)
    assert time.perf_counter() - began < 1.0
