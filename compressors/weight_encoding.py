"""Puts weights on grids of integers, rounded to nearest or by what it does to the layers' outputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from compressors.adaround import Layer, adaround
from compressors.aten_modules import bound_arguments, operator_name
from compressors.encodings.encoding import Encoding
from compressors.errors import InvalidRecipe
from compressors.gptq import gptq, hessian
from compressors.integer_grids import GridSpec, fit_grid
from compressors.layer_columns import has_columns, sample_columns, weight_rows
from compressors.layer_weights import LayerWeight
from compressors.lockstep import walk
from compressors.onnx_emission import array_of
from compressors.registry import Context
from compressors.state import state_of

Method = Literal["nearest", "gptq", "adaround"]

# Columns per layer that GPTQ and AdaRound look at, and numbers that they may hold.
_COLUMNS = 16384
_NUMBERS = 2**24


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """method: nearest; gptq (`compressors.gptq`); adaround (`compressors.adaround`) with `iterations` steps a layer.

    bits: layers of more than these are rounded to nearest whatever the method.
    """

    method: Method = "nearest"
    iterations: int = 1000
    bits: int = 8


def store_encoding(model: fx.GraphModule, weight: LayerWeight, encoding: Encoding) -> None:
    """Notes the encoding under all of the parameter's names and gives the parameter the decoded values."""
    state = state_of(model)
    state.floats.setdefault(weight.name, weight.tensor.detach().clone())
    weight.tensor.data.copy_(torch.from_numpy(encoding.decode()))
    for name in weight.names:
        state.encodings[name] = encoding


def encode_on_grids(
    model: fx.GraphModule,
    weights: Sequence[tuple[LayerWeight, GridSpec]],
    rounding: Rounding,
    context: Context,
    technique: str,
) -> None:
    """Encodes `weights` of `model` in place, each on a grid of its own.

    GPTQ and AdaRound go through the network layer by layer; they apply to linear layers and convolutions that have
    their weight for themselves. Everything else (embeddings, recurrent layers, transposed convolutions, tied and raw
    parameters) is rounded to nearest; for an embedding, whose rows are read singly, nothing can be better.
    Raises InvalidRecipe if calibration inputs are missing.
    """
    learns = rounding.method != "nearest" and not context.draft
    if learns and context.calibration is None:
        raise InvalidRecipe(
            f"{technique} reads calibration inputs (rounding={rounding.method!r}) and none are given; "
            "add data, or use rounding='nearest'"
        )
    learned: dict[str, tuple[LayerWeight, GridSpec]] = {}
    models = [copy.deepcopy(model).eval(), model.eval()] if learns else []
    for weight, spec in weights:
        if learns and spec.bits <= rounding.bits and _can_learn(model, weight):
            learned[weight.layers[0]] = (weight, spec)
        else:
            values = array_of(weight.tensor)
            store_encoding(model, weight, fit_grid(values, spec, weight.output_axis).encode(values))

    def visit(node: fx.Node, inputs: Sequence[Sequence[Tensor]]) -> None:
        found = learned.pop(str(node.target), None)
        if found is not None:
            weight, spec = found
            reference, layer = (each.get_submodule(str(node.target)) for each in models)
            call = _Call(node, reference, layer, *inputs)
            mask = state_of(model).masks.get(weight.name)
            store_encoding(model, weight, _learn(call, weight, spec, mask, rounding, context.seed))

    if learned:
        walk(models, context.batches(), visit)


@dataclass(frozen=True)
class _Call:
    """A layer in the float model and in the rounded one, and what each is given."""

    node: fx.Node
    reference: nn.Module
    layer: nn.Module
    float_inputs: Sequence[Tensor]
    inputs: Sequence[Tensor]


def _can_learn(model: fx.GraphModule, weight: LayerWeight) -> bool:
    alone = len(weight.names) == 1 and len(weight.layers) == 1
    return alone and weight.name != weight.layers[0] and has_columns(model.get_submodule(weight.layers[0]))


def _learn(
    call: _Call, weight: LayerWeight, spec: GridSpec, mask: Tensor | None, rounding: Rounding, seed: int
) -> Encoding:
    layer = call.layer
    rows = weight_rows(layer, weight.tensor.detach())
    count = min(_COLUMNS, max(_NUMBERS // (rows.shape[0] * rows.shape[2]), 1))
    columns = sample_columns(layer, call.inputs, count, seed)
    moments = hessian(columns)
    importance = moments.diagonal(dim1=1, dim2=2).float()[:, None].expand(rows.shape).reshape(weight.tensor.shape)
    grid = fit_grid(array_of(weight.tensor), spec, weight.output_axis, array_of(importance))
    scale, zero_point = (weight_rows(layer, torch.from_numpy(part)) for part in grid.spread())
    lives = None if mask is None else weight_rows(layer, mask)
    levels = 2**spec.bits
    if rounding.method == "gptq":
        codes = gptq(rows, moments, scale, zero_point, levels, lives)
    else:
        bias: Any = call.reference.bias
        shift = rows.new_zeros(rows.shape[:2]) if bias is None else bias.detach().reshape(rows.shape[:2])
        before = sample_columns(call.reference, call.float_inputs, count, seed)
        targets = weight_rows(layer, call.reference.get_parameter("weight").detach()) @ before + shift[:, :, None]
        low, high = _clipping(call.node)
        task = Layer(
            weight=rows,
            scale=scale,
            zero_point=zero_point,
            columns=columns,
            targets=targets,
            bias=shift[:, :, None],
            low=low,
            high=high,
            mask=lives,
        )
        codes = adaround(task, levels, rounding.iterations, seed)
    return grid.with_codes(codes.reshape(weight.tensor.shape).to(torch.uint8).numpy())


def _clipping(node: fx.Node) -> tuple[float, float]:
    """Where the activation behind a layer clips; infinite if something else reads the layer as well."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    name = operator_name(user) if user is not None and user.op == "call_function" else ""
    if user is None or name not in ("relu", "relu6", "hardtanh"):
        return -math.inf, math.inf
    if name == "hardtanh":
        arguments = bound_arguments(user)
        return float(arguments["min_val"]), float(arguments["max_val"])
    return 0.0, 6.0 if name == "relu6" else math.inf
