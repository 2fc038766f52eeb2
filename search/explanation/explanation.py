"""Why the winner won, and what the search did with its seconds: the section `explanation` of a report.

Bounded whatever the number of trials and layers: each part says what it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compressors.recipe import Recipe
from search.explanation.cost_view import CostView
from search.explanation.curves import curves
from search.explanation.knob_importance import knob_importance
from search.explanation.layer_decisions import layer_decisions
from search.explanation.predictions import predictions
from search.explanation.prices import prices
from search.explanation.rejections import rejections
from search.explanation.spending import spending
from search.hypervolume import Box
from search.profile import Profile
from search.records import Stage, Trial
from search.sensitivity import Sensitivity
from search.space import Space
from search.spec import JobSpec

EXPLANATION_VERSION = 1
FRONT = 64  # members shown, those that add most to the hypervolume


def explanation(
    spec: JobSpec,
    profile: Profile,
    sensitivity: Sensitivity | None,
    trials: Sequence[Trial],
    front: Sequence[int],
    winner: Trial | None,
    common: Sequence[Stage],
) -> dict[str, Any]:
    """winner: as confirmed; None leaves out what is about it. front: numbers of its members. common: stages that belong
    to no trial.

    Keys: version, importance, layers, rejected, prices, predictions, spending, curves, front; each as the function of
    the module of that name says, null where there is nothing to say.
    """
    box = Box.of(profile.baseline, spec.budget)
    recipe = None if winner is None or winner.recipe is None else Recipe.from_json(winner.recipe)
    costs = None if recipe is None else CostView(profile, trials, recipe, Space.of(spec, profile).scope)
    return {
        "version": EXPLANATION_VERSION,
        "importance": knob_importance(trials),
        "layers": None if recipe is None or costs is None else layer_decisions(profile, sensitivity, costs, recipe),
        "rejected": rejections(trials, None if winner is None else winner.number),
        "prices": None
        if winner is None or costs is None
        else prices(winner, trials, spec, profile, sensitivity, costs),
        "predictions": predictions(trials),
        "spending": spending(trials, common, slots=spec.search.parallel, winner=winner),
        "curves": curves(trials, spec.objective),
        "front": _front([t for t in trials if t.number in set(front)], box),
    }


def _front(members: Sequence[Trial], box: Box) -> Mapping[str, Any]:
    """{hypervolume, allowed_drop, members: [{trial, metric, latency_ms, …, adds, recipe}], left_out}, fastest first.

    adds: by how much the hypervolume would fall without this one."""
    whole = box.volume(members)
    adds = {t.number: whole - box.volume(o for o in members if o is not t) for t in members[:FRONT]}
    shown = sorted(members, key=lambda t: -adds.get(t.number, 0.0))[:FRONT]
    return {
        "hypervolume": round(whole, 6),
        "allowed_drop": box.allowed_drop,
        "members": [
            {
                "trial": t.number,
                "metric": t.metric,
                "latency_ratio": None if t.latency is None else t.latency.ratio,
                "latency_ms": None if t.latency is None else t.latency.p50_ms,
                "size_bytes": t.size_bytes,
                "size_ratio": t.size_ratio,
                "adds": round(adds.get(t.number, 0.0), 6),
                "recipe": t.recipe,
            }
            for t in sorted(shown, key=lambda t: t.latency.ratio if t.latency is not None else 0.0)
        ],
        "left_out": len(members) - len(shown),
    }
