"""Numbers and recipes in words, the same on the command line and in reports. Pure functions of JSON rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NONE = "–"


def ratio(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}×"


def metric(value: float | None) -> str:
    """Four decimals; perplexities and errors may be far larger or smaller than a share."""
    if value is None:
        return NONE
    if abs(value) >= 1000:
        return f"{value:,.1f}"
    return f"{value:.2g}" if 0 < abs(value) < 0.00005 else f"{value:.4f}"


def metric_name(job: Mapping[str, Any]) -> str:
    """What the job's metric is called: `top-1 accuracy`."""
    return str(job.get("metric_name") or "metric")


def milliseconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.3f} ms" if value < 10 else f"{value:.1f} ms"


def file_size(value: float | None) -> str:
    """Decimal units, as `size_mb` in a budget: 1 MB is 10^6 bytes."""
    if value is None:
        return NONE
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.2f} {unit}" if limit > 1e3 else f"{value / limit:.1f} {unit}"
    return f"{value:.0f} B"


def count(value: float | None) -> str:
    if value is None:
        return NONE
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def recipe(document: Mapping[str, Any] | None, groups: Sequence[Mapping[str, Any]] = ()) -> str:
    """`pruned 9 groups (keeps 45 %), distilled on 20 k samples, int8`. groups: [{name, size}] turn counts to shares."""
    if not document:
        return NONE
    words = [w for w in (_step(step, groups) for step in document.get("steps", ())) if w]
    return ", ".join(words) or "as uploaded"


# Fields that say how much a step does; format.js has the same list.
TELLING = (
    "bits",
    "weight_bits",
    "format",
    "sparsity",
    "ratio",
    "energy",
    "n",
    "m",
    "count",
    "copies",
    "factor",
    "model",
)


def _step(step: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> str:
    match step.get("technique"):
        case "structured_pruning":
            keep = step.get("keep") or {}
            if not keep:
                return ""
            sizes = {g.get("name"): g.get("size") for g in groups}
            known = [name for name in keep if sizes.get(name)]
            text = f"pruned {len(keep)} group{'s' if len(keep) != 1 else ''}"
            if known:
                share = sum(keep[n] for n in known) / sum(float(sizes[n] or 0) for n in known)
                text += f" (keeps {share:.0%})"
            return text
        case "distillation":
            samples = step.get("samples") or 0
            return f"distilled on {count(samples)} samples" if samples else ""
        case "quantization":
            left = len(step.get("float_layers") or ())
            weights, activations = step.get("weight_bits", step.get("bits", 8)), step.get("activation_bits", 8)
            text = f"int{weights}" if weights == activations else f"W{weights}A{activations}"
            return text + (f" ({left} layers in float32)" if left else "")
        case other:
            told = [f"{name.replace('_', ' ')} {step[name]}" for name in TELLING if step.get(name) is not None]
            return str(other).replace("_", " ") + (f" ({', '.join(told)})" if told else "")


def violation(row: Mapping[str, Any]) -> str:
    """`latency_ratio 0.110 is above 0.030 by 0.080`."""
    return f"{row.get('field')} {_g(row.get('value'))} is above {_g(row.get('limit'))} by {_g(row.get('excess'))}"


def _g(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else NONE


Direction = Literal["within", "over", "unknown"]


@dataclass(frozen=True, kw_only=True)
class BudgetLine:
    """One limit of the budget against a value. used: value / limit, so 1.0 is exactly on the limit."""

    field: str
    label: str
    limit: float
    value: float | None
    limit_text: str
    value_text: str

    @property
    def used(self) -> float | None:
        if self.value is None:
            return None
        return self.value / self.limit if self.limit > 0 else (0.0 if self.value <= 0 else float("inf"))

    @property
    def state(self) -> Direction:
        if self.value is None:
            return "unknown"
        return "within" if self.value <= self.limit else "over"


def budget_lines(
    budget: Mapping[str, Any] | None, baseline: Mapping[str, Any] | None, best: Mapping[str, Any] | None
) -> list[BudgetLine]:
    """Every limit that the budget names, with the best candidate's value where one is known."""
    best, baseline = best or {}, baseline or {}
    size = best.get("size_bytes")
    before, after = baseline.get("metric"), best.get("metric")
    values = {
        "latency_ms": (best.get("latency_ms"), milliseconds),
        "latency_ratio": (best.get("latency_ratio"), ratio),
        "size_mb": (None if size is None else size / 1e6, lambda v: file_size(None if v is None else v * 1e6)),
        "size_ratio": (best.get("size_ratio"), ratio),
        "max_metric_drop": (None if before is None or after is None else max(0.0, before - after), metric),
    }
    labels = {
        "latency_ms": "latency",
        "latency_ratio": "latency ratio",
        "size_mb": "size",
        "size_ratio": "size ratio",
        "max_metric_drop": "metric drop",
    }
    return [
        BudgetLine(
            field=field,
            label=labels[field],
            limit=float(limit),
            value=values[field][0],
            limit_text=values[field][1](float(limit)),
            value_text=values[field][1](values[field][0]),
        )
        for field, limit in (budget or {}).items()
        if limit is not None and field in values
    ]
