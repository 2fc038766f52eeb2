"""Which of a search's knobs decided the metric, and on how many trials that judgement rests.

Beyond MOST_TRIALS_BY_RANK trials by functional analysis of variance: a random forest is fitted to (knobs -> metric),
and a knob's importance is the share of the forest's variance that it explains alone (Hutter, Hoos & Leyton-Brown 2014,
ICML, "An efficient approach for assessing hyperparameter importance"; Optuna's implementation). With fewer trials a
forest fits noise; then it is the knob's rank correlation, normalised to a sum of one, and the report says so. Either
way each knob comes with the probability that chance alone gives a correlation as strong (permutation test).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.importance import FanovaImportanceEvaluator
from scipy.stats import rankdata

from search.outranking import metric_at
from search.records import Trial
from search.variants import FURTHER

LEAST_TRIALS = 5
MOST_TRIALS_BY_RANK = 19
MOST_TRIALS = 1000  # the newest; a forest of more takes seconds
PERMUTATIONS = 499

Floats = npt.NDArray[np.float64]
Value = float | str


def knob_importance(trials: Sequence[Trial]) -> dict[str, Any]:
    """{method, trials, rung, knobs: [{name, importance, correlation, p_value}], note}, most important knob first.

    importance: share, all of them adding up to 1. correlation: of ranks, -1..1, None for a knob without an order.
    Judged by the metric at the rung that most of the trials reached, so that tuning does not stand in for a knob. Cost:
    O(trials log trials) per tree of the forest.
    """
    rung, rows = _scored_alike(trials)
    names = _varied(rows)
    rows = [(knobs, metric) for knobs, metric in rows if all(name in knobs for name in names)][-MOST_TRIALS:]
    found: dict[str, Any] = {"method": None, "trials": len(rows), "rung": rung, "knobs": [], "note": ""}
    if len(rows) < LEAST_TRIALS or not names or np.ptp([metric for _, metric in rows]) == 0:
        found["note"] = f"{len(rows)} scored trials that differ in their knobs; fewer than {LEAST_TRIALS} tell nothing"
        return found
    metric = np.array([m for _, m in rows])
    columns = {name: [knobs[name] for knobs, _ in rows] for name in names}
    strengths = {name: _strength(column, metric) for name, column in columns.items()}
    if len(rows) > MOST_TRIALS_BY_RANK:
        shares = _fanova(columns, metric)
        found |= {"method": "fanova", "note": "share of the metric's variance that a knob explains alone"}
    else:
        total = sum(abs(s) for s, _, _ in strengths.values()) or 1.0
        shares = {name: abs(strength) / total for name, (strength, _, _) in strengths.items()}
        found |= {
            "method": "rank_correlation",
            "note": f"strength of the rank correlation; {len(rows)} trials are too few for an analysis of variance",
        }
    found["knobs"] = [
        {
            "name": name,
            "importance": round(shares[name], 4),
            "correlation": None if not strengths[name][1] else round(strengths[name][0], 3),
            "p_value": round(strengths[name][2], 4),
        }
        for name in sorted(names, key=lambda n: (-shares[n], n))
    ]
    return found


def _scored_alike(trials: Sequence[Trial]) -> tuple[int, list[tuple[dict[str, Value], float]]]:
    """(rung, (knobs, metric at that rung) of the trials that have one): the highest rung that enough trials reached."""
    by_rung: dict[int, list[tuple[dict[str, Value], float]]] = {}
    for trial in trials:
        if not trial.knobs:
            continue
        for rung in {score.rung for score in trial.scores}:
            metric = metric_at(trial, rung)
            assert metric is not None
            by_rung.setdefault(rung, []).append((_plain(trial.knobs), metric))
    if not by_rung:
        return 0, []
    enough = [rung for rung, rows in by_rung.items() if len(rows) > MOST_TRIALS_BY_RANK]
    rung = max(enough) if enough else max(by_rung, key=lambda r: (len(by_rung[r]), r))
    return rung, by_rung[rung]


def _plain(knobs: Mapping[str, Any]) -> dict[str, Value]:
    """Knobs with one value; further techniques as the names of the techniques."""
    found: dict[str, Value] = {}
    for name, value in knobs.items():
        if isinstance(value, bool | str):
            found[name] = str(value)
        elif isinstance(value, int | float):
            found[name] = float(value)
    further = knobs.get(FURTHER, ())
    found["further techniques"] = ", ".join(sorted({str(step.get("technique")) for step in further})) or "none"
    return found


def _varied(rows: Sequence[tuple[Mapping[str, Value], float]]) -> list[str]:
    """Knobs that at least half of the trials have, with more than one value."""
    present = Counter(name for knobs, _ in rows for name in knobs)
    common = [name for name, count in present.items() if 2 * count >= len(rows)]
    return sorted(name for name in common if len({knobs[name] for knobs, _ in rows if name in knobs}) > 1)


def _is_number(column: Sequence[Value]) -> bool:
    return all(isinstance(value, float) for value in column)


def _strength(column: Sequence[Value], metric: Floats) -> tuple[float, bool, float]:
    """(strength of association, whether it has a sign, probability under chance).

    Spearman's correlation for numbers; for names the square root of the share of the ranks' variance between them.
    """
    ranks = rankdata(metric)
    ranks = (ranks - ranks.mean()) / ranks.std()
    if _is_number(column):
        own = rankdata(np.array(column, dtype=float))
        basis = ((own - own.mean()) / own.std())[:, None]
    else:
        labels = sorted({str(value) for value in column})
        basis = np.array([[str(value) == label for label in labels] for value in column], dtype=float)
        basis /= np.sqrt(basis.sum(axis=0) / len(column))
    signed = _is_number(column)

    def strength(values: Floats) -> Floats:
        """values: (permutations, trials) -> (permutations,), 0..1 (signed: -1..1)."""
        projected: Floats = values @ basis / len(column)
        return projected[:, 0] if signed else np.sqrt((projected**2).sum(axis=1))

    random = np.random.default_rng(0)
    actual = float(strength(ranks[None])[0])
    by_chance = np.abs(strength(np.stack([random.permutation(ranks) for _ in range(PERMUTATIONS)])))
    p_value = (1 + int((by_chance >= abs(actual) - 1e-12).sum())) / (1 + PERMUTATIONS)
    return actual, signed, p_value


def _fanova(columns: Mapping[str, Sequence[Value]], metric: Floats) -> dict[str, float]:
    distributions = {name: _distribution(column) for name, column in columns.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize")
        for row, value in enumerate(metric):
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: column[row] for name, column in columns.items()},
                    distributions=distributions,
                    value=float(value),
                )
            )
        evaluator = FanovaImportanceEvaluator(n_trees=32, max_depth=16, seed=0)
        return {name: float(share) for name, share in _normalised(evaluator.evaluate(study)).items()}


def _normalised(shares: Mapping[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    return {name: share / total if total > 0 else 1 / len(shares) for name, share in shares.items()}


def _distribution(column: Sequence[Value]) -> optuna.distributions.BaseDistribution:
    """Over what was tried; on a logarithmic scale where that spans more than an order of magnitude."""
    if not _is_number(column):
        return optuna.distributions.CategoricalDistribution(sorted({str(v) for v in column}))
    low, high = min(map(float, column)), max(map(float, column))
    return optuna.distributions.FloatDistribution(low, high, log=low > 0 and high > 10 * low)
