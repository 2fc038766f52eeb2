"""Sensitivity stage: how much the outputs move when one group of channels, or the precision of one layer, is cut, or
one block goes.

Every entry is one forward pass over calibration rows: in it batch norms use the batch's own statistics, which stands
in for re-estimating them. Cost: (groups x levels + layers x levels + blocks) passes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from compressors.batch_norm_statistics import batch_norms
from compressors.recipe import Recipe, StructuredPruning
from compressors.residual_blocks import find_blocks, without_blocks
from compressors.weight_rounding import rounded_weights
from search.records import Stage
from search.sensitivity import PRUNING_LEVELS, Entry
from search.work import Sensed, SensitivityWork
from search.workbench import Workbench, clone

SENSITIVITY_ROWS = 256
SENSITIVITY_LEAST = 16
SENSITIVITY_BYTES = 256 * 2**20  # of all their outputs


def sense(bench: Workbench, work: SensitivityWork) -> Sensed:
    """This part's share of groups and layers. Cached by model and data."""
    began = time.monotonic()
    key = {"model": bench.inputs.model.sha256, **bench.data_key, "part": work.part, "parts": work.parts}
    key |= {"techniques": list(bench.spec.allowed), "levels": list(work.levels)}
    value, _, cached = bench.cache.get_or_compute("sensitivity", key, lambda _: _compute(bench, work))
    entries = tuple(Entry(**entry) for entry in value["entries"])
    return Sensed(
        part=work.part,
        entries=entries,
        stage=Stage(name="sensitivity", seconds=time.monotonic() - began, cached=cached),
    )


def _compute(bench: Workbench, work: SensitivityWork) -> Mapping[str, Any]:
    probe = _Probe(bench)
    entries: list[Entry] = []
    if "structured_pruning" in bench.spec.allowed:
        for group in bench.graph.groups[work.part :: work.parts]:
            for level in PRUNING_LEVELS:
                kept = max(1, round(group.size * level))
                model = bench.shaped(Recipe((StructuredPruning(keep={group.name: kept}),)))
                loss, metric = probe.look(model)
                entries.append(
                    Entry(technique="structured_pruning", name=group.name, level=level, loss=loss, metric=metric)
                )
    if "quantization" in bench.spec.allowed:
        layers = {
            n: m for n, m in bench.program.module.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)
        }
        for name in list(layers)[work.part :: work.parts]:
            for bits in work.levels:
                model = clone(bench.program.module)
                weight: Tensor = model.get_submodule(name).weight  # type: ignore[assignment]
                with torch.no_grad():
                    weight.copy_(rounded_weights(weight, bits))
                loss, metric = probe.look(model)
                entries.append(Entry(technique="quantization", name=name, level=bits, loss=loss, metric=metric))
    if "depth_pruning" in bench.spec.allowed:
        for block in find_blocks(bench.program.module, bench.example)[work.part :: work.parts]:
            loss, metric = probe.look(without_blocks(bench.program.module, [block]))
            entries.append(Entry(technique="depth_pruning", name=block.name, level=0.0, loss=loss, metric=metric))
    return {"entries": [asdict(e) for e in entries]}


class _Probe:
    """Compares a changed model with the original on the same rows."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        rows = max(SENSITIVITY_LEAST, min(SENSITIVITY_ROWS, SENSITIVITY_BYTES // max(bench.row_bytes, 1)))
        positions = list(bench.sample(rows, rows))
        self._batches = [bench.tensors(bench.tuning_inputs(p)) for p in positions]
        self._target = np.concatenate([bench.tuning_target(p) for p in positions])
        self._groups = bench.tuning_groups(np.concatenate(positions))
        self._reference = self._outputs(clone(bench.program.module))

    def look(self, model: fx.GraphModule) -> tuple[float, float]:
        """(the task's divergence, metric)."""
        outputs, task = self._outputs(model), self._bench.task
        loss = float(task.divergence(outputs, self._reference, 1.0, torch.from_numpy(self._target)))
        return max(loss, 0.0), task.metric(outputs.numpy(), self._target, self._groups)

    @torch.no_grad()
    def _outputs(self, model: fx.GraphModule) -> Tensor:
        model.eval()
        for norm in batch_norms(model):
            norm.train()
        parts = []
        for batch in self._batches:
            with self._bench.slot.shared():
                parts.append(model(*batch).float())
        return torch.cat(parts)
