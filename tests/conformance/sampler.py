"""What every strategy of the sampler must do."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from search.samplers import Sampler
from search.space import Space
from tests.search.landscapes import FULL, LANDSCAPES, best_found

MANY = 10_000
SMALL = Space(pruning=False, distillation=False, quantization=True, aims=False)


def rows(sampler: Sampler, numbers: range, *, parallel: int = 1) -> list[dict[str, Any]]:
    """Asks and tells made-up results, `parallel` trials being open at a time; every seventh fails."""
    found, waiting = [], []
    for number in numbers:
        asked = sampler.ask(number)
        assert asked is not None
        found.append(asked[0])
        waiting.append((number, asked[0]))
        if len(waiting) == parallel:
            answer(sampler, *waiting.pop(0))
    for number, knobs in waiting:
        answer(sampler, number, knobs)
    return found


def answer(sampler: Sampler, number: int, knobs: dict[str, Any]) -> None:
    value = None if number % 7 == 3 else (float(knobs.get("sharpness", 0.5)),)
    sampler.tell(number, value, {"budget": 0.1 if number % 3 == 0 else 0.0})


class SamplerConformance:
    """Parametrise a subclass with `strategy`."""

    def test_knobs_are_legal_and_never_repeat_with_four_open_at_a_time(self, strategy: str) -> None:
        sampler = Sampler(FULL, strategy, seed=1)
        found = rows(sampler, range(40), parallel=4)
        assert len({json.dumps(k, sort_keys=True) for k in found}) == 40
        for knobs in found:
            assert set(knobs) == set(FULL.dimensions)
            for name, distribution in FULL.dimensions.items():
                assert distribution._contains(distribution.to_internal_repr(knobs[name])), name

    def test_same_seed_and_results_same_knobs_and_another_seed_others(self, strategy: str) -> None:
        one, same, other = (rows(Sampler(FULL, strategy, seed=seed), range(25)) for seed in (3, 3, 4))
        assert one == same
        assert one != other

    def test_a_sampler_that_is_told_everything_again_goes_on_in_the_same_way(self, strategy: str) -> None:
        first = Sampler(FULL, strategy, seed=0)
        before = rows(first, range(20))
        second = Sampler(FULL, strategy, seed=0)
        for number, knobs in reversed(list(enumerate(before))):  # results come in any order
            second.replay(number, knobs)
            answer(second, number, knobs)
        assert [first.ask(n) for n in range(20, 24)] == [second.ask(n) for n in range(20, 24)]

    def test_a_small_space_is_exhausted_and_then_there_is_nothing_new(self, strategy: str) -> None:
        sampler = Sampler(SMALL, strategy, seed=0)
        found = []
        for number in range(10):
            asked = sampler.ask(number)
            if asked is None:
                break
            found.append(asked[0]["observer"])
            sampler.tell(number, (0.5,), {})
        assert sorted(found) == ["min_max", "mse", "percentile"]

    def test_three_objectives_are_told_as_three(self, strategy: str) -> None:
        sampler = Sampler(FULL, strategy, seed=0, objectives=3)
        for number in range(30):
            asked = sampler.ask(number)
            assert asked is not None
            sampler.tell(number, (asked[0]["sharpness"], -asked[0]["aim"], 0.5), {"budget": 0.0})

    def test_asking_does_not_grow_with_ten_thousand_trials_told(self, strategy: str) -> None:
        """The goal is 50 ms on a quiet machine; here only that it does not grow."""
        sampler = Sampler(FULL, strategy, seed=0)
        few = _asking(sampler, 0, 300)
        source = np.random.default_rng(0)
        for number in range(1000, 1000 + MANY):
            sampler.replay(number, sampler.encoding.uniform(source))
            answer(sampler, number, {"sharpness": number % 11})
        many = _asking(sampler, 20_000, 20_005)
        assert many < 5 * few + 0.05


def _asking(sampler: Sampler, start: int, stop: int) -> float:
    """Median seconds of the last five asks."""
    seconds = []
    for number in range(start, stop):
        began = time.perf_counter()
        asked = sampler.ask(number)
        seconds.append(time.perf_counter() - began)
        assert asked is not None
        answer(sampler, number, asked[0])
        if number - start > 120 and stop - start > 200:
            break
    return sorted(seconds[-5:])[2]


class LearningConformance:
    """Strategies that learn beat chance where there is something to learn, limits included."""

    def test_better_than_random_over_five_seeds(self, strategy: str, landscape: str) -> None:
        mine, chance = (
            sum(best_found(name, LANDSCAPES[landscape], seed=seed, trials=60)[-1] for seed in range(5))
            for name in (strategy, "random")
        )
        assert mine > chance
