"""Ranges of activations, read off calibration data by running the float model with its values as outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from compressors.activation_bits import activation_bits, range_roots
from compressors.errors import InvalidData
from compressors.observers import BINS, entropy_range, histogram_of, least_squares_range, percentile_range
from compressors.onnx_emission import Array
from compressors.onnx_graph import GraphView
from compressors.onnx_runtime import OnnxRuntime
from compressors.recipe import Quantization

Ranges = Mapping[str, tuple[float, float]]

UNBOUNDED = (-np.inf, np.inf)
# Numbers of this size are no results but masks: -1e9, the lowest float, minus infinity.
MASKED = 1e8


def collect_ranges(
    model: onnx.ModelProto, inputs: Iterable[Sequence[Array]], config: Quantization, threads: int = 1
) -> dict[str, tuple[float, float]]:
    """(low, high) of every activation that quantisation may need, over all of `inputs`.

    inputs: batches, one array per model input; memory is bounded by the activations of one batch.
    config: its observer and bit widths decide. All observers but min_max read histograms from a second pass.
    What masks attention (minus infinity, the lowest float) would leave nothing of the other values; such an activation
    gets the range (-inf, inf) and stays float.
    Raises InvalidData if there are no inputs or an activation is NaN.
    """
    batches = list(inputs)
    if not batches:
        raise InvalidData("no calibration inputs; give at least one batch")
    view = GraphView(model)
    roots = range_roots(view)
    observed = sorted(set(roots.values()) - set(view.inputs))
    session = OnnxRuntime().load_model(_with_outputs(model, observed), threads)
    positions = {name: index for index, name in enumerate(view.inputs)}
    wanted = [name for name in view.inputs if name in roots.values()]

    def values(batch: Sequence[Array]) -> Iterable[tuple[str, Array]]:
        yield from ((name, batch[positions[name]]) for name in wanted)
        yield from zip(observed, session.run(batch)[-len(observed) :] if observed else [], strict=True)

    extremes: dict[str, tuple[float, float]] = {}
    for batch in batches:
        for name, content in values(batch):
            low, high = float(content.min()), float(content.max())
            if np.isnan([low, high]).any():
                raise InvalidData(f"activation {name!r} is not a number somewhere on the calibration data")
            known = extremes.get(name, (low, high))
            extremes[name] = (min(low, known[0]), max(high, known[1]))
    unbounded = {name: UNBOUNDED for name, extreme in extremes.items() if np.abs(extreme).max() >= MASKED}
    extremes = {name: extreme for name, extreme in extremes.items() if name not in unbounded}
    ranges = extremes
    if config.observer != "min_max":
        histograms = {name: np.zeros(BINS, dtype=np.int64) for name in extremes}
        for batch in batches:
            for name, content in values(batch):
                if name in extremes:
                    histograms[name] += histogram_of(content, *extremes[name])
        bits = activation_bits(view, config)
        ranges = {
            name: _clipped(histograms[name], *extremes[name], config, 2 ** bits.get(name, config.activation_bits) - 1)
            for name in extremes
        }
    ranges = {**ranges, **unbounded}
    return {name: ranges[root] for name, root in roots.items()}


def _clipped(histogram: Array, low: float, high: float, config: Quantization, levels: int) -> tuple[float, float]:
    match config.observer:
        case "percentile":
            return percentile_range(histogram, low, high, config.percentile)
        case "entropy":
            return entropy_range(histogram, low, high, levels)
        case _:
            return least_squares_range(histogram, low, high, levels)


def placeholder_ranges(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """A range for every activation without running anything: enough to measure latency, which no value changes, and
    size, which changes by a few bytes for constants that happen to be equal. Never enough to score.

    The ranges are wide, so that a normalisation folds into its QuantizeLinear, and all different, like real ones.
    """
    activations = GraphView(model).activations()
    return {name: (-1000.0 - index, 1000.0 + index) for index, name in enumerate(activations)}


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with `names` appended to its outputs (one that is an output already is read through a copy)."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    taken = {item.name for item in model.graph.output}
    for name in names:
        output = name
        if name in taken:
            output = f"{name}_observed"
            observed.graph.node.append(helper.make_node("Identity", [name], [output]))
        observed.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    return observed
