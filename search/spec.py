"""The job specification: what a client asks for, validated field by field. Imports neither torch nor optuna."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from compressors.errors import InvalidData
from compressors.recipe import STEPS
from compressors.tasks import describe, descriptions

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Reference = Annotated[
    str, StringConstraints(min_length=1, max_length=207), Field(description="an id, or name@latest: its newest upload")
]
# What the sampler turns by knobs of its own; every other technique states its levels.
SAMPLED = ("structured_pruning", "distillation", "quantization")
TECHNIQUES: tuple[str, ...] = tuple(s.technique for s in STEPS if s.technique in SAMPLED or s.levels_given(("other",)))


def _known_technique(name: str) -> str:
    if name not in TECHNIQUES:
        near = difflib.get_close_matches(name, TECHNIQUES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{name!r} is no technique that can be searched; {hint}known are {list(TECHNIQUES)}")
    return name


Technique = Annotated[str, AfterValidator(_known_technique), Field(json_schema_extra={"enum": list(TECHNIQUES)})]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputSpec(_Strict):
    """One model input read from one column; `scale` multiplies the decoded values, `pad_to` pads token ids."""

    column: Identifier
    scale: float | None = Field(None, gt=0)
    pad_to: int | None = Field(None, ge=1, le=100_000)


class DataSpec(_Strict):
    train: Reference
    inputs: Annotated[list[Identifier | InputSpec], Field(min_length=1)]
    target: Identifier
    group: Identifier | None = Field(None, description="integer column; metrics such as ndcg@10 compare rows within it")
    ignore_index: int | None = Field(
        None, description="target value that does not count, in tasks with one answer per position"
    )
    validation: Reference | None = None
    validation_rows: tuple[int, int] | None = Field(
        None, description="half-open range [start, stop) of train; leaves tuning"
    )
    validation_fraction: float | None = Field(None, gt=0, lt=1, description="stratified share of train, seeded")
    test: Reference | None = Field(None, description="without it the winner is confirmed on a further split of train")

    @property
    def columns(self) -> tuple[InputSpec, ...]:
        return tuple(c if isinstance(c, InputSpec) else InputSpec(column=c) for c in self.inputs)

    @model_validator(mode="after")
    def _one_validation(self) -> DataSpec:
        given = [k for k in ("validation", "validation_rows", "validation_fraction") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} contradict each other; keep one")
        if self.validation_rows is not None:
            start, stop = self.validation_rows
            if not 0 <= start < stop:
                raise ValueError(f"validation_rows={[start, stop]}: needs 0 <= start < stop")
        return self


class TargetSpec(_Strict):
    runtime: Literal["onnxruntime"] = "onnxruntime"
    device: Literal["cpu"] = "cpu"
    threads: int = Field(1, ge=1, le=256)
    batch_size: int = Field(1, ge=1, le=4096)


class Budget(_Strict):
    """Limits that a winner must meet. `size_mb` is 10^6 bytes; ratios are against the uncompressed model."""

    latency_ms: float | None = Field(None, gt=0)
    latency_ratio: float | None = Field(None, gt=0)
    size_mb: float | None = Field(None, gt=0)
    size_ratio: float | None = Field(None, gt=0)
    max_metric_drop: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _no_contradiction(self) -> Budget:
        for absolute, ratio in (("latency_ms", "latency_ratio"), ("size_mb", "size_ratio")):
            if getattr(self, absolute) is not None and getattr(self, ratio) is not None:
                raise ValueError(f"{absolute} and {ratio} limit the same thing; keep one")
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError(f"empty; give at least one of {', '.join(type(self).model_fields)}")
        return self


# Those of `search.samplers`, which is not imported here: a specification is read without Optuna. A test holds both.
Strategy = Literal["auto", "cmaes", "gp", "nsga2", "random", "solver", "tpe"]


class SearchSpec(_Strict):
    max_trials: int = Field(40, ge=1, le=100_000)
    max_seconds: float = Field(1800, gt=0, le=30 * 86400)
    parallel: int = Field(2, ge=1, le=1024)
    seed: int = Field(0, ge=0, lt=2**31)
    strategy: Strategy = "auto"
    executor: Literal["local"] = "local"


class RetrySpec(_Strict):
    """What happens when an attempt ends for a reason outside the job: a lost worker, a database away, a full disk."""

    max_attempts: int = Field(
        5, ge=1, le=100, description="in a row without a trial ended between them; then the job has failed"
    )
    delay_s: float = Field(
        10, ge=0, le=3600, description="pause after the first such attempt, doubled after each; none for a lost worker"
    )


ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Objective = Literal["metric", "latency", "size", "pareto"]


class JobSpec(_Strict):
    """A model, data and a budget. See docs/glossary.md for the words."""

    name: Annotated[str, StringConstraints(max_length=200)] = ""
    priority: int = Field(0, ge=-1000, le=1000, description="jobs of a higher one are taken from the queue first")
    model: Reference
    models: dict[ModelName, Reference] = Field(
        {}, description="further models by the names under which techniques refer to them: students, teachers"
    )
    task: str = Field("classification", json_schema_extra=lambda schema: schema.update(enum=[*sorted(descriptions())]))
    metric: Identifier | None = Field(None, description="another metric of the task than its first; see GET /v1/tasks")
    data: DataSpec
    target: TargetSpec = TargetSpec()
    budget: Budget
    objective: Objective = "metric"
    techniques: list[Technique] | None = Field(None, description="left out: all that the target can use")
    search: SearchSpec = SearchSpec()
    retry: RetrySpec = RetrySpec()

    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str) -> str:
        try:
            describe(value)
        except InvalidData as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("metric")
    @classmethod
    def _metric_of_the_task(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "task" in info.data:
            try:
                describe(info.data["task"]).metric(value)
            except InvalidData as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("techniques")
    @classmethod
    def _once_each(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not value:
            raise ValueError("empty; leave it out for all, or name at least one")
        if value is not None and len(set(value)) != len(value):
            raise ValueError(f"{value}: each technique once")
        return value

    @field_validator("objective")
    @classmethod
    def _objective_has_a_limit(cls, value: Objective, info: ValidationInfo) -> Objective:
        budget = info.data.get("budget")
        if value in ("latency", "size") and budget is not None and budget.max_metric_drop is None:
            raise ValueError(f"{value!r} needs budget.max_metric_drop: it finds the smallest model that keeps it")
        return value

    @property
    def allowed(self) -> tuple[str, ...]:
        """Techniques that the search may use, in the order a recipe applies them."""
        return tuple(t for t in TECHNIQUES if self.techniques is None or t in self.techniques)
