"""Which ATen calls are layers: reads an operator call of an exported program as an `nn.Module` and its tensors.

Covers training IR (`aten.conv2d`, `aten.linear`, `aten.batch_norm`, …) and decomposed core ATen IR
(`aten.convolution`, `aten.addmm` on a transposed weight, `aten.native_layer_norm`, …). A call whose weight is not a
plain parameter, or whose options no module can express, is no layer and stays a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVG_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_ADAPTIVE_AVG_POOL = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer.

    options: arguments of `kind`'s constructor. tensors: the module's tensors by attribute name ('weight',
    'running_mean', …) as nodes of the source program; absent ones are left out. first_of_tuple: the operator returns a
    tuple of which only element 0 is the layer's output. training: the operator asks for training behaviour.
    states: what the module takes behind its input, a node or a pair of nodes; None: nothing. state_count: of recurrent
    operators, which return (output, *states) where modules return (output, state) or (output, (state, state)).
    """

    kind: type[nn.Module]
    options: dict[str, Any]
    input: fx.Node
    tensors: dict[str, fx.Node] = field(default_factory=dict)
    first_of_tuple: bool = False
    training: bool = False
    states: Any = None
    state_count: int = 0


Arguments = dict[str, Any]
Reader = Callable[[Arguments, fx.Node], LayerCall | None]
_READERS: dict[str, Reader] = {}


def read_layer(node: fx.Node, is_stored: Callable[[object], bool]) -> LayerCall | None:
    """The layer that `node` (a call of an ATen operator) stands for, or None.

    is_stored: whether an argument is a parameter or buffer of the program.
    """
    reader = _READERS.get(operator_name(node))
    if reader is None:
        return None
    call = reader(bound_arguments(node), node)
    if call is None or not all(is_stored(tensor) for tensor in call.tensors.values()):
        return None
    return call


def operator_name(node: fx.Node) -> str:
    """'conv2d' for aten.conv2d.default, 'conv2d.padding' for other overloads; '' for what is no ATen operator."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return ""
    name: str = target._schema.name.removeprefix("aten::")
    overload = target._schema.overload_name
    return f"{name}.{overload}" if overload else name


def bound_arguments(node: fx.Node) -> Arguments:
    """Arguments of an operator call by the schema's names, defaults filled in."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    arguments: Arguments = {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(node.args):
            arguments[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            arguments[argument.name] = node.kwargs[argument.name]
        else:
            arguments[argument.name] = argument.default_value if argument.has_default_value() else None
    return arguments


def reads(*names: str) -> Callable[[Reader], Reader]:
    """Declares the reader of the operators called `names` (see `operator_name`)."""

    def register(reader: Reader) -> Reader:
        for name in names:
            _READERS[name] = reader
        return reader

    return register


def node_shape(value: object) -> tuple[Any, ...]:
    """Shape recorded by torch.export at a node; dynamic dimensions are SymInt."""
    assert isinstance(value, fx.Node)
    return tuple(value.meta["val"].shape)


def _tensors(**nodes: object) -> dict[str, fx.Node]:
    return {name: node for name, node in nodes.items() if isinstance(node, fx.Node)}


def _per_dimension(value: object, dimensions: int) -> tuple[Any, ...]:
    """ATen lists of length one hold for every dimension."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * dimensions if len(values) == 1 else values


def _literal(*values: object) -> bool:
    """Modules keep their options as constants; a symbolic one cannot be expressed."""
    flat = [item for value in values for item in (value if isinstance(value, Sequence) else (value,))]
    return not any(isinstance(item, (fx.Node, torch.SymInt)) for item in flat)


@reads("conv1d", "conv2d", "conv3d", "conv1d.padding", "conv2d.padding", "conv3d.padding", "convolution")
def _convolution(a: Arguments, node: fx.Node) -> LayerCall | None:
    if a.get("transposed"):
        return _transposed_convolution(a, node)
    weight = node_shape(a["weight"])
    dimensions = len(weight) - 2
    if not _literal(weight, a["stride"], a["padding"], a["dilation"]):
        return None
    padding = a["padding"]
    options = {
        "in_channels": weight[1] * a["groups"],
        "out_channels": weight[0],
        "kernel_size": tuple(weight[2:]),
        "stride": _per_dimension(a["stride"], dimensions),
        "padding": padding if isinstance(padding, str) else _per_dimension(padding, dimensions),
        "dilation": _per_dimension(a["dilation"], dimensions),
        "groups": a["groups"],
        "bias": a["bias"] is not None,
    }
    return LayerCall(_CONV[dimensions], options, a["input"], _tensors(weight=a["weight"], bias=a["bias"]))


@reads("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
def _transposed_convolution(a: Arguments, node: fx.Node) -> LayerCall | None:
    weight = node_shape(a["weight"])
    dimensions = len(weight) - 2
    if not _literal(weight, a["stride"], a["padding"], a["dilation"], a["output_padding"]):
        return None
    options = {
        "in_channels": weight[0],
        "out_channels": weight[1] * a["groups"],
        "kernel_size": tuple(weight[2:]),
        "stride": _per_dimension(a["stride"], dimensions),
        "padding": _per_dimension(a["padding"], dimensions),
        "output_padding": _per_dimension(a["output_padding"], dimensions),
        "dilation": _per_dimension(a["dilation"], dimensions),
        "groups": a["groups"],
        "bias": a["bias"] is not None,
    }
    return LayerCall(_CONV_TRANSPOSE[dimensions], options, a["input"], _tensors(weight=a["weight"], bias=a["bias"]))


def _linear_call(source: object, weight: object, bias: object) -> LayerCall | None:
    if not isinstance(source, fx.Node) or not isinstance(weight, fx.Node):
        return None
    shape = node_shape(weight)
    if len(shape) != 2 or not _literal(shape):
        return None
    if isinstance(bias, fx.Node) and node_shape(bias) != (shape[0],):
        return None
    options = {"in_features": shape[1], "out_features": shape[0], "bias": bias is not None}
    return LayerCall(nn.Linear, options, source, _tensors(weight=weight, bias=bias))


@reads("linear")
def _linear(a: Arguments, node: fx.Node) -> LayerCall | None:
    return _linear_call(a["input"], a["weight"], a["bias"])


@reads("addmm")
def _addmm(a: Arguments, node: fx.Node) -> LayerCall | None:
    if a["alpha"] != 1 or a["beta"] != 1:
        return None
    return _linear_call(a["mat1"], _untransposed(a["mat2"]), a["self"])


@reads("mm")
def _mm(a: Arguments, node: fx.Node) -> LayerCall | None:
    return _linear_call(a["self"], _untransposed(a["mat2"]), None)


def _untransposed(value: object) -> fx.Node | None:
    """w, if `value` is w transposed."""
    if not isinstance(value, fx.Node) or value.op != "call_function":
        return None
    name = operator_name(value)
    if name not in {"t", "permute", "transpose.int"}:
        return None
    a = bound_arguments(value)
    if name == "permute" and list(a["dims"]) not in ([1, 0], [-1, -2], [-1, 0], [1, -2]):
        return None
    if name == "transpose.int" and {a["dim0"] % 2, a["dim1"] % 2} != {0, 1}:
        return None
    source = a["self"]
    return source if isinstance(source, fx.Node) and len(node_shape(source)) == 2 else None


@reads(
    "batch_norm",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit.no_stats",
    "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "_batch_norm_with_update_functional",
)
def _batch_norm(a: Arguments, node: fx.Node) -> LayerCall | None:
    shape = node_shape(a["input"])
    mean, variance = a.get("running_mean"), a.get("running_var")
    affine = a["weight"] is not None
    if affine != (a["bias"] is not None) or len(shape) not in _BATCH_NORM or not _literal(shape[1]):
        return None
    options = {
        "num_features": shape[1],
        "eps": a["eps"],
        # A cumulative average (momentum=None) is exported as 0.0.
        "momentum": a["momentum"] or None,
        "affine": affine,
        "track_running_stats": mean is not None,
    }
    tensors = _tensors(weight=a["weight"], bias=a["bias"], running_mean=mean, running_var=variance)
    name = operator_name(node)
    training = a.get("training", name == "_batch_norm_with_update_functional")
    return LayerCall(
        _BATCH_NORM[len(shape)],
        options,
        a["input"],
        tensors,
        first_of_tuple=name != "batch_norm",
        training=bool(training) and mean is not None,
    )


@reads("layer_norm", "native_layer_norm")
def _layer_norm(a: Arguments, node: fx.Node) -> LayerCall | None:
    if (a["weight"] is None and a["bias"] is not None) or not _literal(a["normalized_shape"]):
        return None
    options = {
        "normalized_shape": tuple(a["normalized_shape"]),
        "eps": a["eps"],
        "elementwise_affine": a["weight"] is not None,
        "bias": a["bias"] is not None,
    }
    tensors = _tensors(weight=a["weight"], bias=a["bias"])
    native = operator_name(node) == "native_layer_norm"
    return LayerCall(nn.LayerNorm, options, a["input"], tensors, first_of_tuple=native)


@reads("rms_norm")
def _rms_norm(a: Arguments, node: fx.Node) -> LayerCall | None:
    if not _literal(a["normalized_shape"]):
        return None
    options = {
        "normalized_shape": tuple(a["normalized_shape"]),
        "eps": a["eps"],
        "elementwise_affine": a["weight"] is not None,
    }
    return LayerCall(nn.RMSNorm, options, a["input"], _tensors(weight=a["weight"]))


@reads("group_norm", "native_group_norm")
def _group_norm(a: Arguments, node: fx.Node) -> LayerCall | None:
    shape = node_shape(a["input"])
    affine = a["weight"] is not None
    if affine != (a["bias"] is not None) or not _literal(shape[1]):
        return None
    native = operator_name(node) == "native_group_norm"
    options = {
        "num_groups": a["group" if native else "num_groups"],
        "num_channels": shape[1],
        "eps": a["eps"],
        "affine": affine,
    }
    tensors = _tensors(weight=a["weight"], bias=a["bias"])
    return LayerCall(nn.GroupNorm, options, a["input"], tensors, first_of_tuple=native)


@reads("embedding")
def _embedding(a: Arguments, node: fx.Node) -> LayerCall | None:
    rows, width = node_shape(a["weight"])
    options = {
        "num_embeddings": rows,
        "embedding_dim": width,
        "padding_idx": None if a["padding_idx"] is None or a["padding_idx"] < 0 else a["padding_idx"],
        "scale_grad_by_freq": a["scale_grad_by_freq"],
        "sparse": a["sparse"],
    }
    return LayerCall(nn.Embedding, options, a["indices"], _tensors(weight=a["weight"]))


@reads("dropout", "native_dropout", "feature_dropout")
def _dropout(a: Arguments, node: fx.Node) -> LayerCall | None:
    native = operator_name(node) == "native_dropout"
    kind: type[nn.Module] = nn.Dropout
    if operator_name(node) == "feature_dropout":
        kind = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}.get(len(node_shape(a["input"])), nn.Dropout2d)
    return LayerCall(kind, {"p": a["p"]}, a["input"], first_of_tuple=native, training=bool(a["train"]))


@reads("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool(a: Arguments, node: fx.Node) -> LayerCall | None:
    name = operator_name(node)
    dimensions = int(name[len("max_pool")])
    options = {
        "kernel_size": _per_dimension(a["kernel_size"], dimensions),
        "stride": _per_dimension(a["stride"] or a["kernel_size"], dimensions),
        "padding": _per_dimension(a["padding"], dimensions),
        "dilation": _per_dimension(a["dilation"], dimensions),
        "ceil_mode": a["ceil_mode"],
    }
    if not _literal(*options.values()):
        return None
    return LayerCall(_MAX_POOL[dimensions], options, a["self"], first_of_tuple=name.endswith("indices"))


@reads("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(a: Arguments, node: fx.Node) -> LayerCall | None:
    dimensions = int(operator_name(node)[len("avg_pool")])
    options = {
        "kernel_size": _per_dimension(a["kernel_size"], dimensions),
        "stride": _per_dimension(a["stride"] or a["kernel_size"], dimensions),
        "padding": _per_dimension(a["padding"], dimensions),
        "ceil_mode": a["ceil_mode"],
        "count_include_pad": a["count_include_pad"],
    }
    if dimensions > 1:
        options["divisor_override"] = a["divisor_override"]
    if not _literal(*options.values()):
        return None
    return LayerCall(_AVG_POOL[dimensions], options, a["self"])


@reads(
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
)
def _adaptive_avg_pool(a: Arguments, node: fx.Node) -> LayerCall | None:
    dimensions = int(operator_name(node).removeprefix("_")[len("adaptive_avg_pool")])
    if not _literal(a["output_size"]):
        return None
    options = {"output_size": _per_dimension(a["output_size"], dimensions)}
    return LayerCall(_ADAPTIVE_AVG_POOL[dimensions], options, a["self"])
