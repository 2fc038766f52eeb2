"""`bantam compress MODEL --recipe FILE`: one recipe, one model, no search. Needs no running service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from compressors.errors import InvalidRecipe
from compressors.recipe import Recipe
from service.cli_options import REFUSED, JsonOption, complain
from service.cli_processes import become
from service.job_file import BadJobFile, read_job

DEFAULT_OUTPUT = Path("model.onnx")
Paths = Annotated[list[str] | None, typer.Option("--model", help="NAME=FILE.pt2: a teacher, student or copy.")]


def compress(
    model: Annotated[Path, typer.Argument(metavar="MODEL.pt2", help="A program saved by torch.export.save.")],
    recipe: Annotated[Path, typer.Option("--recipe", help="Steps as YAML or JSON; see docs/techniques.md.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the compressed model goes.")] = DEFAULT_OUTPUT,
    train: Annotated[
        Path | None, typer.Option(help="Rows to calibrate and tune on: parquet, npz or safetensors.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Rows to score on. Left out: a tenth of --train.")] = None,
    columns: Annotated[list[str] | None, typer.Option("--input", help="Column of each model input, in order.")] = None,
    target: Annotated[str | None, typer.Option(help="Column with the labels.")] = None,
    task: Annotated[str, typer.Option(help="What the model is for; see GET /v1/tasks.")] = "classification",
    job: Annotated[
        Path | None, typer.Option(help="A job file instead of the options above: its data, task and target count.")
    ] = None,
    models: Paths = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Cores to compute with.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Apply a recipe to a model, write the result, and compare the two."""
    try:
        steps = read_job(recipe)
        Recipe.from_json(steps)
        request = {
            "model": _existing("MODEL", model),
            "recipe": steps,
            "output": str(output),
            "models": dict(_named(item) for item in models or ()),
            "seed": seed,
            "threads": threads,
            "json": as_json,
            **(_from_job(job) if job is not None else _from_options(train, test, columns, target, task)),
        }
    except (BadJobFile, InvalidRecipe) as error:
        complain(error)
        raise typer.Exit(REFUSED) from error
    become("service.compress", json.dumps(request))


def _existing(field: str, path: Path) -> str:
    if not path.is_file():
        raise BadJobFile(f"{field}={str(path)!r}: no such file; correct the path")
    return str(path.resolve())


def _named(item: str) -> tuple[str, str]:
    name, _, path = item.partition("=")
    if not name.isidentifier() or not path:
        raise BadJobFile(f"--model {item!r}: must be NAME=FILE.pt2, with a name made of letters, digits and _")
    return name, _existing(f"--model {name}", Path(path))


def _from_options(
    train: Path | None, test: Path | None, columns: list[str] | None, target: str | None, task: str
) -> dict[str, Any]:
    if train is None:
        given = [n for n, v in (("--test", test), ("--input", columns), ("--target", target)) if v]
        if given:
            raise BadJobFile(f"{given[0]} without --train: name the rows that they are columns of")
        return {"datasets": {}, "spec": None}
    missing = [n for n, v in (("--input", columns), ("--target", target)) if not v]
    if missing:
        raise BadJobFile(f"--train without {missing[0]}: name the column")
    data: dict[str, Any] = {"train": "train", "inputs": columns, "target": target}
    datasets = {"train": _existing("--train", train)}
    if test is not None:
        data["test"], datasets["test"] = "test", _existing("--test", test)
    return {"datasets": datasets, "spec": {"data": data, "task": task}}


def _from_job(path: Path) -> dict[str, Any]:
    document = read_job(path)
    data = document.get("data")
    if not isinstance(data, dict):
        raise BadJobFile(f"{path}: data is missing; name train, inputs and target")
    datasets = {}
    for role in ("train", "validation", "test"):
        if data.get(role) is not None:
            found = path.parent / str(data[role])
            datasets[role] = _existing(f"data.{role}", found if found.is_file() else Path(str(data[role])))
    spec = {key: document[key] for key in ("task", "target") if key in document}
    return {"datasets": datasets, "spec": {**spec, "data": {**data, **{role: role for role in datasets}}}}
