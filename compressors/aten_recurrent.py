"""Reads calls of recurrent operators, and of embedding bags, as layers; importing this module registers the readers.

An exported program holds one `aten.lstm.input` call for a whole `nn.LSTM`: input, initial states, all weights as a
list, and the options. States that are zeros made in the graph are what the module makes itself, so they are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from compressors.aten_modules import Arguments, LayerCall, bound_arguments, node_shape, operator_name, reads

# Operator to layer, rows of weight_ih per hidden unit, number of states.
_KINDS: dict[str, tuple[type[nn.RNNBase], int, int]] = {
    "lstm.input": (nn.LSTM, 4, 2),
    "gru.input": (nn.GRU, 3, 1),
    "rnn_tanh.input": (nn.RNN, 1, 1),
    "rnn_relu.input": (nn.RNN, 1, 1),
}
_ZEROS = {"zeros", "new_zeros", "zeros_like"}
_FULL = {"full", "new_full", "full_like"}
_BAG_MODES = ("sum", "mean", "max")


@reads(*_KINDS)
def _recurrent(a: Arguments, node: fx.Node) -> LayerCall | None:
    name = operator_name(node)
    kind, gates, state_count = _KINDS[name]
    weights = a["params"]
    projected = kind is nn.LSTM and _is_projected(weights, a["has_biases"])
    names = parameter_names(a["num_layers"], a["bidirectional"], a["has_biases"], projected)
    if len(names) != len(weights) or not all(isinstance(weight, fx.Node) for weight in weights):
        return None
    tensors = dict(zip(names, weights, strict=True))
    rows, inputs = node_shape(tensors["weight_ih_l0"])
    options: dict[str, Any] = {
        "input_size": inputs,
        "hidden_size": rows // gates,
        "num_layers": a["num_layers"],
        "bias": a["has_biases"],
        "batch_first": a["batch_first"],
        # Between layers only; a module of one layer warns about it.
        "dropout": a["dropout"] if a["num_layers"] > 1 else 0.0,
        "bidirectional": a["bidirectional"],
    }
    if projected:
        options["proj_size"] = node_shape(tensors["weight_hr_l0"])[0]
    if kind is nn.RNN:
        options["nonlinearity"] = name.split(".")[0].removeprefix("rnn_")
    states = a["hx"]
    given = tuple(states) if isinstance(states, Sequence) else (states,)
    return LayerCall(
        kind,
        options,
        a["input"],
        tensors,
        training=bool(a["train"]) and options["dropout"] > 0,
        states=None if all(_is_zero(state) for state in given) else (given if state_count == 2 else given[0]),
        state_count=state_count,
    )


def parameter_names(layers: int, bidirectional: bool, bias: bool, projected: bool = False) -> list[str]:
    """Names of a recurrent module's parameters in the order in which the operators take them."""
    kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if bias else []), *(["weight_hr"] if projected else [])]
    ends = ["", "_reverse"] if bidirectional else [""]
    return [f"{kind}_l{layer}{end}" for layer in range(layers) for end in ends for kind in kinds]


def _is_projected(weights: Sequence[Any], bias: bool) -> bool:
    """Hidden states of an LSTM may be projected (Sak et al. 2014); weight_hh then has fewer columns than units."""
    if len(weights) < 2 or not all(isinstance(weight, fx.Node) for weight in weights[:2]):
        return False
    rows, columns = node_shape(weights[1])
    return bool(rows != 4 * columns)


def _is_zero(node: Any) -> bool:
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    base = operator_name(node).split(".")[0]
    return base in _ZEROS or (base in _FULL and bound_arguments(node).get("fill_value") == 0)


@reads("embedding_bag.padding_idx", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(a: Arguments, node: fx.Node) -> LayerCall | None:
    """Bags of one length, (batch, length) ids, as `nn.EmbeddingBag` writes them: flattened, with equidistant offsets.
    Other bags stay functions."""
    ids = _rows_of_equal_length(a["indices"], a["offsets"])
    if ids is None or a["per_sample_weights"] is not None or a["include_last_offset"]:
        return None
    rows, width = node_shape(a["weight"])
    padding = a["padding_idx"]
    options = {
        "num_embeddings": rows,
        "embedding_dim": width,
        "mode": _BAG_MODES[a["mode"]],
        "scale_grad_by_freq": a["scale_grad_by_freq"],
        "sparse": a["sparse"],
        "padding_idx": None if padding is None or padding < 0 else padding,
    }
    return LayerCall(nn.EmbeddingBag, options, ids, {"weight": a["weight"]}, first_of_tuple=True)


def _rows_of_equal_length(indices: object, offsets: object) -> fx.Node | None:
    """The (batch, length) ids, if `indices` is these in one row and `offsets` counts up in steps of their length."""
    if not isinstance(indices, fx.Node) or not isinstance(offsets, fx.Node):
        return None
    if operator_name(indices) not in {"reshape", "view"} or operator_name(offsets) != "arange.start_step":
        return None
    ids = bound_arguments(indices)["self"]
    steps = bound_arguments(offsets)
    if not isinstance(ids, fx.Node) or len(node_shape(ids)) != 2 or steps["start"] != 0:
        return None
    length = node_shape(ids)[1]
    if isinstance(length, torch.SymInt) or steps["step"] != length:
        return None
    end = steps["end"]
    whole = operator_name(end) == "sym_numel" and end.args[0] is ids if isinstance(end, fx.Node) else True
    return ids if whole else None
