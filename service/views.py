"""What the API answers with: one model per resource, named as in the contract."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Row

from compressors.descriptions import ColumnDescription, LayerDescription, TensorDescription
from compressors.errors import InvalidData
from compressors.tasks import describe
from search.records import Baseline, Best, JobState, Outcome, Progress, Trial
from service.catalogue import StoredDataset, StoredModel
from service.versions import Version

MAX_REV = 2**63 - 1  # what a database's big integer holds


def moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class VersionView(BaseModel):
    """A name and the number of an upload under it, from 1 on."""

    name: str
    number: int
    uploaded_at: datetime

    @classmethod
    def of(cls, version: Version | None) -> VersionView | None:
        if version is None:
            return None
        at = datetime.fromtimestamp(version.uploaded_at, UTC)
        return cls(name=version.name, number=version.number, uploaded_at=at)


class ResolvedView(BaseModel):
    """What `name@latest` stood for when the job was submitted."""

    name: str
    version: int
    id: str
    uploaded_at: datetime


class ModelView(BaseModel):
    """bytes: size of the uploaded file.

    version: the last one that it was uploaded as; in a list by name, the one that is listed.
    """

    id: str
    name: str
    sha256: str
    format: str
    parameters: int
    bytes: int
    inputs: list[TensorDescription]
    outputs: list[TensorDescription]
    layers: list[LayerDescription]
    batch_is_dynamic: bool
    created_at: datetime
    version: VersionView | None

    @classmethod
    def of(cls, stored: StoredModel, version: Version | None = None) -> ModelView:
        d = stored.description
        return cls(
            id=stored.id,
            name=stored.name,
            sha256=stored.sha256,
            format=d.format,
            parameters=d.parameters,
            bytes=stored.bytes,
            inputs=list(d.inputs),
            outputs=list(d.outputs),
            layers=list(d.layers),
            batch_is_dynamic=d.batch_is_dynamic,
            created_at=datetime.fromtimestamp(stored.created_at, UTC),
            version=VersionView.of(version),
        )


class DatasetView(BaseModel):
    id: str
    name: str
    sha256: str
    format: str
    bytes: int
    rows: int
    columns: list[ColumnDescription]
    created_at: datetime
    version: VersionView | None

    @classmethod
    def of(cls, stored: StoredDataset, version: Version | None = None) -> DatasetView:
        return cls(
            id=stored.id,
            name=stored.name,
            sha256=stored.sha256,
            format=stored.description.format,
            bytes=stored.bytes,
            rows=stored.description.rows,
            columns=list(stored.description.columns),
            created_at=datetime.fromtimestamp(stored.created_at, UTC),
            version=VersionView.of(version),
        )


class PageView(BaseModel):
    next_cursor: str | None = Field(description="give it as `cursor` for the next page; null on the last one")


class ModelList(PageView):
    items: list[ModelView]


class DatasetList(PageView):
    items: list[DatasetView]


class AttemptView(BaseModel):
    """One worker's time with a job. reason: why it ended; null while it goes on."""

    worker: str
    started_at: datetime
    ended_at: datetime | None
    reason: str | None

    @classmethod
    def of(cls, attempt: dict[str, Any]) -> AttemptView:
        times = {"started_at": moment(attempt["started_at"]), "ended_at": moment(attempt["ended_at"])}
        return cls(**{**attempt, **times})


class JobView(BaseModel):
    """`directive` says what the owner has asked for and the coordinator has yet to do: run, pause or cancel.

    metric_name: what people call the metric of the job's task; higher is better. resolved: by field, the names in the
    specification as it was submitted; `spec` has their ids. previous: a scheduled job against the schedule's last good
    one before it, made when it has succeeded. attempts: the newest ones, oldest first.
    retry_at: a queued job whose last attempt ended for a reason outside it waits until then.
    """

    id: str
    name: str
    state: JobState
    reason: str | None
    outcome: Outcome | None
    directive: str
    priority: int
    spec: dict[str, Any]
    resolved: dict[str, ResolvedView]
    metric_name: str
    schedule: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    rev: int
    progress: Progress
    baseline: Baseline | None
    best: Best | None
    previous: dict[str, Any] | None
    attempts: list[AttemptView]
    retry_at: datetime | None

    @classmethod
    def of(cls, row: Row[Any]) -> JobView:
        return cls(
            id=row.id,
            name=row.name,
            state=row.state,
            reason=row.reason,
            outcome=row.outcome,
            directive=row.directive,
            priority=row.priority,
            spec=row.spec,
            resolved=_resolved(row.resolved),
            metric_name=_metric_name(row.spec),
            schedule=row.schedule_id,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
            started_at=moment(row.started_at),
            finished_at=moment(row.finished_at),
            rev=row.rev,
            progress=Progress(**row.progress) if row.progress else Progress(stage="queued"),
            baseline=Baseline(**row.baseline) if row.baseline else None,
            best=row.best,
            previous=row.previous,
            attempts=[AttemptView.of(attempt) for attempt in row.attempts or ()],
            retry_at=moment(row.retry_at),
        )

    def etag(self) -> str:
        return f'"{self.rev}"'


def _resolved(document: dict[str, Any] | None) -> dict[str, ResolvedView]:
    return {
        field: ResolvedView(**{**version, "uploaded_at": datetime.fromtimestamp(version["uploaded_at"], UTC)})
        for field, version in (document or {}).items()
    }


def _metric_name(spec: dict[str, Any]) -> str:
    try:
        return describe(spec["task"]).metric(spec.get("metric")).title
    except (InvalidData, KeyError):  # the package that its task came with is gone
        return "metric"


class JobList(PageView):
    items: list[JobView]


@dataclass(frozen=True, kw_only=True)
class TrialView(Trial):
    """A trial, whole. rev: the job's revision at its last change."""

    rev: int


class TrialPage(BaseModel):
    items: list[TrialView]
    next_rev: int = Field(description="give it as `after_rev` for the changes after these")


class Front(BaseModel):
    items: list[TrialView]


class LogLine(BaseModel):
    """id: the job's revision at this line."""

    id: int
    at: datetime
    level: str
    message: str
    trial: int | None

    @classmethod
    def of(cls, row: Row[Any]) -> LogLine:
        at = datetime.fromtimestamp(row.at, UTC)
        return cls(id=row.seq, at=at, level=row.level, message=row.message, trial=row.trial)


class LogPage(BaseModel):
    items: list[LogLine]
    next: int = Field(description="give it as `after` for the lines after these")
