"""Ranges of activations, read off calibration data by running the float model with its values as outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from compressors.errors import InvalidData
from compressors.onnx_emission import Array
from compressors.onnx_graph import GraphView
from compressors.onnx_runtime import OnnxRuntime
from compressors.quantized_graph import LEVELS, clip_bounds
from compressors.recipes.quantization import Observer

Ranges = Mapping[str, tuple[float, float]]

BINS = 2048
PERCENTILE = 99.99
# Fractions of the full range that the mse observer tries; below 0.3 clipping always loses on real activations.
_SHRINKING = np.linspace(0.3, 1.0, 71)
_MOVES = frozenset(
    [
        "MaxPool",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Split",
        "Expand",
        "Identity",
        "Pad",
        "Slice",
    ]
)


def collect_ranges(
    model: onnx.ModelProto, inputs: Iterable[Sequence[Array]], observer: Observer, threads: int = 1
) -> dict[str, tuple[float, float]]:
    """(low, high) of every activation that quantisation may need, over all of `inputs`.

    inputs: batches, one array per model input; memory is bounded by the activations of one batch.
    observer: min_max keeps everything; percentile cuts 0.01 % at either end; mse takes the clipping with the least
    expected squared error of rounding to 256 levels. The last two read histograms of 2048 bins from a second pass.
    Raises InvalidData if there are no inputs or an activation is not finite.
    """
    batches = list(inputs)
    if not batches:
        raise InvalidData("no calibration inputs; give at least one batch")
    view = GraphView(model)
    roots = _roots(view)
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
            if not np.isfinite([low, high]).all():
                raise InvalidData(f"activation {name!r} is not finite on the calibration data (range {low}..{high})")
            known = extremes.get(name, (low, high))
            extremes[name] = (min(low, known[0]), max(high, known[1]))
    ranges = extremes
    if observer != "min_max":
        histograms = {name: np.zeros(BINS, dtype=np.int64) for name in extremes}
        for batch in batches:
            for name, content in values(batch):
                histograms[name] += _histogram(content, *extremes[name])
        choose = _percentile if observer == "percentile" else _least_squares
        ranges = {name: choose(histograms[name], *extremes[name]) for name in extremes}
    return {name: ranges[root] for name, root in roots.items()}


def placeholder_ranges(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """A range for every activation without running anything: enough to measure latency, which no value changes, and
    size, which changes by a few bytes for constants that happen to be equal. Never enough to score.

    The ranges are wide, so that a normalisation folds into its QuantizeLinear, and all different, like real ones.
    """
    activations = GraphView(model).activations()
    return {name: (-1000.0 - index, 1000.0 + index) for index, name in enumerate(activations)}


def _roots(view: GraphView) -> dict[str, str]:
    """For every activation the one whose range it takes: operators that only move numbers pass their source's on, and
    what only a Relu or Clip reads is never stored."""
    roots: dict[str, str] = {}
    for name in view.activations():
        producer = view.producer(name)
        source = str(producer.input[0]) if producer is not None and producer.op_type in _MOVES else ""
        activation = view.only_consumer(name)
        if source in roots and not _pads_with_number(view, producer):
            roots[name] = roots[source]
        elif activation is None or clip_bounds(view, activation) is None:
            roots[name] = name
    return roots


def _pads_with_number(view: GraphView, node: onnx.NodeProto | None) -> bool:
    """A Pad with a number other than 0 widens the range."""
    return node is not None and node.op_type == "Pad" and len(node.input) > 2 and bool(node.input[2])


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


def _histogram(content: Array, low: float, high: float) -> Array:
    """Counts of `content` in BINS equal bins over low..high."""
    if high <= low:
        counts = np.zeros(BINS, dtype=np.int64)
        counts[0] = content.size
        return counts
    positions = (content.reshape(-1) - np.float32(low)) * np.float32(BINS / (high - low))
    bins = np.minimum(positions.astype(np.int32), BINS - 1)
    filled: Array = np.bincount(bins, minlength=BINS)
    return filled


def _percentile(histogram: Array, low: float, high: float) -> tuple[float, float]:
    """The range without the outer (100 - PERCENTILE) percent at either end, to the width of a bin."""
    total = histogram.sum()
    beyond = total * (1 - PERCENTILE / 100)
    width = (high - low) / BINS
    cumulated = np.cumsum(histogram)
    first = int(np.searchsorted(cumulated, beyond, side="right"))
    last = int(np.searchsorted(cumulated, total - beyond, side="left"))
    return low + first * width, low + (last + 1) * width


def _least_squares(histogram: Array, low: float, high: float) -> tuple[float, float]:
    """The shrunk range (both ends by one factor, towards 0) with the least squared error of clipping and rounding."""
    centres = low + (np.arange(BINS) + 0.5) * ((high - low) / BINS)
    best, best_error = (low, high), np.inf
    for factor in _SHRINKING:
        bottom, top = min(low, 0.0) * factor, max(high, 0.0) * factor
        step = max(top - bottom, 1e-12) / LEVELS
        stored = bottom + np.round((np.clip(centres, bottom, top) - bottom) / step) * step
        error = float((histogram * (centres - stored) ** 2).sum())
        if error < best_error:
            best, best_error = (float(bottom), float(top)), error
    return best
