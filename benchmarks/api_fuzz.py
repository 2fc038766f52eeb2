"""Random and hostile requests against the whole API: `python -m benchmarks.api_fuzz --examples 100`.

schemathesis reads the OpenAPI document, makes requests that fit it and requests that do not, follows its links, and
holds every answer against the document with all its checks. Each store is run with the admin token and without any.
Prints the number of calls and whatever was found; exits with 1 if anything was.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from fastapi import FastAPI
from schemathesis import HookContext
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from benchmarks.postgres import postgres_server
from compressors.descriptions import (
    ColumnDescription,
    DatasetDescription,
    LayerDescription,
    ModelDescription,
    TensorDescription,
)
from compressors.errors import InvalidData, UnsafeArchive
from search.records import Trial
from search.spec import JobSpec
from service.app import create_app
from service.auth import ensure_token
from service.blobs import BlobStore
from service.catalogue import Catalogue, identifier
from service.database import Database
from service.intake import Intake
from service.jobs import Jobs
from service.leases import Leases
from service.ledger import SqlLedger
from service.limits import Limits
from service.migrate import upgrade
from service.settings import Settings
from service.tables import DEFAULT_PROJECT

HOST = "testserver"  # what schemathesis sends
SHA256 = "ab" * 32
MODEL_ID, DATASET_ID = (identifier(prefix, DEFAULT_PROJECT, SHA256) for prefix in ("m", "d"))
# A specification may fit its schema and still contradict itself or name what is not there: 422 says so.
ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "422", "429"]
REJECTED = ["400", "401", "403", "404", "405", "409", "413", "415", "422", "429"]


@dataclass
class Findings:
    """calls: requests that were answered. statuses: of the answers. failures: what a check found, by operation."""

    calls: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.failures and not self.errors


def fuzz(app: FastAPI, token: str | None, *, examples: int, seed: int, phases: Sequence[str]) -> Findings:
    """phases: of examples, coverage, fuzzing, stateful. examples: random requests per operation."""
    document: dict[str, Any] = {
        "seed": seed,
        "continue-on-failure": True,
        "generation": {"max-examples": examples, "database": "none", "no-shrink": True},
        "phases": {name: {"enabled": name in phases} for name in ("examples", "coverage", "fuzzing", "stateful")},
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ACCEPTED},
            "negative_data_rejection": {"expected-statuses": REJECTED},
        },
        "max-stream-events": 5,
    }
    if token is not None:
        document["auth"] = {"openapi": {"token": {"bearer": token}}}
    else:
        document["headers"] = {"Authorization": "Bearer bantam_t0_wrong"}
        document["generation"]["with-security-parameters"] = False
        # Nothing of a stranger's data is accepted, whatever it looks like.
        document["checks"]["ignored_auth"] = {"enabled": False}
    config = SchemathesisConfig.from_dict(document)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    schema.hook("map_body")(_with_ids)
    found = Findings()
    for event in from_schema(schema).execute():
        _note(event, found)
    return found


def _with_ids(context: HookContext, body: Any) -> Any:
    """Puts in what chance would never find: the model and dataset that are there, a cron expression, a time zone."""
    if not isinstance(body, dict):
        return body
    for name, value in (("cron", "0 3 * * *"), ("timezone", "Europe/Berlin"), ("url", "https://example.org/hook")):
        if _is_id(body.get(name)):
            body[name] = value
    for spec in (body, body.get("job")):
        if isinstance(spec, dict) and _is_id(spec.get("model")) and isinstance(spec.get("data"), dict):
            spec["model"] = MODEL_ID
            if isinstance(spec.get("models"), dict):
                spec["models"] = {name: MODEL_ID if _is_id(key) else key for name, key in spec["models"].items()}
            for role in ("train", "validation", "test"):
                if _is_id(spec["data"].get(role)):
                    spec["data"][role] = DATASET_ID
    return body


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 200


def _note(event: events.EngineEvent, found: Findings) -> None:
    if isinstance(event, events.NonFatalError):
        found.errors.append(f"{event.label}: {event.value}")
    elif isinstance(event, events.FatalError):
        found.errors.append(repr(event.exception))
    elif isinstance(event, events.ScenarioFinished):
        recorder = event.recorder
        for key, interaction in recorder.interactions.items():
            found.calls += 1
            if interaction.response is not None:
                found.statuses[interaction.response.status_code] += 1
            for check in recorder.checks.get(key, ()):
                if check.failure_info is not None:
                    failure = check.failure_info.failure
                    sample = check.failure_info.code_sample
                    text = f"{check.name}: {failure.title}: {failure.message}\n    {sample}"
                    found.failures.setdefault(failure.operation or recorder.label, []).append(text)


# -- what is fuzzed ----------------------------------------------------------------------------------------------------

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
    columns=(ColumnDescription(name="x", kind="float", dtype="float32", shape=(4,), minimum=0.0, maximum=1.0),),
)


def light_intake() -> Intake:
    """Takes every second file, without a process for each."""

    def model(source: Path, destination: Path) -> ModelDescription:
        if source.read_bytes()[0] % 2:
            raise UnsafeArchive("not a zip archive; export the model with torch.export.save")
        destination.write_bytes(source.read_bytes())
        return MODEL

    def dataset(path: Path) -> DatasetDescription:
        if path.read_bytes()[0] % 2:
            raise InvalidData("neither parquet nor npz nor safetensors; write it again")
        return DATASET

    return Intake(model=model, dataset=dataset, fit=lambda spec, model, data: [])


def settings_for(folder: Path, database_url: str | None = None) -> Settings:
    return Settings(
        data_dir=folder,
        database_url=database_url,
        allowed_hosts=HOST,
        events_poll_s=0.01,
        events_max_s=0.03,
        max_schedules=10_000,
        max_webhooks=10_000,
        max_queued_jobs=10_000,
    )


def seed_rows(settings: Settings) -> None:
    """A finished job with all that belongs to it, and one that waits: so that reading finds something."""
    database = Database(settings.database)
    limits = Limits.of(settings)
    catalogue = Catalogue(database, DEFAULT_PROJECT, limits)
    model, _ = catalogue.add_model(name="net", sha256=SHA256, size=9, blob=SHA256, description=MODEL)
    dataset, _ = catalogue.add_dataset(name="rows", sha256=SHA256, size=9, description=DATASET)
    document = {
        "model": model.id,
        "data": {"train": dataset.id, "inputs": ["x"], "target": "x"},
        "budget": {"size_ratio": 0.5},
    }
    jobs = Jobs(database, DEFAULT_PROJECT)
    jobs.create(JobSpec.model_validate(document), limits)
    lease = Leases(database).claim("fuzz", 600)
    assert lease is not None
    ledger = SqlLedger(database, BlobStore(settings.blobs_dir), lease)
    for number in range(3):
        ledger.put_trial(Trial(number=number, state="completed", metric=0.5, feasible=True))
    ledger.put_front([1])
    ledger.log("info", "done")
    for which in ("winner", "baseline"):
        (settings.data_dir / which).write_bytes(b"onnx")
        ledger.put_artifact(which, settings.data_dir / which)
    ledger.finish("succeeded", outcome="feasible", reason=None, report={"outcome": "feasible"})
    jobs.create(JobSpec.model_validate(document), limits)
    database.close()


@contextmanager
def stores(names: Sequence[str], folder: Path) -> Iterator[dict[str, Settings]]:
    with ExitStack() as stack:
        made = {}
        for name in names:
            url = None if name == "sqlite" else stack.enter_context(postgres_server(durable=False))
            (folder / name).mkdir()
            made[name] = settings_for(folder / name, url)
        yield made


def main(arguments: Sequence[str] | None = None) -> int:
    logging.disable(logging.ERROR)  # the refusals are what is asked for
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api_fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="random requests per operation and run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stores", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--phases", nargs="+", default=["examples", "coverage", "fuzzing", "stateful"])
    options = parser.parse_args(arguments)
    clean = True
    with tempfile.TemporaryDirectory(prefix="bantam-fuzz-") as folder, stores(options.stores, Path(folder)) as made:
        for name, settings in made.items():
            upgrade(settings)
            seed_rows(settings)
            app = create_app(settings, light_intake())
            for who, token in (("admin", ensure_token(settings.token_file)), ("stranger", None)):
                began = time.monotonic()
                found = fuzz(app, token, examples=options.examples, seed=options.seed, phases=options.phases)
                clean = clean and found.clean
                _print(name, who, found, time.monotonic() - began)
    return 0 if clean else 1


def _print(store: str, who: str, found: Findings, seconds: float) -> None:
    statuses = {status: found.statuses[status] for status in sorted(found.statuses)}
    figures = {"store": store, "token": who, "calls": found.calls, "statuses": statuses}
    print(json.dumps({**figures, "failures": sum(map(len, found.failures.values())), "seconds": round(seconds, 1)}))
    for operation, texts in sorted(found.failures.items()):
        print(f"\n{operation}: {len(texts)} failures, the first of each check:")
        for text in {text.partition(":")[0]: text for text in reversed(texts)}.values():
            print(f"  {text}")
    for error in found.errors:
        print(f"error: {error}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
