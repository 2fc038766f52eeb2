"""One recipe applied to one model, outside any search: what comes out, what it costs, and how good it is.

The rows are split as in a job. Nothing is chosen here, so the result is scored on the test split.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, fx

from compressors.artifact import build_artifact
from compressors.columns import describe_dataset
from compressors.errors import InvalidRecipe
from compressors.intake import read_model
from compressors.latency import measure
from compressors.onnx_export import export_onnx, serialize
from compressors.onnx_runtime import OnnxRuntime
from compressors.pipeline import run_recipe
from compressors.programs import Program, describe_layers, load_program, sample_inputs
from compressors.recipe import Recipe
from compressors.recipes.step import Step
from compressors.registry import Context
from compressors.runtime import Array
from search.fit import check_fit
from search.inputs import DatasetFile, JobInputs, ModelFile
from search.problems import Problem
from search.spec import JobSpec
from search.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Request:
    """model, models: .pt2 files; models by the names under which steps refer to them. spec: a job's specification whose
    data name entries of `datasets`; None: no data. folder: for copies and caches. threads: cores to compute with.
    """

    model: Path
    recipe: Recipe
    folder: Path
    spec: JobSpec | None = None
    datasets: Mapping[str, Path]
    models: Mapping[str, Path]
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models. metric: on the test split, None without data. latency_ms: median per batch."""

    size_bytes: int
    parameters: int
    macs: int
    latency_ms: float
    metric: float | None


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """content, baseline_content: the two files. ratio, ratio_ci: of the latencies, in alternating rounds; noisy: the
    machine was. metric_name, metric_error: of the difference (paired standard error). seconds: for all steps."""

    content: bytes
    baseline_content: bytes
    baseline: Side
    result: Side
    latency_ratio: float
    latency_ratio_ci: tuple[float, float]
    noisy: bool
    metric_name: str | None
    metric_error: float | None
    seconds: float


class DoesNotFit(Exception):
    """problems: why these data cannot be used with this model."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{p.field}: {p.message}" for p in problems))
        self.problems = problems


def compress(request: Request) -> Compressed:
    """Raises CompressorError for models, data and recipes that cannot be used, DoesNotFit for data of another model."""
    torch.set_num_threads(request.threads)
    check_needs(request)
    path = request.folder / "model.pt2"
    description = read_model(request.model, path)
    program = load_program(path)
    further = {name: _taken_in(source, request.folder / f"{name}.pt2") for name, source in request.models.items()}
    models = {name: load_program(file.path).module for name, file in further.items()}
    example = sample_inputs(program.description, 2, request.seed)
    draft = Context(example_inputs=example, seed=request.seed, models=models, original=program.module, draft=True)
    run_recipe(program.module, request.recipe, draft)  # what does not fit the model is refused before data are read
    bench: Workbench | None = None
    if request.spec is not None:
        bench = _workbench(request, request.spec, path, program, further)
        problems = check_fit(request.spec, description, {n: f.description for n, f in bench.inputs.datasets.items()})
        if problems:
            raise DoesNotFit(problems)
        context = bench.context
    else:
        context = replace(draft, draft=False)
    began = time.monotonic()
    model = run_recipe(program.module, request.recipe, context)
    content = serialize(build_artifact(model, context.example_inputs))
    seconds = time.monotonic() - began
    baseline_content = serialize(export_onnx(program.module, context.example_inputs))
    sides = ((program.module, baseline_content), (model, content))
    return _measured(request, bench, context.example_inputs, sides, seconds)


def check_needs(request: Request) -> None:
    """Raises InvalidRecipe, before anything is read, for a recipe that needs data where there are none."""
    if request.spec is None:
        needy = [s.technique for s in request.recipe.steps if _needs_data(s)]
        if needy:
            raise InvalidRecipe(f"{needy[0]} reads data and none are given; add training rows, their inputs and target")


def _needs_data(step: Step) -> bool:
    return step.uses_calibration() or step.uses_training()


def _taken_in(source: Path, destination: Path) -> ModelFile:
    description = read_model(source, destination)
    return ModelFile(path=destination, sha256=_fingerprint(source), description=description)


def _workbench(
    request: Request, spec: JobSpec, path: Path, program: Program, models: Mapping[str, ModelFile]
) -> Workbench:
    files = {
        name: DatasetFile(path=file, sha256=_fingerprint(file), description=describe_dataset(file))
        for name, file in request.datasets.items()
    }
    inputs = JobInputs(
        job_id="compress",
        spec=spec,
        model=ModelFile(path=path, sha256=_fingerprint(request.model), description=program.description),
        datasets=files,
        models=models,
        workspace=request.folder,
        cache=request.folder / "cache",
    )
    return Workbench(inputs, threads=request.threads)


def _fingerprint(path: Path) -> str:
    """Good for one run in a folder of its own."""
    return f"{path.stat().st_size}-{path.stat().st_mtime_ns}-{path.name}"


def _measured(
    request: Request,
    bench: Workbench | None,
    example: tuple[Tensor, ...],
    both: tuple[tuple[fx.GraphModule, bytes], tuple[fx.GraphModule, bytes]],
    seconds: float,
) -> Compressed:
    threads = 1 if request.spec is None else request.spec.target.threads
    runtime = OnnxRuntime()
    paths = []
    for name, (_, content) in zip(("baseline", "result"), both, strict=True):
        paths.append(request.folder / f"{name}.onnx")
        paths[-1].write_bytes(content)
    inputs = bench.latency_inputs if bench is not None else _one_row(example)
    latency = measure(runtime.load(paths[1], threads), runtime.load(paths[0], threads), inputs, seed=request.seed)
    metrics: list[float | None] = [None, None]
    error = None
    if bench is not None:
        baseline, result = (bench.evaluate(path, bench.splits.test, alone=True) for path in paths)
        metrics = [baseline.metric, result.metric]
        error = result.error_against(baseline.scores)
    times = (latency.baseline_p50_ms, latency.p50_ms)
    sides = [
        Side(
            size_bytes=len(content),
            parameters=sum(p.numel() for p in model.parameters()),
            macs=sum(layer.macs for layer in describe_layers(model, example)),
            latency_ms=time_ms,
            metric=metric,
        )
        for (model, content), time_ms, metric in zip(both, times, metrics, strict=True)
    ]
    return Compressed(
        content=both[1][1],
        baseline_content=both[0][1],
        baseline=sides[0],
        result=sides[1],
        latency_ratio=latency.ratio,
        latency_ratio_ci=latency.ratio_ci,
        noisy=latency.noisy,
        metric_name=None if bench is None else bench.task.metric_name,
        metric_error=error,
        seconds=seconds,
    )


def _one_row(example: tuple[Tensor, ...]) -> tuple[Array, ...]:
    return tuple(tensor[:1].numpy() for tensor in example)
