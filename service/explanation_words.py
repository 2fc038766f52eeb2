"""A report's `explanation` in words and rows for people. Pure functions of JSON; every key may be missing or null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service import wording

Json = Mapping[str, Any]

CHANCE = 0.05  # probability above which a correlation is not told from chance
LOOSER = 1.1  # the step that prices are told for: ten per cent

_METHODS = {
    "fanova": "share of the variance that the knob explains alone (functional analysis of variance)",
    "rank_correlation": "strength of the rank correlation, for want of trials",
}


def importance_rows(importance: Json) -> list[dict[str, Any]]:
    """{name, share (0..100), direction, chance} per knob."""
    rows = []
    for knob in importance.get("knobs") or ():
        correlation, p_value = knob.get("correlation"), knob.get("p_value")
        direction = "" if correlation is None else "more is better" if correlation > 0 else "less is better"
        by_chance = p_value is not None and p_value > CHANCE
        rows.append(
            {
                "name": str(knob.get("name")).replace("_", " "),
                "share": 100 * float(knob.get("importance") or 0.0),
                "direction": "may be chance" if by_chance else direction,
            }
        )
    return rows


def importance_note(importance: Json, metric: str) -> str:
    method, trials, rung = importance.get("method"), importance.get("trials"), importance.get("rung")
    if method is None:
        return f"No importance is given: {importance.get('note') or 'too few trials'}."
    after = "without tuning" if not rung else f"after rung {rung}"
    return (
        f"What decided {metric} {after}, over {trials} trials: {_METHODS.get(str(method), method)}. "
        f"“May be chance”: shuffled metrics correlate as strongly in more than {CHANCE:.0%} of cases."
    ).replace("5%", "5 %")


def rejection_lines(rejected: Json, metric: str) -> list[str]:
    """`12 × rung 0: outranked, the closest by 0.0011 of top-1 accuracy`, by stage."""
    lines = []
    for line in rejected.get("lines") or ():
        text = f"{line.get('count')} × {line.get('stage')}: {line.get('why')}"
        margin = line.get("smallest_margin")
        if margin is not None:
            of_metric = line.get("why") == "outranked"
            closest = f"{wording.metric(margin)} of {metric}" if of_metric else f"{100 * margin:.1f} % of the limit"
            text += f", the closest by {closest}"
        numbers = line.get("trials") or ()
        more = int(line.get("count") or 0) - len(numbers)
        if numbers:
            named = ", ".join(map(str, numbers)) + (f" and {more} more" if more > 0 else "")
            text += f" (trial{'s' if len(numbers) > 1 else ''} {named})"
        lines.append(text)
    if rejected.get("left_out"):
        lines.append(f"and {rejected['left_out']} rarer reasons")
    return lines


def price_lines(prices: Json, metric: str) -> list[str]:
    """What was paid for the last millisecond and kilobyte, and what more of them would buy."""
    worth = prices.get("worth_of_a_nat") or {}
    lines = []
    for name, what in (("latency", "latency"), ("size", "size")):
        axis = prices.get(name) or {}
        lines += _measured(axis, metric)
        foretold = _foretold(axis, what, worth, metric)
        lines += [foretold] if foretold else []
    return lines


def _amount(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}"


def _measured(axis: Json, metric: str) -> list[str]:
    measured, here, unit = axis.get("measured") or {}, axis.get("cost"), str(axis.get("unit"))
    found = []
    for row, words in ((measured.get("cheaper"), "less"), (measured.get("dearer"), "more")):
        if row and here is not None and None not in (row.get("cost"), row.get("metric"), row.get("per_unit")):
            gap = abs(row["cost"] - here)
            change = row["per_unit"] * (row["cost"] - here)
            found.append(
                f"Measured: trial {row.get('trial')} takes {_amount(gap, unit)} {words} and has a {metric} of "
                f"{wording.metric(row['metric'])} ({change:+.4f}), {abs(row['per_unit']):.3g} per {unit}."
            )
    return found


def _foretold(axis: Json, what: str, worth: Json, metric: str) -> str | None:
    points, here, unit = axis.get("predicted") or (), axis.get("cost"), str(axis.get("unit"))
    if not points or not here:
        return None
    looser = min(points, key=lambda p: abs(float(p["cost"]) / here - LOOSER))
    more = float(looser["cost"]) - here
    if more <= 0:
        return None
    start = f"Predicted: {100 * more / here:.0f} % more {what} ({_amount(more, unit)})"
    own = min(points, key=lambda p: abs(float(p["cost"]) - here))
    change, error = looser.get("metric_change"), worth.get("error")
    if change is None or error is None:
        fall = f"from {own.get('loss'):.3g} to {looser.get('loss'):.3g} nats"
        return f"{start} lowers the predicted loss {fall}; too few trials say what that is in {metric}."
    if abs(change) <= error:
        return f"{start} would change {metric} by less than the prediction's own typical error of {error:.2g}."
    return (
        f"{start} would buy about {change:+.4f} of {metric} ({change / more:.3g} per {unit}), "
        f"give or take {error:.2g}, as read off {worth.get('trials')} tuned trials: a prediction, no measurement."
    )


def prediction_line(predictions: Json) -> str | None:
    """How far off the cost model was."""
    latency, size = predictions.get("latency") or {}, predictions.get("size") or {}
    if latency.get("median_error") is None:
        return None
    text = (
        f"The cost model foretold the latency of {predictions.get('count')} candidates with a median error of "
        f"{100 * latency['median_error']:.1f} % (worst {100 * (latency.get('worst_error') or 0):.0f} %)"
    )
    if latency.get("late_median_error") is not None:
        text += f", {100 * latency['late_median_error']:.1f} % after the first twenty"
    if size.get("median_error") is not None:
        text += f"; the size with {100 * size['median_error']:.1f} %"
    return text + ". It only chose where to measure: every figure here is measured."


def spending_lines(spending: Json) -> list[str]:
    """Where the seconds went, and that none went to what could not be an answer."""
    share, total = spending.get("feasible_tuning_share"), spending.get("total_s")
    if share is None or total is None:
        return []
    lines = [
        f"{100 * share:.1f} % of the evaluators' {wording.seconds(total)} went into tuning candidates that had been "
        f"measured to be within the limits on latency and size ({wording.seconds(spending.get('feasible_tuning_s'))})."
    ]
    wrong, late = spending.get("tuned_over_budget") or (), spending.get("over_when_measured_longer") or ()
    lines.append(f"Trials tuned though over budget: {len(wrong)}{_numbers(wrong)}.")
    if late:
        lines.append(
            f"Within the limits when they were tuned, over them when measured longer: {len(late)}{_numbers(late)}."
        )
    if spending.get("nearest_miss_tuned") is not None:
        lines.append(
            f"Nothing could meet the budget; trial {spending['nearest_miss_tuned']}, the nearest miss, was tuned a "
            "little once the search was over, so that the answer is worth having."
        )
    return lines


def _numbers(numbers: Sequence[int], most: int = 8) -> str:
    if not numbers:
        return ""
    named = ", ".join(map(str, numbers[:most])) + (", …" if len(numbers) > most else "")
    return f" (trial{'s' if len(numbers) > 1 else ''} {named})"


def layer_rows(layers: Json) -> list[dict[str, Any]]:
    """What was done to each layer, as text; share: of the winner's latency, 0..100, as the cost model has it."""
    return [_layer(row) for row in layers.get("rows") or ()]


def _layer(row: Json) -> dict[str, Any]:
    def pair(key: str) -> tuple[Any, Any]:
        before, after = [*(row.get(key) or ()), None, None][:2]
        return before, after

    channels, inputs, bits = pair("channels"), pair("inputs"), pair("bits")
    latency, size, share = pair("latency_ms"), pair("bytes"), pair("latency_share")
    loss = row.get("loss")
    return {
        "name": str(row.get("name")),
        "channels": "removed" if row.get("dropped") else _change(channels, str),
        "inputs": _change(inputs, str),
        "bits": _change(bits, str),
        "latency": _change(latency, lambda v: f"{v:.3g}"),
        "bytes": _change(size, wording.file_size),
        "share": 100 * float(share[1] or 0.0),
        "loss": wording.NONE if loss is None else f"{loss:.3g}",
    }


def _change(pair: tuple[Any, Any], form: Any) -> str:
    """`32 → 16`, or `32` where nothing changed."""
    before, after = pair
    if before is None:
        return wording.NONE
    if after is None or before == after:
        return str(form(before))
    return f"{form(before)} → {form(after)}"


def layers_summary(layers: Json) -> list[str]:
    """Which layers paid most, and which were spared."""
    rows = [r for r in layers.get("rows") or () if (r.get("latency_ms") or [None, None])[1] is not None]
    saved = sorted(rows, key=lambda r: r["latency_ms"][1] - r["latency_ms"][0])[:3]
    lines = []
    if saved and saved[0]["latency_ms"][0] > saved[0]["latency_ms"][1]:
        told = ", ".join(f"{r['name']} ({r['latency_ms'][0] - r['latency_ms'][1]:.3g} ms)" for r in saved)
        lines.append(f"Most of the predicted time was saved in {told}.")
    felt = sorted((r for r in rows if r.get("loss")), key=lambda r: -r["loss"])[:3]
    if felt:
        told = ", ".join(f"{r['name']} ({r['loss']:.3g} nats)" for r in felt)
        lines.append(f"The decisions that sensitivity priced highest, each taken alone: {told}.")
    return lines
