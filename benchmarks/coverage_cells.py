"""Cells of the coverage table: what is checked of one family, and what the checks share.

A column is a name and a function from a family's context to a result. A check that cannot apply says why; one that
fails, by its result or by an exception, fails the table. `technique_column` makes a column of any step of a recipe.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from benchmarks.families import Family, export_pt2
from compressors.archive import check_archive
from compressors.artifact import build_artifact
from compressors.errors import CompressorError, InvalidRecipe, UnsupportedModel
from compressors.onnx_export import serialize
from compressors.onnx_runtime import OnnxRuntime
from compressors.pipeline import run_recipe
from compressors.programs import Program, load_program, relative_error
from compressors.recipe import STEPS, Quantization, Recipe, Step, WeightOnlyQuantization, step_from_json
from compressors.registry import Context
from compressors.tasks import TaskOptions, describe, task
from compressors.training import Batch, Training

EXACT = 1e-5
PARITY = 1e-4
# Error of a compressed network, relative to the spread of the outputs, above which nothing is left of it. Rounding is
# amplified by random weights: a trained network of the same shape stays far below.
USABLE = 0.5
CALIBRATION_BATCHES, CALIBRATION_ROWS = 8, 16
ROWS = 64
TRAINING_ROWS = 128


@dataclass(frozen=True)
class CellResult:
    """text: the figure to print. reason: why it failed, or why it does not apply (`applies` is False then)."""

    ok: bool
    text: str
    reason: str = ""
    applies: bool = True


class FamilyContext:
    """One family on its way through the columns; each part is made when a column first asks for it."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family = family
        self.folder = folder

    @functools.cached_property
    def model(self) -> nn.Module:
        return self.family.build()

    @functools.cached_property
    def program(self) -> Program:
        """Out of a checked .pt2. Raises what the checks and the reading raise."""
        path = export_pt2(self.family.name, self.folder / f"{self.family.name}.pt2")
        check_archive(path)
        return load_program(path)

    @property
    def module(self) -> fx.GraphModule:
        return self.program.module

    @functools.cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """ROWS rows that neither tracing nor calibration has seen."""
        return self.family.inputs(ROWS, seed=99)

    @functools.cached_property
    def outputs(self) -> list[Tensor]:
        """The original network's."""
        return run(self.model, self.inputs)

    @functools.cached_property
    def float_bytes(self) -> int:
        return len(serialize(build_artifact(self.module, self.context.example_inputs)))

    @functools.cached_property
    def context(self) -> Context:
        """For techniques: calibration inputs, and rows whose targets are the original's own answers."""
        kind = task(self.family.task, describe(self.family.task).complete(TaskOptions()))
        inputs = self.family.inputs(TRAINING_ROWS, seed=7)
        (answers,) = run(self.model, inputs)
        target = torch.from_numpy(kind.as_target(as_stored(self.family.task, answers)))

        def fetch(positions: npt.NDArray[np.int64]) -> Batch:
            at = torch.from_numpy(positions)
            return tuple(tensor[at] for tensor in inputs), target[at], answers[at]

        def calibration() -> Iterator[tuple[Tensor, ...]]:
            for seed in range(CALIBRATION_BATCHES):
                yield self.family.inputs(CALIBRATION_ROWS, seed=1000 + seed)

        return Context(
            example_inputs=self.family.inputs(2),
            calibration=calibration,
            training=Training(task=kind, rows=TRAINING_ROWS, fetch=fetch),
            original=self.module,
            models={"other": self.module},
        )


@dataclass(frozen=True)
class Column:
    """title: heading in the table. check: raises CompressorError where it fails."""

    name: str
    title: str
    check: Callable[[FamilyContext], CellResult]


def parameters(context: FamilyContext) -> CellResult:
    return CellResult(True, f"{sum(p.numel() for p in context.model.parameters()):,}")


def intake(context: FamilyContext) -> CellResult:
    """The modules against the original network, at another batch size than the traced one."""
    return _exact(worst_error(run(context.module, context.inputs), context.outputs))


def export(context: FamilyContext) -> CellResult:
    """The float artifact in ONNX Runtime, reloaded from disk, against the original network."""
    produced, _ = context_artifact(context, context.module, "float")
    return _exact(worst_error(produced, context.outputs))


def technique_column(
    step: Step, *, before: Sequence[Step] = (), title: str | None = None, largest_error: float | None = USABLE
) -> Column:
    """`step`, after those that it needs in front of it, exported and reloaded: size against the float artifact, and
    error in its own artifact.

    largest_error: relative to the spread of the original's outputs; None: whatever it is. The file must answer like the
    changed network in torch, but for number formats of activations, which only the file has. A step that refuses a
    network (InvalidRecipe, UnsupportedModel) does not apply to it.
    """

    def check(context: FamilyContext) -> CellResult:
        try:
            changed = run_recipe(context.module, Recipe((*before, step)), context.context)
        except (InvalidRecipe, UnsupportedModel) as refusal:
            return CellResult(True, "-", str(refusal), applies=False)
        produced, size = context_artifact(context, changed, step.technique)
        if step.technique not in _INTEGERS:
            parity = worst_error(produced, run(changed, context.inputs))
            if not parity <= PARITY:
                return CellResult(False, f"{parity:.1e}", f"the file differs from the network by {parity:.2g}")
        error = max(spread_error(p, o) for p, o in zip(produced, context.outputs, strict=True))
        text = f"{size / context.float_bytes:.2f}x  {error:.3f}"
        if largest_error is not None and not error <= largest_error:
            return CellResult(False, text, f"error {error:.3g} of the outputs' spread, above {largest_error:g}")
        return CellResult(bool(np.isfinite(error)), text, "" if np.isfinite(error) else "outputs are not finite")

    return Column(step.technique, title or step.technique.replace("_", " "), check)


BASICS: tuple[Column, ...] = (
    Column("parameters", "parameters", parameters),
    Column("intake", "intake error", intake),
    Column("export", "ONNX error", export),
)
# Fields other than the defaults under which each technique is asked: mild ones, for the weights are random and a large
# change would say nothing about correctness.
_FIELDS: dict[str, dict[str, Any]] = {
    "structured_pruning": {"ratio": 0.25},
    "student": {"model": "other"},
    "width_scaling": {"factor": 0.5},
    "low_rank": {"ratio": 0.8, "kinds": ("linear", "convolution", "recurrent", "embedding")},
    "distillation": {"samples": 128, "learning_rate": 1e-3},
    "weight_averaging": {"samples": 128, "learning_rate": 1e-3},
    "unstructured_pruning": {"sparsity": 0.3},
    "gradual_pruning": {"sparsity": 0.3, "samples": 256, "learning_rate": 1e-3},
    "l0_pruning": {"samples": 256, "learning_rate": 1e-3},
    "weight_sharing": {"bits": 6},
    "centroid_tuning": {"samples": 128, "learning_rate": 1e-4},
    "quantization_aware_training": {"samples": 128, "learning_rate": 1e-4},
    "weight_only_quantization": {"bits": 6},
    "power_of_two": {"bits": 5},
}
# What a repair repairs.
_BEFORE: dict[str, tuple[Step, ...]] = {
    "bias_correction": (WeightOnlyQuantization(bits=6),),
    "quantization_aware_training": (Quantization(),),
}
# Their rounding of activations exists in the file alone.
_INTEGERS = frozenset({"quantization", "dynamic_quantization", "quantization_aware_training"})
# What removes or replaces much leaves little of random weights, and statistics that are estimated anew are far from
# made-up ones; others must stay close to the original.
_CLOSE = frozenset(
    {
        *_INTEGERS,
        *("student", "distillation", "weight_only_quantization", "float_format", "weight_sharing"),
        *("batch_norm_folding", "cross_layer_equalization", "bias_correction", "centroid_tuning"),
    }
)


def technique_columns() -> tuple[Column, ...]:
    """A column for every technique that is declared."""
    columns = []
    for kind in STEPS:
        name = kind.technique
        step = step_from_json({"technique": name, **_FIELDS.get(name, {})})
        before = _BEFORE.get(name, ())
        if name == "centroid_tuning":
            before = (step_from_json({"technique": "weight_sharing", "bits": 6}),)
        largest = USABLE if name in _CLOSE else None
        columns.append(technique_column(step, before=before, largest_error=largest))
    return tuple(columns)


COLUMNS: tuple[Column, ...] = (*BASICS, *technique_columns())


def checked(column: Column, context: FamilyContext) -> CellResult:
    """The column's result; an exception is a failure with its message."""
    try:
        return column.check(context)
    except CompressorError as error:
        return CellResult(False, "failed", f"{type(error).__name__}: {error}")
    except Exception as error:  # one cell must not take the table down
        return CellResult(False, "crashed", f"{type(error).__name__}: {error}")


def context_artifact(context: FamilyContext, model: fx.GraphModule, name: str) -> tuple[list[Tensor], int]:
    """What the model's file answers in ONNX Runtime, and its bytes."""
    path = context.folder / f"{context.family.name}-{name}.onnx"
    path.write_bytes(serialize(build_artifact(model, context.context.example_inputs)))
    answers = OnnxRuntime().load(path, 1).run([tensor.numpy() for tensor in context.inputs])
    return [torch.from_numpy(np.asarray(answer)) for answer in answers], path.stat().st_size


def run(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        leaves: list[Tensor] = pytree.tree_leaves(model(*inputs))
    return leaves


def worst_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference relative to the largest output."""
    return max(relative_error(a, e) for a, e in zip(actual, expected, strict=True))


def spread_error(actual: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, relative to how far rows are from the mean row: 1 is no better than that."""
    if actual.shape != expected.shape:
        return float("inf")
    spread = (expected - expected.mean(0)).square().mean().sqrt()
    return float((actual - expected).square().mean().sqrt() / spread.clamp(min=1e-12))


def as_stored(name: str, answers: Tensor) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]:
    """Targets that outputs of a task stand for, as a dataset would store them."""
    if name == "regression":
        return answers.numpy()
    if name in ("binary", "multi_label"):
        labels = answers > 0
    elif name == "ranking":
        labels = answers > answers.median()
    else:
        labels = answers.argmax(1 if name in ("classification", "segmentation") else -1)
    return labels.to(torch.int64).numpy()


def _exact(error: float) -> CellResult:
    return CellResult(error <= EXACT, f"{error:.1e}", "" if error <= EXACT else f"above {EXACT:g}")
