"""What this installation can do: techniques, targets, tasks."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from compressors.recipe import STEPS
from compressors.tasks import descriptions
from search.spec import TECHNIQUES, DataSpec, TargetSpec
from service.schemas import schema_of

router = APIRouter(tags=["catalog"])


class Entry(BaseModel):
    name: str
    summary: str
    parameters: dict[str, Any]


class Target(Entry):
    """version: of the runtime that is installed; null if it is not. techniques: what it can make use of."""

    runtime: str
    device: str
    version: str | None
    techniques: list[str]


class Metric(BaseModel):
    """needs_group: only with `data.group`."""

    name: str
    title: str
    summary: str
    needs_group: bool


class Task(Entry):
    """outputs, target: what the model returns and the target column holds. metric: the one that a job gets unless it
    names another; of all of them higher is better.
    """

    outputs: str
    target: str
    metric: str
    metrics: list[Metric]
    higher_is_better: bool = True


class Techniques(BaseModel):
    items: list[Entry]


class Targets(BaseModel):
    items: list[Target]


class Tasks(BaseModel):
    items: list[Task]


@router.get("/techniques")
def techniques() -> Techniques:
    """`parameters` is the JSON Schema of the technique's step in a recipe."""
    return Techniques(items=[Entry(name=s.technique, summary=s.summary, parameters=schema_of(s)) for s in STEPS])


@router.get("/targets")
def targets() -> Targets:
    """`parameters` is the JSON Schema of `target` in a job."""
    return Targets(
        items=[
            Target(
                name="onnxruntime-cpu",
                runtime="onnxruntime",
                device="cpu",
                summary="ONNX Runtime on this machine's processor; float32 and static int8",
                version=_installed("onnxruntime"),
                techniques=list(TECHNIQUES),
                parameters=schema_of(TargetSpec),
            )
        ]
    )


@router.get("/tasks")
def tasks() -> Tasks:
    """`parameters` is the JSON Schema of `data` in a job."""
    return Tasks(
        items=[
            Task(
                name=task.name,
                summary=task.summary,
                outputs=task.outputs,
                target=task.target,
                metric=task.metrics[0].name,
                metrics=[Metric(**asdict(metric)) for metric in task.metrics],
                parameters=schema_of(DataSpec),
            )
            for task in descriptions().values()
        ]
    )


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
