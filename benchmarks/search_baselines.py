"""What a practitioner does without Bantam: Optuna over one keep ratio per group of channels, and the tuning's knobs.

A candidate is built, tuned, exported, measured and scored by the very functions that a job uses (`search.evaluator`);
what differs is who decides on candidates and for how long each is tuned. Decided in favour of the baselines:

- ratios are drawn on a log scale from the same range as the search's own, and rounded to the multiples of four that
  integer kernels like, so that a good part of all candidates meets a tight budget;
- temperature, alpha and learning rate have the search's ranges, and the bit widths its levels;
- the first candidate takes the same share of every group, with the knobs that the search starts from, at a size known
  to meet the budget (nothing is tuned to find it);
- the samples that each candidate is tuned on were read off the curve of a uniformly pruned network on a digits cell
  that is not reported: past the steep part, and short enough for some twenty candidates (--samples tries others);
- NSGA-II gets a population small enough to see several generations.

`checks_cost` is the stronger variant: a candidate over the budget is told to the sampler without being tuned.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning

from benchmarks.search_contest import Attempt, Evaluator, Recorder, Standing, scored
from compressors.recipe import Distillation, Quantization, Recipe, StructuredPruning
from search.feasibility import Measured, violations
from search.profile import Profile
from search.solver import SMALLEST_SHARE
from search.work import Confirmed, ConfirmWork, Failed, Gated, GateWork, Profiled, ProfileWork, ScoreWork

MULTIPLE = 4
POPULATION = 10
CONFIRMATIONS = 3  # candidates that are measured once more, best first, until one holds
GATES_PER_SECOND = 10  # of the budget: the untuned candidates of `checks_cost` must end somewhere
LEAST_GATES = 30
SHARES = 24  # steps from the smallest share of channels to all of them, for the first candidate

QUANTIZATIONS: Mapping[str, Quantization] = {
    f"int{step.weight_bits}": step for step in (Quantization(), *Quantization.levels())
}


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """sampler: from a seed. checks_cost: whether a candidate is measured before it is tuned, and dropped if it is over
    the budget."""

    sampler: Callable[[int], optuna.samplers.BaseSampler]
    checks_cost: bool = False


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)


BASELINES: dict[str, Baseline] = {
    "random": Baseline(sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed)),
    "tpe": Baseline(sampler=lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "nsga2": Baseline(sampler=_nsga2),
    "tpe-checks-cost": Baseline(sampler=lambda seed: optuna.samplers.TPESampler(seed=seed), checks_cost=True),
}


class BaselineSearch:
    """One baseline in one cell. samples: that each candidate is tuned on."""

    def __init__(self, baseline: Baseline, evaluate: Evaluator, *, seconds: float, samples: int) -> None:
        self._baseline, self._evaluate = baseline, evaluate
        self._seconds, self._samples = seconds, samples
        self._spec = evaluate.inputs.spec
        found = evaluate(ProfileWork())
        assert isinstance(found, Profiled), found
        self._profile: Profile = found.profile
        self._recorder = Recorder(evaluate.clock)
        self._found: dict[int, tuple[Attempt, Recipe]] = {}  # what is within the budget, by trial
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study = optuna.create_study(
                direction="maximize", sampler=baseline.sampler(evaluate.inputs.spec.search.seed)
            )

    def run(self, name: str) -> Standing:
        """Until the clock says so; the candidate at hand is finished."""
        wall, processor = time.monotonic(), time.process_time()
        clock = self._evaluate.clock
        self._study.enqueue_trial(self._first())
        most = self._evaluate.gates + max(LEAST_GATES, int(GATES_PER_SECOND * self._seconds))
        while clock.now() < self._seconds and self._evaluate.gates < most:
            self._try(self._study.ask())
        confirmed, attempt = self._confirm()
        return Standing(
            network=self._spec.model,
            seed=self._spec.search.seed,
            contestant=name,
            seconds=self._seconds,
            uncompressed=self._profile.baseline.metric,
            uncompressed_test=None if confirmed is None else confirmed.baseline_test_metric,
            attempts=tuple(self._recorder.attempts),
            curve=tuple(self._recorder.curve),
            answer=None if confirmed is None else confirmed.metric,
            test=None if confirmed is None else confirmed.test_metric,
            size_ratio=None if attempt is None else attempt.size_ratio,
            latency_ratio=None if confirmed is None else confirmed.latency.ratio,
            gates=self._evaluate.gates,
            predictions=(),
            wall_s=time.monotonic() - wall,
            processor_s=time.process_time() - processor,
            reason=f"{self._seconds:g} s used" if clock.now() >= self._seconds else f"{most} candidates measured",
        )

    def _try(self, trial: optuna.Trial) -> None:
        recipe, number = self._recipe(trial), trial.number
        gated = self._gate(number, recipe)
        cost = Measured(latency_ms=gated.latency.p50_ms, latency_ratio=gated.latency.ratio, size_bytes=gated.size_bytes)
        missed = {v.field: v for v in violations(self._spec.budget, self._profile.baseline, cost)}
        for limit in ("latency_ms", "latency_ratio", "size_mb", "size_ratio"):
            if getattr(self._spec.budget, limit) is not None:
                over = missed.get(limit)
                trial.set_constraint(limit, 0.0 if over is None else over.excess / over.limit)
        metric: float | None = None
        if not (missed and self._baseline.checks_cost):
            work = ScoreWork(trial=number, recipe=recipe, rung=1, start=0, stop=self._samples)
            metric = scored(self._evaluate(work)).metric
        attempt = Attempt(
            trial=number,
            at=self._evaluate.clock.now(),
            seconds=self._evaluate.spent(number),
            feasible=not missed,
            metric=metric,
            size_ratio=gated.size_bytes / self._profile.baseline.size_bytes,
            latency_ratio=gated.latency.ratio,
        )
        self._recorder.note(attempt)
        if not missed:
            self._found[number] = attempt, recipe
        # An untuned candidate is worst of all; among those over the budget samplers look at the excess alone.
        self._study.tell(trial, 0.0 if metric is None else metric)

    def _recipe(self, trial: optuna.Trial) -> Recipe:
        shares = {g: trial.suggest_float(f"keep:{g}", SMALLEST_SHARE, 1.0, log=True) for g in self._profile.sizes}
        tuning = Distillation(
            temperature=trial.suggest_float("temperature", 1.0, 8.0, log=True),
            alpha=trial.suggest_float("alpha", 0.5, 1.0),
            learning_rate=trial.suggest_float("learning_rate", 0.003, 0.1, log=True),
        )
        quantization = QUANTIZATIONS[trial.suggest_categorical("quantization", list(QUANTIZATIONS))]
        return Recipe((StructuredPruning(keep=self._keep(shares)), tuning, quantization))

    def _keep(self, shares: Mapping[str, float]) -> dict[str, int]:
        """Groups that lose nothing are left out."""
        keep = {}
        for name, size in self._profile.sizes.items():
            multiple = MULTIPLE if size >= 2 * MULTIPLE else 1
            keep[name] = min(size, max(1, round(shares[name] * size / multiple)) * multiple)
        return {name: count for name, count in keep.items() if count < self._profile.sizes[name]}

    def _first(self) -> dict[str, Any]:
        """The largest common share of channels that meets the budget; only the costs of shapes are looked at."""
        shares = [SMALLEST_SHARE ** (1 - step / SHARES) for step in range(SHARES + 1)]
        low, high = 0, SHARES
        while low < high:
            middle = (low + high + 1) // 2
            recipe = self._uniform(shares[middle])
            gated = self._gate(-1, recipe)
            cost = Measured(
                latency_ms=gated.latency.p50_ms, latency_ratio=gated.latency.ratio, size_bytes=gated.size_bytes
            )
            low, high = (
                (middle, high) if not violations(self._spec.budget, self._profile.baseline, cost) else (low, middle - 1)
            )
        knobs = {"temperature": 4.0, "alpha": 0.9, "learning_rate": 0.03, "quantization": "int8"}
        return {**{f"keep:{group}": shares[low] for group in self._profile.sizes}, **knobs}

    def _uniform(self, share: float) -> Recipe:
        keep = self._keep(dict.fromkeys(self._profile.sizes, share))
        return Recipe((StructuredPruning(keep=keep), Distillation(), Quantization()))

    def _gate(self, number: int, recipe: Recipe) -> Gated:
        gated = self._evaluate(GateWork(trial=number, recipe=recipe))
        if isinstance(gated, Failed):
            raise RuntimeError(gated.reason)
        assert isinstance(gated, Gated)
        return gated

    def _confirm(self) -> tuple[Confirmed | None, Attempt | None]:
        """As a job does: measured longer, and the next best if that shows it over the budget."""
        best = sorted(
            (item for item in self._found.values() if item[0].metric is not None),
            key=lambda item: (-(item[0].metric or 0.0), item[0].latency_ratio, item[0].size_ratio),
        )
        for attempt, recipe in best[:CONFIRMATIONS]:
            confirmed = self._evaluate(_confirm_work(attempt.trial, recipe, self._samples))
            assert isinstance(confirmed, Confirmed), confirmed
            cost = Measured(
                latency_ms=confirmed.latency.p50_ms,
                latency_ratio=confirmed.latency.ratio,
                size_bytes=confirmed.size_bytes,
            )
            if not violations(self._spec.budget, self._profile.baseline, cost):
                return confirmed, attempt
        return None, None


def _confirm_work(number: int, recipe: Recipe, samples: int) -> ConfirmWork:
    """With the samples that the tuning saw, as a job's rows have it."""
    assert recipe.distillation is not None
    return ConfirmWork(
        trial=number, recipe=recipe.replaced(Distillation, replace(recipe.distillation, samples=samples))
    )
