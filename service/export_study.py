"""Writes a job's trials as an Optuna study: python -m service.export_study JOB --output study.db.

The service is named by BANTAM_URL and BANTAM_TOKEN. The study has three objectives (metric up, latency ratio and size
ratio down); a trial that was rejected before it had a metric is a pruned one. Budget excesses become constraints.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from service.cli_options import FAILED, REFUSED, UNREACHABLE, complain, default_url
from service.client import Client
from service.client_errors import ClientError, ServiceUnreachable

OBJECTIVES: Mapping[str, Literal["maximize", "minimize"]] = {
    "metric": "maximize",
    "latency_ratio": "minimize",
    "size_ratio": "minimize",
}
Knob = bool | int | float | str
Json = Mapping[str, Any]


def knobs_of(trial: Json) -> dict[str, Knob]:
    """The sampler's parameters under dotted names; lists become JSON text, nulls are left out."""
    flat: dict[str, Knob] = {}

    def put(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                put(f"{name}.{key}" if name else str(key), inner)
        elif isinstance(value, bool | int | float | str):
            flat[name] = value
        elif value is not None:
            flat[name] = json.dumps(value, sort_keys=True)

    put("", trial.get("knobs") or {})
    return flat


def distributions_of(rows: Sequence[Mapping[str, Knob]]) -> dict[str, BaseDistribution]:
    """One distribution per parameter, as wide as what was tried: the ledger keeps values, not ranges."""
    values: dict[str, list[Knob]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {name: _distribution(found) for name, found in values.items()}


def _distribution(values: Sequence[Knob]) -> BaseDistribution:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return CategoricalDistribution(sorted(set(values), key=lambda v: (type(v).__name__, str(v))))
    if all(isinstance(v, int) for v in numbers):
        return IntDistribution(int(min(numbers)), int(max(numbers)))
    return FloatDistribution(float(min(numbers)), float(max(numbers)))


def frozen(trial: Json, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A trial in Optuna's terms. user_attrs keep what Optuna has no word for."""
    knobs = knobs_of(trial)
    values = [trial.get("metric"), (trial.get("latency") or {}).get("ratio"), trial.get("size_ratio")]
    known = all(value is not None for value in values)
    finished = TrialState.COMPLETE if known else TrialState.PRUNED
    state = TrialState.FAIL if trial["state"] == "failed" else finished
    kept = ("number", "state", "reason", "origin", "recipe", "size_bytes", "macs", "parameters", "fidelity", "feasible")
    return create_trial(
        state=state,
        values=[float(v) for v in values if v is not None] if state is TrialState.COMPLETE else None,
        params=dict(knobs),
        distributions={name: distributions[name] for name in knobs},
        user_attrs={f"bantam_{name}": trial[name] for name in kept if trial.get(name) is not None},
        constraints={v["field"]: float(v["excess"]) for v in trial.get("violations") or ()},
    )


def write_study(trials: Sequence[Json], storage: BaseStorage, name: str) -> optuna.Study:
    """Running trials are left out. Raises DuplicatedStudyError if the storage has a study of this name."""
    done = [t for t in trials if t["state"] != "running"]
    study = optuna.create_study(storage=storage, study_name=name, directions=list(OBJECTIVES.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the names of the objectives are an experiment of Optuna
        study.set_metric_names(list(OBJECTIVES))
    distributions = distributions_of([knobs_of(t) for t in done])
    study.add_trials([frozen(t, distributions) for t in done])
    return study


def open_storage(path: Path) -> BaseStorage:
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        return RDBStorage(f"sqlite:///{path}")
    return JournalStorage(JournalFileBackend(str(path)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bantam export-study", description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--output", type=Path, default=Path("study.db"))
    parser.add_argument("--study-name")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with Client(os.environ.get("BANTAM_URL") or default_url(), os.environ.get("BANTAM_TOKEN")) as client:
            newest = client.jobs(limit=1) if options.job == "last" else ()
            job_id = str(newest[0]["id"]) if newest else options.job
            trials = client.all_trials(job_id)
    except ServiceUnreachable as error:
        complain(error)
        return UNREACHABLE
    except ClientError as error:
        complain(error)
        return REFUSED
    name = options.study_name or f"bantam-{job_id}"
    try:
        study = write_study(trials, open_storage(options.output), name)
    except DuplicatedStudyError:
        complain(f"{options.output} holds a study {name!r} already; give another --output or --study-name")
        return FAILED
    print(f"wrote {len(study.trials)} trials to {options.output} as study {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
