"""Rows that the tests of the service start from."""

from __future__ import annotations

import hashlib
from typing import Any

from compressors.descriptions import (
    ColumnDescription,
    DatasetDescription,
    LayerDescription,
    ModelDescription,
    TensorDescription,
)
from search.records import Fidelity, Latency, Score, Stage, Trial, Violation
from search.spec import JobSpec
from service.catalogue import Catalogue
from service.database import Database
from service.jobs import Jobs
from service.limits import Limits
from service.settings import Settings
from service.tables import DEFAULT_PROJECT

MODEL = ModelDescription(
    format="pt2",
    parameters=42,
    inputs=(TensorDescription(name="x", shape=(None, 4), dtype="float32"),),
    outputs=(TensorDescription(name="y", shape=(None, 2), dtype="float32"),),
    layers=(LayerDescription(name="fc", kind="Linear", parameters=42, macs=40),),
    batch_is_dynamic=True,
)
DATASET = DatasetDescription(
    format="npz",
    rows=10,
    columns=(
        ColumnDescription(name="x", kind="float", dtype="float32", shape=(4,), minimum=0.0, maximum=1.0),
        ColumnDescription(name="label", kind="integer", dtype="int64", shape=(), distinct=2),
    ),
)


LIMITS = Limits.of(Settings())


def jobs_of(database: Database, project: str = DEFAULT_PROJECT) -> Jobs:
    return Jobs(database, project)


def add_inputs(database: Database, project: str = DEFAULT_PROJECT) -> tuple[str, str]:
    """Ids of a model and a dataset; the same ones at each call."""
    catalogue = Catalogue(database, project, LIMITS)
    digest = hashlib.sha256(b"row").hexdigest()
    model, _ = catalogue.add_model(name="net", sha256=digest, size=9, blob=digest, description=MODEL)
    dataset, _ = catalogue.add_dataset(name="rows", sha256=digest, size=9, description=DATASET)
    return model.id, dataset.id


def make_spec(database: Database, name: str = "edge", project: str = DEFAULT_PROJECT, **change: Any) -> JobSpec:
    model, dataset = add_inputs(database, project)
    return JobSpec.model_validate(
        {
            "name": name,
            "model": model,
            "data": {"train": dataset, "inputs": ["x"], "target": "label"},
            "budget": {"latency_ratio": 0.5},
            **change,
        }
    )


def add_job(database: Database, name: str = "edge", project: str = DEFAULT_PROJECT, **change: Any) -> str:
    row = jobs_of(database, project).create(make_spec(database, name, project, **change), LIMITS)
    job_id: str = row.id
    return job_id


def make_trial(number: int, **change: Any) -> Trial:
    """A trial with every field set."""
    fields: dict[str, Any] = {
        "number": number,
        "state": "completed",
        "origin": "solver",
        "knobs": {"keep": 0.5},
        "recipe": {"version": 1, "steps": []},
        "metric": 0.9,
        "latency": Latency(p50_ms=1.0, p90_ms=1.2, ratio=0.4, ratio_ci=(0.38, 0.42), repeats=50),
        "size_bytes": 1000,
        "size_ratio": 0.25,
        "macs": 40,
        "parameters": 42,
        "feasible": True,
        "violations": (Violation(field="size_ratio", limit=0.2, value=0.25, excess=0.05),),
        "fidelity": Fidelity(rung=1, samples=500),
        "stages": (Stage(name="shape", seconds=0.1), Stage(name="tune", seconds=3.0, cached=True)),
        "worker": "w",
        "artifact": "ab" * 32,
        "elapsed_s": 12.5,
        "hypervolume": 0.25,
        "scores": (Score(rung=1, samples=500, metric=0.9, feasible=True, elapsed_s=12.5, hypervolume=0.25),),
    }
    return Trial(**{**fields, **change})
