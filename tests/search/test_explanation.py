"""The explanation of a search: each part against a case worked out by hand, and all of it from a whole search."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from compressors.recipe import Distillation, Quantization, Recipe, StructuredPruning
from search.choice import ranked
from search.coordinator import Coordinator
from search.explanation.cost_view import CostView
from search.explanation.curves import POINTS, curves
from search.explanation.explanation import explanation
from search.explanation.knob_importance import knob_importance
from search.explanation.layer_decisions import layer_decisions
from search.explanation.predictions import predictions
from search.explanation.prices import prices
from search.explanation.rejections import LINES, NAMED, rejections
from search.explanation.spending import spending
from search.records import Fidelity, Latency, Predicted, Score, Stage, Trial, Violation
from search.sensitivity import Entry, Sensitivity
from tests.search.simulation import Network, network, simulate, spec


def latency(ratio: float) -> Latency:
    return Latency(p50_ms=ratio, p90_ms=ratio, ratio=ratio, ratio_ci=(ratio, ratio), repeats=9)


def scored(number: int, metric: float, *, rung: int = 0, ratio: float = 0.4, **fields: Any) -> Trial:
    """state 'stopped', with one score at each rung up to `rung`, all of them `metric`."""
    scores = tuple(
        Score(rung=r, samples=0, metric=metric, feasible=True, elapsed_s=10.0 * number + r, hypervolume=0.1 * number)
        for r in range(rung + 1)
    )
    return replace(
        Trial(
            number=number,
            state="stopped",
            metric=metric,
            latency=latency(ratio),
            size_bytes=int(ratio * 1_000_000),
            size_ratio=ratio,
            feasible=True,
            fidelity=Fidelity(rung=rung, samples=0),
            scores=scores,
        ),
        **fields,
    )


# --- knobs ------------------------------------------------------------------------------------------------------------


def _with_knobs(count: int) -> list[Trial]:
    """The metric follows one knob; another is noise, a third a name without influence."""
    return [
        scored(
            i,
            0.5 + 0.4 * ((i * 7) % count) / count,
            knobs={"strong": float((i * 7) % count), "weak": float((i * 11) % 13), "name": "ab"[i % 2], "fixed": 1.0},
        )
        for i in range(count)
    ]


@pytest.mark.parametrize(("count", "method"), [(12, "rank_correlation"), (40, "fanova")])
def test_the_knob_that_decides_comes_first(count: int, method: str) -> None:
    found = knob_importance(_with_knobs(count))
    assert (found["method"], found["trials"]) == (method, count)
    first, *others = found["knobs"]
    assert first["name"] == "strong"
    assert first["correlation"] == pytest.approx(1.0)
    assert first["p_value"] <= 0.01
    assert first["importance"] > 3 * max(k["importance"] for k in others if k["name"] == "name")
    assert sum(k["importance"] for k in found["knobs"]) == pytest.approx(1.0, abs=0.01)
    assert {k["name"] for k in found["knobs"]} == {"strong", "weak", "name"}, "what does not vary explains nothing"
    assert next(k for k in found["knobs"] if k["name"] == "name")["correlation"] is None


def test_a_knob_without_influence_may_be_chance() -> None:
    found = knob_importance(_with_knobs(40))
    assert next(k for k in found["knobs"] if k["name"] == "name")["p_value"] > 0.05


def test_too_few_trials_say_so() -> None:
    found = knob_importance(_with_knobs(3))
    assert found["method"] is None
    assert found["knobs"] == []
    assert "3 scored trials" in found["note"]


def test_importance_is_read_at_one_rung() -> None:
    """Tuned trials have better metrics; that must not be taken for the doing of a knob."""
    trials = [scored(i, 0.5, knobs={"a": float(i)}) for i in range(30)]
    trials += [
        replace(
            scored(30 + i, 0.9, rung=1, knobs={"a": 100.0 + i}),
            scores=(Score(rung=0, samples=0, metric=0.5, feasible=True, elapsed_s=0.0),),
        )
        for i in range(10)
    ]
    found = knob_importance(trials)
    assert found["rung"] == 0
    assert found["knobs"] == [], "at rung 0 all are alike"


# --- rejected ---------------------------------------------------------------------------------------------------------


def test_rejections_by_stage_and_margin() -> None:
    over = Violation(field="latency_ratio", limit=0.4, value=0.5, excess=0.1)
    gated = [
        Trial(number=i, state="gated", reason="never tuned", latency=latency(0.5), violations=(over,)) for i in (0, 1)
    ]
    trials = [
        *gated,
        Trial(number=2, state="gated", reason="does not apply to this model: no blocks"),
        Trial(number=3, state="failed", reason="gate: died"),
        scored(4, 0.7),
        scored(5, 0.8, rung=1),
        replace(scored(6, 0.9, rung=2), state="completed"),
    ]
    found = rejections(trials, winner=6)
    lines = {(line["stage"], line["why"]): line for line in found["lines"]}
    assert lines["gate", "over latency_ratio"]["count"] == 2
    assert lines["gate", "over latency_ratio"]["smallest_margin"] == pytest.approx(0.25)
    assert lines["gate", "does not apply to this model: no blocks"]["trials"] == [2]
    assert lines["rung 0", "outranked"]["smallest_margin"] == pytest.approx(0.1)
    assert lines["rung 1", "outranked"]["trials"] == [5]
    assert lines["failed", "gate: died"]["count"] == 1
    assert sum(line["count"] for line in found["lines"]) == len(trials) - 1
    assert found["lines"][-1]["stage"] == "failed"


def test_rejections_are_bounded() -> None:
    many = [Trial(number=i, state="failed", reason=f"reason {i % 90}") for i in range(1000)]
    found = rejections(many, None)
    assert len(found["lines"]) == LINES
    assert found["left_out"] == 90 - LINES
    assert all(len(line["trials"]) <= NAMED for line in found["lines"])


# --- seconds ----------------------------------------------------------------------------------------------------------


def test_seconds_spent_on_tuning_feasible_candidates() -> None:
    tune, shape = Stage(name="tune", seconds=80.0), Stage(name="shape", seconds=5.0)
    over = (Violation(field="size_ratio", limit=0.1, value=0.2, excess=0.1),)
    drop = (Violation(field="max_metric_drop", limit=0.1, value=0.2, excess=0.1),)
    good = scored(0, 0.8, stages=(shape, tune), elapsed_s=100.0)
    found = spending(
        [good, scored(1, 0.5, stages=(shape,), violations=drop)], [Stage(name="profile", seconds=10.0)], slots=2
    )
    assert found["total_s"] == 100.0
    assert found["feasible_tuning_share"] == 0.8
    assert found["slot_share"] == 0.4
    assert found["tuned_over_budget"] == []
    lossy = scored(2, 0.5, stages=(tune,), violations=drop)
    assert spending([lossy], [], slots=1)["tuned_over_budget"] == [], "a loss is known only after tuning"
    wrong = scored(3, 0.5, stages=(tune,), violations=over)
    found = spending([good, wrong], [], slots=1)
    assert found["tuned_over_budget"] == [3]
    assert found["feasible_tuning_s"] == 80.0
    late = scored(4, 0.5, stages=(tune, Stage(name="confirm_latency", seconds=1.0)), violations=over)
    found = spending([late], [], slots=1)
    assert (found["tuned_over_budget"], found["over_when_measured_longer"]) == ([], [4])


def test_a_nearest_miss_that_was_tuned_is_told_of() -> None:
    over = (Violation(field="size_ratio", limit=0.1, value=0.2, excess=0.1),)
    gated = Trial(number=1, state="gated", latency=latency(0.5), violations=over)
    answer = replace(gated, metric=0.7, fidelity=Fidelity(rung=0, samples=500))
    assert spending([gated], [], slots=1, winner=answer)["nearest_miss_tuned"] == 1
    assert spending([gated], [], slots=1, winner=scored(0, 0.8))["nearest_miss_tuned"] is None


# --- curves, predictions ----------------------------------------------------------------------------------------------


def test_curves_are_steps_of_what_was_known_then() -> None:
    trials = [scored(1, 0.6), scored(2, 0.5), scored(3, 0.8), scored(4, 0.7)]
    found = curves(trials, "metric")
    assert found["best"] == [[10.0, 0.6], [30.0, 0.8], [40.0, 0.8]]
    assert found["hypervolume"] == [[10.0, 0.1], [20.0, 0.2], [30.0, 0.3], [40.0, 0.4]]
    smaller = curves([scored(1, 0.6, ratio=0.4), scored(2, 0.5, ratio=0.5), scored(3, 0.8, ratio=0.3)], "size")
    assert smaller["best"] == [[10.0, 0.4], [30.0, 0.3]]
    assert smaller["best_of"] == "size_ratio"


def test_curves_are_bounded() -> None:
    found = curves([scored(i, i / 10_000) for i in range(5000)], "metric")
    assert len(found["best"]) == POINTS
    assert found["best"][-1] == [49_990.0, 0.4999]


def test_errors_of_the_cost_model() -> None:
    assert predictions([scored(0, 0.5)]) is None
    off = [
        scored(i, 0.5, ratio=0.5, predicted=Predicted(latency_ratio=0.5 * (1.4 if i < 20 else 1.1), size_ratio=0.5))
        for i in range(25)
    ]
    found = predictions(off)
    assert found is not None
    assert found["count"] == 25
    assert found["latency"]["median_error"] == pytest.approx(0.4)
    assert found["latency"]["late_median_error"] == pytest.approx(0.1)
    assert found["size"]["worst_error"] == 0.0


# --- layers, prices ---------------------------------------------------------------------------------------------------

HALF = Recipe((StructuredPruning(keep={"conv1": 16}), Distillation(), Quantization(layer_bits={"conv1": (4, 8)})))


def _sensitivity() -> Sensitivity:
    pruning = [
        Entry(technique="structured_pruning", name=g.name, level=level, loss=0.1 * (1 - level), metric=0.5)
        for g in network().groups
        for level in (0.75, 0.5, 0.25)
    ]
    bits = [Entry(technique="quantization", name="conv1", level=b, loss=0.01 * (9 - b), metric=0.5) for b in (8.0, 4.0)]
    return Sensitivity(pruning + bits)


def test_what_a_recipe_does_to_each_layer() -> None:
    profile, recipe = network(), HALF
    measured = [scored(i, 0.8, ratio=r, recipe=recipe.to_json()) for i, r in ((0, 0.3), (1, 0.3))]
    found = layer_decisions(profile, _sensitivity(), CostView(profile, measured, recipe), recipe)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [s.name for s in profile.shapes]
    assert found["left_out"] == 0
    assert rows["conv1"]["channels"] == [32, 16]
    assert rows["conv2"]["inputs"] == [32, 16]
    assert rows["conv1"]["bits"] == [32, 4]
    assert rows["conv1"]["bytes"] == [4 * (9 * 32 * 32 + 32), (9 * 32 * 16 + 16) // 2]
    assert rows["conv1"]["loss"] == pytest.approx(0.05 + 0.05), "half of the channels, and 4 bits"
    assert rows["conv2"]["loss"] == 0.0, "8 bits where they were not measured are not taken for 4"
    assert rows["conv0"]["loss"] == 0.0, "nothing was done to it"
    assert rows["head"]["bits"] == [32, 8]
    assert sum(row["latency_share"][0] for row in rows.values()) == pytest.approx(1.0, abs=1e-3)
    assert sum(row["latency_share"][1] for row in rows.values()) == pytest.approx(1.0, abs=1e-3)
    assert rows["conv2"]["latency_ms"][1] < rows["conv3"]["latency_ms"][1]


def test_prices_along_the_front() -> None:
    profile = network()
    trials = [
        scored(0, 0.80, ratio=0.40, recipe=HALF.to_json()),
        scored(1, 0.78, ratio=0.30, recipe=HALF.to_json()),
        scored(2, 0.84, ratio=0.50, recipe=HALF.to_json()),
        scored(3, 0.70, ratio=0.20, recipe=HALF.to_json()),
        scored(4, 0.79, ratio=0.3999, recipe=HALF.to_json()),
    ]
    found = prices(trials[0], trials, spec(), profile, None, CostView(profile, trials, HALF))
    assert found["latency"]["measured"]["cheaper"]["trial"] == 1, "trial 4 costs the same, within the noise"
    assert found["latency"]["measured"]["cheaper"]["per_unit"] == pytest.approx(0.02 / 0.1)
    assert found["latency"]["measured"]["dearer"] == {
        "trial": 2,
        "cost": 0.5,
        "metric": 0.84,
        "per_unit": pytest.approx(0.4),
    }
    assert found["size"]["measured"]["dearer"]["per_unit"] == pytest.approx(0.04 / 100)
    assert found["latency"]["predicted"] == []
    assert found["worth_of_a_nat"] is None


# --- all of it --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    coordinator = Coordinator(spec(search={"max_seconds": 1200, "parallel": 2, "max_trials": 60}))
    simulate(coordinator, Network())
    coordinator.book.settle()
    assert coordinator.profile is not None
    book = coordinator.book
    return explanation(
        coordinator.spec,
        coordinator.profile,
        coordinator.sensitivity,
        book.all,
        book.front,
        ranked(book.all, "metric")[0],
        coordinator.common_stages,
    )


def test_a_search_explains_itself(told: dict[str, Any]) -> None:
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["version"] == 1
    assert told["importance"]["knobs"]
    assert len(told["layers"]["rows"]) == 7
    assert told["layers"]["measurements"] > 3
    assert any(line["stage"] == "gate" for line in told["rejected"]["lines"])
    assert told["spending"]["tuned_over_budget"] == []
    volumes = [value for _, value in told["curves"]["hypervolume"]]
    assert volumes[-1] == pytest.approx(told["front"]["hypervolume"], abs=1e-5)
    assert all(member["adds"] >= 0 for member in told["front"]["members"])


def test_a_looser_limit_is_foretold_to_lose_less(told: dict[str, Any]) -> None:
    """In the made-up network the loss of metric is a known multiple of what sensitivity measures."""
    worth = told["prices"]["worth_of_a_nat"]
    assert worth["trials"] >= 4
    assert worth["rank_correlation"] > 0
    predicted = told["prices"]["latency"]["predicted"]
    assert [p["cost"] for p in predicted] == sorted(p["cost"] for p in predicted)
    losses = [p["loss"] for p in predicted]
    assert losses == sorted(losses, reverse=True)
    assert predicted[0]["metric_change"] < 0 < predicted[-1]["metric_change"]
