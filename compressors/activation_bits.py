"""Which activations share a range, and how many bits each of them gets."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from compressors.onnx_graph import INTEGER_LAYERS, GraphView, clip_bounds
from compressors.recipe import Quantization

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
_FLOAT_LAYER_BITS = 8  # of what a layer reads as float32, if it exists as integers at all


def range_roots(view: GraphView) -> dict[str, str]:
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


def activation_bits(view: GraphView, config: Quantization) -> dict[str, int]:
    """Bits of every activation: the most that a layer reading it (or what it becomes by moves and cuts) asks for, and
    config.activation_bits if no layer does."""
    if config.activation_bits == 8 and all(bits == 8 for _, bits in config.layer_bits.values()):
        return dict.fromkeys(view.activations(), 8)
    wanted: dict[str, int] = {}

    def asked(name: str) -> int:
        if name not in wanted:
            wanted[name] = max(
                (_asked_by(view, config, reader, name, asked) for reader in view.consumers(name)), default=0
            )
        return wanted[name]

    roots = range_roots(view)
    return {name: asked(roots.get(name, name)) or config.activation_bits for name in view.activations()}


def _asked_by(
    view: GraphView, config: Quantization, reader: onnx.NodeProto, name: str, asked: Callable[[str], int]
) -> int:
    layer = view.layer_name(reader)
    if layer is not None:
        reads_integers = reader.op_type in INTEGER_LAYERS and layer not in config.float_layers
        return config.bits_of(layer)[1] if reads_integers else _FLOAT_LAYER_BITS
    if reader.input[0] == name and (reader.op_type in _MOVES or clip_bounds(view, reader) is not None):
        return max((asked(str(output)) for output in reader.output), default=0)
    return 0


def _pads_with_number(view: GraphView, node: onnx.NodeProto | None) -> bool:
    """A Pad with a number other than 0 widens the range."""
    return node is not None and node.op_type == "Pad" and len(node.input) > 2 and bool(node.input[2])
