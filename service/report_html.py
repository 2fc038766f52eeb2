"""The report of a job as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.

Every value goes through the template's escaping; every section is left out when its part of the report is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from service import wording
from service.report_explanation import explanation_view
from service.report_front import front_drawing
from service.report_previous import previous_in_words

Json = Mapping[str, Any]

FRONT_ROWS = 100


def render(job: dict[str, Any], trials: list[dict[str, Any]], report: dict[str, Any]) -> str:
    """job and trials: as the API shows them. report: what the search wrote; each of its keys may be missing or null."""
    winner: Json = report.get("winner") or {}
    baseline: Json = report.get("baseline") or job.get("baseline") or {}
    spec: Json = job.get("spec") or {}
    best = {**(job.get("best") or {}), **_best_of(winner)}
    groups: Sequence[Json] = report.get("groups") or ()
    on_front = [t for t in trials if t.get("on_front") and t.get("latency")]
    front_rows = sorted(on_front, key=lambda t: t["latency"]["ratio"])
    return _template().render(
        job=job,
        spec=spec,
        report=report,
        winner=winner,
        baseline=baseline,
        feasible=job.get("outcome") == "feasible",
        recipe=wording.recipe(winner.get("recipe"), groups),
        rows=_comparison(wording.metric_name(job), baseline, winner, report.get("test") or {}),
        previous=previous_in_words(job.get("previous"), wording.metric_name(job)),
        budget=wording.budget_lines(spec.get("budget"), baseline, best),
        violations=[wording.violation(v) for v in winner.get("violations") or best.get("violations") or ()],
        limits=report.get("limits") or (),
        groups=groups,
        told=explanation_view(report, wording.metric_name(job)),
        heat=_heat(report.get("sensitivity") or {}),
        stages=_stages(report.get("stages"), trials),
        counts=report.get("counts") or Counter(str(t.get("state")) for t in trials),
        reasons=Counter(str(t["reason"]) for t in trials if t.get("reason")).most_common(12),
        front=front_drawing(trials, baseline, spec.get("budget"), winner.get("trial")),
        front_rows=front_rows[:FRONT_ROWS],
        front_hidden=max(0, len(front_rows) - FRONT_ROWS),
        environment=_facts(report.get("environment")),
        kernels=_facts(winner.get("kernels")),
        left_out=_facts(report.get("left_out")),
        finished=_moment(job.get("finished_at")),
        words=wording,
        metric_name=wording.metric_name(job),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _moment(value: str | None) -> str:
    """`2026-01-05 10:06 UTC`; the service writes UTC only."""
    return "" if not value else datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M UTC")


def _best_of(winner: Json) -> dict[str, Any]:
    """The winner in the words of a job's `best`."""
    latency = winner.get("latency") or {}
    found = {
        "metric": winner.get("metric"),
        "latency_ms": latency.get("p50_ms"),
        "latency_ratio": latency.get("ratio"),
        "size_bytes": winner.get("size_bytes"),
        "size_ratio": winner.get("size_ratio"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _comparison(metric: str, baseline: Json, winner: Json, test: Json) -> list[tuple[str, str, str, str]]:
    """(what, uncompressed, winner, change); rows of which nothing is known are left out.

    Times of the uncompressed model are those of the winner's own paired measurement where it has them.
    """
    latency, paired = winner.get("latency") or {}, winner.get("baseline_latency") or {}
    test_after = winner.get("test_metric") if winner.get("test_metric") is not None else test.get("winner_metric")
    p50, p90 = paired.get("p50_ms", baseline.get("latency_ms")), paired.get("p90_ms", baseline.get("p90_ms"))
    candidates = [
        _metrics(f"{_capital(metric)}, test", test.get("baseline_metric"), test_after, test.get("difference_error")),
        _metrics(f"{_capital(metric)}, validation", baseline.get("metric"), winner.get("metric"), None),
        ("Latency, p50", p50, latency.get("p50_ms"), wording.milliseconds, _ratio_with_interval(latency)),
        ("Latency, p90", p90, latency.get("p90_ms"), wording.milliseconds, ""),
        *(
            (name, baseline.get(key), winner.get(key), form, _share(baseline.get(key), winner.get(key)))
            for name, key, form in (
                ("Size of the file", "size_bytes", wording.file_size),
                ("Multiply-adds", "macs", wording.count),
                ("Parameters", "parameters", wording.count),
            )
        ),
    ]
    return [
        (name, form(before), form(after), change)
        for name, before, after, form, change in candidates
        if before is not None or after is not None
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _metrics(
    name: str, before: float | None, after: float | None, error: float | None
) -> tuple[str, float | None, float | None, Callable[[float | None], str], str]:
    """error: standard error of the difference."""
    change = "" if before is None or after is None else f"{after - before:+.4f}"
    if change and error is not None:
        change += f" (standard error {error:.4f})"
    return name, before, after, wording.metric, change


def _ratio_with_interval(latency: Json) -> str:
    if latency.get("ratio") is None:
        return ""
    interval = latency.get("ratio_ci")
    text = wording.ratio(latency["ratio"])
    return f"{text} (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else text


def _share(before: float | None, after: float | None) -> str:
    return "" if not before or after is None else wording.ratio(after / before)


def _heat(sensitivity: Mapping[str, Mapping[str, Mapping[str, Json]]]) -> list[dict[str, Any]]:
    """One table per technique: layers down, levels across.

    Shades are of one scale for all tables, the square root of loss / worst loss, so that small losses show too.
    """
    found = [
        cell.get("loss") for layers in sensitivity.values() if layers for c in layers.values() for cell in c.values()
    ]
    worst = max((float(loss) for loss in found if loss is not None), default=0.0)

    def shaded(row: Mapping[str, Json], level: str) -> dict[str, Any]:
        loss = (row.get(level) or {}).get("loss")
        if loss is None:
            return {"text": wording.NONE, "shade": 0}
        share = (max(0.0, float(loss)) / worst) ** 0.5 if worst > 0 else 0.0
        return {"text": f"{loss:.4f}", "shade": round(85 * share)}

    tables = []
    for technique, layers in sensitivity.items():
        levels = list(dict.fromkeys(str(level) for row in (layers or {}).values() for level in row))
        rows = [(name, [shaded(row, level) for level in levels]) for name, row in (layers or {}).items()]
        if rows:
            tables.append({"technique": technique.replace("_", " "), "levels": levels, "lines": rows})
    return tables


def _stages(given: Sequence[Json] | None, trials: Sequence[Json]) -> list[dict[str, Any]]:
    """Seconds by stage, longest first; hits: how many of its runs were found in the cache.

    The search's own account covers all trials; without one it is made from the trials.
    """
    inside = [stage for trial in trials for stage in trial.get("stages") or ()]
    found: dict[str, dict[str, Any]] = {}
    for row in given or inside:
        name = str(row.get("name"))
        entry = found.setdefault(name, {"name": name.replace("_", " "), "seconds": 0.0, "runs": 0, "hits": 0})
        entry["seconds"] += float(row.get("seconds") or 0.0)
        entry["runs"] += int(row.get("calls", 1))
        entry["hits"] += int(row.get("cached") or 0)
    ordered = sorted(found.values(), key=lambda e: -e["seconds"])
    longest = max((e["seconds"] for e in ordered), default=0.0)
    return [{**e, "share": 100 * e["seconds"] / longest if longest else 0.0} for e in ordered]


def _facts(values: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """(name, value) in words: underscores become spaces, lists are joined, unknowns are left out."""
    return [
        (name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
        for name, value in (values or {}).items()
        if value is not None
    ]
