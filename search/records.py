"""Rows that the search writes and reads back: plain data with a JSON form, the same on every store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

TrialState = Literal["running", "completed", "gated", "stopped", "failed"]
JobState = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
Outcome = Literal["feasible", "nearest_miss"]


def _plain(value: Any) -> Any:
    """Records become dicts, tuples lists; a mapping is walked only if it holds records."""
    if is_dataclass(value):
        return {name: _plain(part) for name, part in vars(value).items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict) and any(is_dataclass(part) for part in value.values()):
        return {name: _plain(part) for name, part in value.items()}
    return value


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Paired measurement against the uncompressed model. ratio: candidate / baseline; ratio_ci: 95 % interval.

    repeats: timed runs. noisy: no quiet moment was found, and the ratio may be biased.
    """

    p50_ms: float
    p90_ms: float
    ratio: float
    ratio_ci: tuple[float, float]
    repeats: int
    noisy: bool = False


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One budget field that is missed. excess = value - limit, in the unit of the field."""

    field: str
    limit: float
    value: float
    excess: float


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Wall seconds of one stage of a trial; cached: its result was found, not computed."""

    name: str
    seconds: float
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """rung: 0 is the score without tuning. samples: training samples seen so far."""

    rung: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What the cost model said of a candidate before it was measured, relative to the uncompressed model."""

    latency_ratio: float
    size_ratio: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """One look at a trial's file: at the end of a rung, or when it was confirmed. The trial shows the last one.

    elapsed_s: of the job. hypervolume: of the job's front right after it, see `search.hypervolume`.
    """

    rung: int
    samples: int
    metric: float
    feasible: bool
    elapsed_s: float
    hypervolume: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate. States: running -> completed (top rung) | gated (never tuned) | stopped (not promoted) | failed.

    A stopped trial has a metric and may be promoted later: it then goes back to running. `knobs` are the sampler's
    parameters, enough to rebuild the study. `origin` says who proposed it ('int8 only', 'solver', 'tpe', …).
    elapsed_s: seconds that the job had run, over all its coordinators, when the trial last changed. hypervolume: of the
    job's front right after that change. scores: how the metric went from rung to rung, oldest first.
    """

    number: int
    state: TrialState
    reason: str | None = None
    origin: str = ""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    metric: float | None = None
    latency: Latency | None = None
    size_bytes: int | None = None
    size_ratio: float | None = None
    macs: int | None = None
    parameters: int | None = None
    feasible: bool | None = None
    violations: tuple[Violation, ...] = ()
    on_front: bool = False
    fidelity: Fidelity | None = None
    stages: tuple[Stage, ...] = ()
    worker: str | None = None
    artifact: str | None = None  # sha256 of the exported file in the stage cache
    elapsed_s: float | None = None
    hypervolume: float | None = None
    scores: tuple[Score, ...] = ()
    predicted: Predicted | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data. Shares `knobs` and `recipe` with the trial: copies of them would cost more than the rest."""
        return {name: _plain(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Trial:
        d = dict(document)
        if d.get("latency") is not None:
            d["latency"] = Latency(**{**d["latency"], "ratio_ci": tuple(d["latency"]["ratio_ci"])})
        if d.get("fidelity") is not None:
            d["fidelity"] = Fidelity(**d["fidelity"])
        d["violations"] = tuple(Violation(**v) for v in d.get("violations", ()))
        d["stages"] = tuple(Stage(**s) for s in d.get("stages", ()))
        if d.get("predicted") is not None:
            d["predicted"] = Predicted(**d["predicted"])
        d["scores"] = tuple(Score(**s) for s in d.get("scores", ()))
        return cls(**d)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The uncompressed model in the target runtime. metric: on the validation split."""

    metric: float
    latency_ms: float
    size_bytes: int
    macs: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best trial so far, as the job shows it. test_metric: only once confirmed."""

    trial: int
    metric: float
    latency_ms: float
    latency_ratio: float
    size_bytes: int
    size_ratio: float
    feasible: bool
    violations: tuple[Violation, ...] = ()
    test_metric: float | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """finished counts completed, gated, stopped and failed trials. planned: trials expected in all.

    stage: 'profile', 'cheap', 'sensitivity', 'search', 'confirm'.
    """

    stage: str
    finished: int = 0
    running: int = 0
    gated: int = 0
    planned: int = 0
    elapsed_s: float = 0.0
    eta_s: float | None = None
