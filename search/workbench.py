"""What an evaluator process keeps between works: program, rows, baseline, caches. Made on first use."""

from __future__ import annotations

import copy
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from compressors.batch_norm_statistics import reestimate
from compressors.channels import ChannelGraph, analyse
from compressors.datasets import InputColumn, Rows, open_rows
from compressors.fingerprint import take_fingerprint
from compressors.measurement_slot import MeasurementSlot
from compressors.onnx_export import export_onnx
from compressors.onnx_runtime import OnnxRuntime
from compressors.pipeline import run_recipe
from compressors.programs import Program, load_program, sample_inputs
from compressors.recipe import Recipe
from compressors.registry import Context
from compressors.runtime import Session
from compressors.structured_pruning import verified_groups
from compressors.tasks import Task, task
from compressors.training import Batch, Training
from search.cost_history import CostHistory
from search.evaluation import Evaluation
from search.inputs import JobInputs
from search.quiet_baseline import QuietBaseline
from search.splits import Part, Splits, make_splits
from search.stage_cache import StageCache, foreign_code, stage_key
from search.targets import group_column, target_column, task_options
from search.teacher import TeacherOutputs

CALIBRATION_ROWS = 384
REESTIMATION_ROWS = 1024
SCORING_BATCH = 100
SCORING_BYTES = 64 * 2**20  # of a scoring batch's outputs
PREPARING_ROWS = 10_000

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


class Workbench:
    """threads: cores of this process. Everything is made on first use and kept; nothing is changed afterwards."""

    def __init__(self, inputs: JobInputs, *, threads: int) -> None:
        self.inputs = inputs
        self.spec = inputs.spec
        self.threads = threads
        self.cache = StageCache(inputs.cache / "stages")
        self.slot = MeasurementSlot(Path(tempfile.gettempdir()) / "bantam-measurement-slot")
        self.runtime = OnnxRuntime()
        torch.set_num_threads(threads)

    @property
    def seed(self) -> int:
        return self.spec.search.seed

    def load(self) -> None:
        """Everything that the first gate needs and later ones find in memory."""
        _ = self.graph, self.latency_inputs

    # -- the model -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def program(self) -> Program:
        return load_program(self.inputs.model.path)

    @functools.cached_property
    def models(self) -> dict[str, fx.GraphModule]:
        """Further models, by the names under which steps refer to them."""
        return {name: load_program(file.path).module for name, file in self.inputs.models.items()}

    @functools.cached_property
    def model_key(self) -> dict[str, str]:
        """What a recipe's result depends on besides data and target, for stage keys."""
        return {"model": self.inputs.model.sha256, **{f"model.{n}": f.sha256 for n, f in self.inputs.models.items()}}

    @functools.cached_property
    def example(self) -> tuple[Tensor, ...]:
        """Two made-up rows, enough to find shapes."""
        return sample_inputs(self.program.description, 2, self.seed)

    @functools.cached_property
    def graph(self) -> ChannelGraph:
        return verified_groups(self.program.module, analyse(self.program.module, self.example), self.example)

    @functools.cached_property
    def task(self) -> Task:
        """Knows what the tuning targets look like."""
        part = self.splits.tuning
        sample = np.random.default_rng(self.seed).permutation(len(part.rows))[:PREPARING_ROWS]
        return self._task.prepared(self.tuning_target(np.sort(sample)))

    @functools.cached_property
    def _task(self) -> Task:
        return task(self.spec.task, task_options(self.spec))

    @functools.cached_property
    def row_bytes(self) -> int:
        """Of the outputs of one row."""
        inputs = self.tensors(self.tuning_inputs(np.zeros(1, dtype=np.int64)))
        with torch.no_grad():
            outputs: Tensor = self.program.module(*inputs)
        return outputs.numel() * 4

    @functools.cached_property
    def draft(self) -> Context:
        """For models of which only the cost matters; what goes by the data (which blocks) goes by them here too."""
        return Context(
            example_inputs=self.example,
            seed=self.seed,
            graph=self.graph,
            calibration=lambda: (self.tensors(batch) for batch in self.calibration()),
            original=self.program.module,
            models=self.models,
            threads=self.threads,
            draft=True,
        )

    @functools.cached_property
    def context(self) -> Context:
        """For models that count: calibration inputs, and tuning rows with the uncompressed model's outputs."""
        training = Training(
            task=self.task,
            rows=len(self.splits.tuning.rows),
            fetch=self.tuning_batch,
            chunk=self.slot.shared,
        )
        return Context(
            example_inputs=self.example,
            seed=self.seed,
            graph=self.graph,
            calibration=lambda: (self.tensors(batch) for batch in self.calibration()),
            training=training,
            original=self.program.module,
            models=self.models,
            threads=self.threads,
        )

    def shaped(self, recipe: Recipe) -> fx.GraphModule:
        """A new model with everything done that a recipe does before its last tuning."""
        return run_recipe(self.program.module, recipe.around_tuning()[0], self.context)

    def reestimate(self, model: fx.GraphModule) -> None:
        """Batch-norm statistics of a changed model, from tuning rows."""
        reestimate(model, (self.tensors(self.tuning_inputs(p)) for p in self.sample(REESTIMATION_ROWS, 128)))

    # -- the rows --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def splits(self) -> Splits:
        train = self.spec.data.train
        names = {name for name in (train, self.spec.data.validation, self.spec.data.test) if name is not None}
        counts = {name: self.inputs.datasets[name].description.rows for name in names}
        rows = self.rows(train)
        groups = rows.groups(np.arange(counts[train], dtype=np.int64))
        strata = self._task.strata(self._task.as_target(rows.targets)) if self._task.stratified else None
        return make_splits(self.spec.data, strata, counts, seed=self.seed, groups=groups)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - one workbench per process, kept for its whole life
    def rows(self, dataset: str) -> Rows:
        file = self.inputs.datasets[dataset]
        return open_rows(
            file.path,
            file.description,
            [InputColumn(column=c.column, scale=c.scale, pad_to=c.pad_to) for c in self.spec.data.columns],
            target_column(self.spec, self.program.description.outputs[0]),
            self.inputs.cache / "rows",
            file.sha256,
            self.program.description.inputs,
            group_column(self.spec),
        )

    def tuning_inputs(self, positions: Indices) -> tuple[Array, ...]:
        part = self.splits.tuning
        return self.rows(part.dataset).inputs(part.rows[positions])

    def tuning_target(self, positions: Indices) -> Array:
        """As the task takes it."""
        part = self.splits.tuning
        return self._task.as_target(self.rows(part.dataset).target(part.rows[positions]))

    def tuning_groups(self, positions: Indices) -> Indices | None:
        part = self.splits.tuning
        return self.rows(part.dataset).groups(part.rows[positions])

    def sample(self, count: int, batch: int) -> Iterator[Indices]:
        """Batches of positions of `count` tuning rows, the same at every call."""
        total = len(self.splits.tuning.rows)
        chosen = np.random.default_rng(self.seed + 7).permutation(total)[:count].astype(np.int64)
        yield from (chosen[i : i + batch] for i in range(0, len(chosen), batch))

    def calibration(self) -> list[tuple[Array, ...]]:
        return [self.tuning_inputs(p) for p in self.sample(CALIBRATION_ROWS, 64)]

    @staticmethod
    def tensors(arrays: Sequence[Array]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(a) for a in arrays)

    @functools.cached_property
    def data_key(self) -> dict[str, Any]:
        """What the splits and their rows depend on, for stage keys."""
        data = self.spec.data.model_dump(mode="json", exclude={"train", "validation", "test"})
        names = {"train": self.spec.data.train, "validation": self.spec.data.validation, "test": self.spec.data.test}
        files = {role: None if n is None else self.inputs.datasets[n].sha256 for role, n in names.items()}
        task = {"name": self.spec.task, **asdict(task_options(self.spec))}
        task["code"] = foreign_code(type(self._task), type(self._task.description))
        return {"data": data, "files": files, "seed": self.seed, "task": task}

    @functools.cached_property
    def target_key(self) -> dict[str, Any]:
        """What a latency depends on besides the artifact's shape."""
        return {"target": self.spec.target.model_dump(mode="json"), "fingerprint": self.fingerprint["key"]}

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        return take_fingerprint(self.runtime, self.spec.target.threads).to_json()

    @functools.cached_property
    def quiet_baseline(self) -> QuietBaseline:
        key = stage_key("quiet", {"model": self.inputs.model.sha256, **self.target_key})
        return QuietBaseline(self.inputs.cache / "quiet" / f"{key}.json")

    @functools.cached_property
    def cost_history(self) -> CostHistory:
        key = stage_key("costs", {"model": self.inputs.model.sha256, **self.target_key})
        return CostHistory(self.inputs.cache / "costs" / f"{key}.jsonl")

    # -- scoring ---------------------------------------------------------------------------------------------------

    def evaluate(self, path: Path, part: Part, *, alone: bool = False) -> Evaluation:
        """What the metric needs to know of the file at `path`, loaded from disk, over a split.

        alone: no other process of the job works now, so that all cores may be used.
        """
        session = self.runtime.load(path, (os.cpu_count() or 1) if alone else self.threads)
        return self._evaluation(lambda inputs: session.run(inputs)[0], part)

    @torch.no_grad()
    def evaluate_model(self, model: fx.GraphModule, part: Part) -> Evaluation:
        """The same of a model in torch, which is put into eval mode."""
        model.eval()
        return self._evaluation(lambda inputs: model(*self.tensors(inputs)).float().numpy(), part)

    def _evaluation(self, answer: Callable[[Sequence[Array]], Array], part: Part) -> Evaluation:
        rows, task = self.rows(part.dataset), self.task
        statistics = []
        for batch in self.batches(part.rows):
            with self.slot.shared():
                outputs = answer(rows.inputs(batch))
            statistics.append(task.statistics(outputs, task.as_target(rows.target(batch))))
        return Evaluation(task, np.concatenate(statistics), rows.groups(part.rows))

    def batches(self, rows: Indices) -> Iterator[Indices]:
        """Small enough that their outputs fit into memory."""
        size = max(1, min(SCORING_BATCH, SCORING_BYTES // max(self.row_bytes, 1)))
        yield from (rows[start : start + size] for start in range(0, len(rows), size))

    def session(self, path: Path) -> Session:
        """As the target runs it."""
        return self.runtime.load(path, self.spec.target.threads)

    @functools.cached_property
    def latency_inputs(self) -> tuple[Array, ...]:
        """One batch of real rows in the target's batch size."""
        total = len(self.splits.tuning.rows)
        return self.tuning_inputs(np.arange(self.spec.target.batch_size, dtype=np.int64) % total)

    def tuning_batch(self, positions: Indices, *, taught: bool = True) -> Batch:
        """Inputs, targets and, if wanted, the uncompressed model's outputs."""
        target = torch.from_numpy(self.tuning_target(positions))
        teacher = torch.from_numpy(self.teacher.outputs(positions)) if taught else None
        return self.tensors(self.tuning_inputs(positions)), target, teacher

    @functools.cached_property
    def teacher(self) -> TeacherOutputs:
        """Of the uncompressed model's export."""
        session: list[Session] = []

        def compute(positions: Indices) -> npt.NDArray[np.float32]:
            if not session:  # most runs find their outputs on disk
                session.append(self.runtime.load_model(export_onnx(self.program.module, self.example), self.threads))
            parts = []
            for batch in self.batches(positions):
                with self.slot.shared():
                    parts.append(session[0].run(self.tuning_inputs(batch))[0])
            return np.concatenate(parts).astype(np.float32)

        folder = (
            self.inputs.cache / "teacher" / stage_key("teacher", {"model": self.inputs.model.sha256, **self.data_key})
        )
        return TeacherOutputs(folder, len(self.splits.tuning.rows), self.seed, compute, row_bytes=self.row_bytes)


def clone(module: fx.GraphModule) -> fx.GraphModule:
    """A copy that may be trained or changed."""
    copied: fx.GraphModule = copy.deepcopy(module)
    return copied
