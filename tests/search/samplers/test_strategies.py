"""All strategies of the sampler."""

from __future__ import annotations

from typing import get_args

import pytest

from search.samplers import Sampler, registered
from search.spec import Strategy
from tests.conformance.sampler import LearningConformance, SamplerConformance
from tests.search.landscapes import FULL


@pytest.mark.parametrize("strategy", registered())
class TestStrategies(SamplerConformance):
    pass


LEARNERS = [s for s in registered() if s not in ("random", "solver")]
LEARNT = [(s, "valley") for s in LEARNERS] + [(s, "cliff") for s in LEARNERS if s != "cmaes"]  # which needs more trials


@pytest.mark.parametrize(("strategy", "landscape"), LEARNT)
class TestLearning(LearningConformance):
    pass


def test_a_job_may_name_every_strategy_and_no_other() -> None:
    assert set(get_args(Strategy)) == set(registered())
    with pytest.raises(ValueError, match="must be one of"):
        Sampler(FULL, "simplex", seed=0)


@pytest.mark.parametrize("strategy", ["auto", "solver"])
def test_the_solver_comes_first(strategy: str) -> None:
    sampler = Sampler(FULL, strategy, seed=0)
    asked = [sampler.ask(n) for n in range(sampler.starts + 1)]
    origins = [a[1] for a in asked if a is not None]
    assert origins[:-1] == ["solver"] * sampler.starts
    assert sampler.starts >= 5
    assert origins[-1] != "solver"


def test_knobs_that_are_given_come_before_the_solver_if_they_are_legal() -> None:
    sampler = Sampler(FULL, "tpe", seed=0)
    mine = FULL.default
    assert sampler.start_with(mine, "warm start")
    assert not sampler.start_with({"sharpness": 99.0}, "warm start")
    assert sampler.ask(0) == (mine, "warm start")
