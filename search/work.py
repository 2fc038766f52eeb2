"""Units of work that an executor runs, and their results: plain frozen data that cross process borders.

The coordinator makes works and takes results; the evaluator turns one into the other; the executor carries them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compressors.recipe import Recipe
from search.cost_prediction import Point
from search.feasibility import Limits
from search.layer_plan import LayerPlan
from search.profile import Profile
from search.records import Latency, Stage
from search.sensitivity import FULL_LEVEL, Entry, Sensitivity
from search.solver import Allocation, Scope, Subject

WHOLE = Scope()


@dataclass(frozen=True, kw_only=True)
class ProfileWork:
    """One look at the uncompressed model."""


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """history: plans of this model that earlier jobs measured on this target, by template."""

    profile: Profile
    stage: Stage
    history: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SensitivityWork:
    """Part `part` of `parts` of the groups, layers and blocks. levels: bits at which layers are looked at."""

    part: int
    parts: int
    levels: tuple[int, ...] = FULL_LEVEL


@dataclass(frozen=True, kw_only=True)
class Sensed:
    part: int
    entries: tuple[Entry, ...]
    stage: Stage


@dataclass(frozen=True, kw_only=True)
class GateWork:
    """Shape, export and measure a candidate that has not been trained.

    Without an `allocation` the recipe is taken as it is. With one, and `limits`, the solver decides what `scope` says,
    so that the measured cost meets the limits. start, pinned: as `Solver.solve` takes them. points: measurements of
    this model so far under recipes that differ in such decisions only, for the cost model.
    """

    trial: int
    recipe: Recipe
    allocation: Allocation | None = None
    scope: Scope = WHOLE
    start: LayerPlan | None = None
    pinned: frozenset[Subject] = frozenset()
    limits: Limits | None = None
    points: tuple[Point, ...] = ()
    sensitivity: Sensitivity | None = None


@dataclass(frozen=True, kw_only=True)
class Gated:
    """recipe: with all that was decided. attempts: plans that were measured. fits: whether the limits are met.
    predicted: (latency ratio, size ratio) that the cost model gave before the chosen plan was measured, if it did."""

    trial: int
    recipe: Recipe
    latency: Latency
    size_bytes: int
    macs: int
    parameters: int
    attempts: int
    fits: bool
    points: tuple[Point, ...]
    stages: tuple[Stage, ...]
    predicted: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreWork:
    """Tune a candidate from `start` to `stop` samples (not at all when they are equal), export it and score the file.

    seconds: time for tuning, from when the work begins; the run is cut there, well annealed. best: metric of the file
    that the candidate has so far, which stays if this one is worse.
    """

    trial: int
    recipe: Recipe
    rung: int
    start: int
    stop: int
    seconds: float | None = None
    best: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """metric: of the exported file, reloaded, on the validation split. metric_error: standard error of its difference
    from the uncompressed model, paired by row. samples: seen in all. speed: samples per second while tuning.
    artifact: path of the exported file, relative to the job's workspace."""

    trial: int
    rung: int
    metric: float
    metric_error: float
    samples: int
    speed: float | None
    size_bytes: int
    sha256: str
    artifact: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True)
class SoupWork:
    """Average tuned trials, given with their recipes, best first, into trial `trial`; the best one's recipe counts."""

    trial: int
    members: tuple[tuple[int, Recipe], ...]


@dataclass(frozen=True, kw_only=True)
class ConfirmWork:
    """Measure the winner's file once more, longer, and score it on the test split.

    rung, samples: how far it was tuned, for a workspace that lacks its file because another host has written it.
    """

    trial: int
    recipe: Recipe
    rung: int = 0
    samples: int = 0


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """agreement: share of rows on which the tuned PyTorch model and the file give the same answer; max_abs_error
    between their outputs. test_metric_error: standard error of the paired difference on the test split."""

    trial: int
    metric: float
    test_metric: float
    baseline_test_metric: float
    test_metric_error: float
    test_rows: int
    latency: Latency
    baseline_latency_ms: float
    baseline_p90_ms: float
    size_bytes: int
    sha256: str
    artifact: str
    max_abs_error: float
    agreement: float
    kernels: Mapping[str, int]
    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A work that raised or whose process died. retry: whether another try may help. refused: the recipe does not apply
    to the model (a technique for residual blocks, say, where there are none); no fault of anybody."""

    reason: str
    retry: bool = False
    refused: bool = False
    detail: Mapping[str, Any] | None = None


Work = ProfileWork | SensitivityWork | GateWork | ScoreWork | SoupWork | ConfirmWork
Result = Profiled | Sensed | Gated | Scored | Confirmed | Failed
