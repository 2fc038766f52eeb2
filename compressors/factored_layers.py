"""Layers that can be replaced by thinner ones in sequence: their weight as (out, in, *kernel), and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compressors.factorization import Factors
from compressors.module_tree import place
from compressors.recipes.low_rank import LayerKind
from compressors.shape_recording import record_shapes

Counts = NDArray[np.int64]

PARTS = ("first", "second", "third")
_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)


@dataclass(frozen=True)
class Site:
    """A layer that may be factorised. name: in the model. weight: (out, in, *kernel), float32.

    positions: per sample and summed over calls, at how many places the weight is applied to the inputs as they come
    (before), as the layer itself does (core) and to its outputs (after).
    """

    name: str
    layer: nn.Module
    kind: LayerKind
    weight: Tensor
    before: int
    core: int
    after: int

    @property
    def pointwise(self) -> bool:
        """The weight is a matrix."""
        return math.prod(self.weight.shape[2:]) == 1

    @property
    def has_bias(self) -> bool:
        """Something can be added to the outputs for free."""
        if isinstance(self.layer, _RECURRENT):
            return bool(self.layer.bias)
        return getattr(self.layer, "bias", None) is not None

    @property
    def parameters(self) -> int:
        """Values of the weight."""
        return self.weight.numel()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the weight per sample."""
        return 0 if self.kind == "embedding" else self.core * self.weight.numel()

    def cost(self, rank: Counts, in_rank: Counts) -> tuple[Counts, Counts]:
        """(parameters, multiply-accumulates) of factors with these ranks of outputs and inputs, element by element. A
        rank that is the whole side means no factor there, except for matrices, which have two factors always."""
        outputs, inputs, kernel = self.weight.shape[0], self.weight.shape[1], math.prod(self.weight.shape[2:])
        left = outputs * rank * ((rank < outputs) | self.pointwise)
        right = inputs * in_rank * (in_rank < inputs)
        core = rank * in_rank * kernel
        inner = 0 if self.kind == "embedding" else self.core
        return left + core + right, left * self.after + core * inner + right * self.before

    def gets_smaller(self, rank: Counts, in_rank: Counts) -> NDArray[np.bool_]:
        """Parameters fall and multiply-accumulates do not grow; of embeddings the former is enough."""
        parameters, macs = self.cost(rank, in_rank)
        smaller: NDArray[np.bool_] = (parameters < self.parameters) & ((macs <= self.macs) | (self.kind == "embedding"))
        return smaller


def find_sites(model: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> tuple[dict[str, Site], dict[str, str]]:
    """(layers that may be factorised, why each other layer with a weight may not), both in order of first use."""
    shapes = record_shapes(model, example_inputs)
    owners = _owners(model)
    positions: dict[str, tuple[int, int, int]] = {}
    for node in model.graph.find_nodes(op="call_module"):
        name = str(node.target)
        before = positions.get(name, (0, 0, 0))
        here = _positions(model.get_submodule(name), shapes[node.args[0]], shapes[node])
        positions[name] = (before[0] + here[0], before[1] + here[1], before[2] + here[2])
    sites: dict[str, Site] = {}
    refused: dict[str, str] = {}
    for name, places in positions.items():
        layer = model.get_submodule(name)
        found = _weight(layer)
        if found is None:
            if any(True for _ in layer.parameters()):
                refused[name] = f"{type(layer).__name__} has no weight matrix"
        elif isinstance(found, str):
            refused[name] = found
        elif others := _others(owners, name, layer):
            refused[name] = f"it shares its weight with {others[0]}"
        else:
            kind, weight = found
            sites[name] = Site(name, layer, kind, weight, *places)
    return sites, refused


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """Names under which each parameter is stored."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    return owners


def _others(owners: dict[int, list[str]], name: str, layer: nn.Module) -> list[str]:
    own = {f"{name}.{key}": value for key, value in layer.named_parameters(recurse=False)}
    return [other for value in own.values() for other in owners[id(value)] if other not in own]


def _positions(layer: nn.Module, given: Any, result: Any) -> tuple[int, int, int]:
    if isinstance(layer, nn.modules.conv._ConvNd):
        before, after = math.prod(given[2:]), math.prod(result[2:])
        return before, before if isinstance(layer, _TRANSPOSED) else after, after
    if isinstance(layer, (nn.Linear, nn.Embedding, nn.EmbeddingBag)):
        count = math.prod(result[1:-1])
    elif isinstance(layer, _RECURRENT):
        count = given[1 if layer.batch_first else 0] if len(given) == 3 else 1
    else:
        count = 0
    return count, count, count


def _weight(layer: nn.Module) -> tuple[LayerKind, Tensor] | str | None:
    """The weight as (out, in, *kernel), or why this layer is left out, or None for layers without one."""
    if isinstance(layer, nn.Linear):
        return "linear", layer.weight.detach()
    if isinstance(layer, nn.modules.conv._ConvNd):
        if layer.groups != 1:
            return f"its {layer.groups} groups are thin already"
        if layer.padding_mode != "zeros":
            return f"padding_mode={layer.padding_mode!r} is not understood"
        weight = layer.weight.detach()
        return "convolution", weight.transpose(0, 1) if isinstance(layer, _TRANSPOSED) else weight
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) and layer.max_norm is not None:
        return "max_norm rewrites its weight while it runs"
    if isinstance(layer, nn.EmbeddingBag) and layer.mode == "max":
        return "the largest of several rows is no linear function of them"
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding", layer.weight.detach().T
    if isinstance(layer, _RECURRENT):
        return "recurrent", torch.cat([getattr(layer, name).detach() for name in _input_weights(layer)])
    return None


def _input_weights(layer: nn.RNNBase) -> list[str]:
    return ["weight_ih_l0", "weight_ih_l0_reverse"] if layer.bidirectional else ["weight_ih_l0"]


def replacement(site: Site, factors: Factors, shift: Tensor | None = None) -> list[nn.Module]:
    """The layers that take the place of `site`, in order. shift: (out,), what the bias has to add."""
    layer = site.layer
    dtype = site.weight.dtype
    core = factors.core.to(dtype)
    left = None if factors.left is None else factors.left.to(dtype)
    right = None if factors.right is None else factors.right.to(dtype)
    if isinstance(layer, nn.Linear):
        assert left is not None
        return [_linear(core.flatten(1)), _linear(left, _shifted(layer.bias, shift))]
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        assert left is not None
        return [_table(layer, core.T), _linear(left)]
    if isinstance(layer, _RECURRENT):
        assert left is not None
        return [_linear(core), _recurrent(layer, left, shift)]
    assert isinstance(layer, nn.modules.conv._ConvNd)
    bias = _shifted(layer.bias, shift)
    layers = [] if right is None else [_pointwise(layer, right)]
    layers.append(_convolution(layer, core, bias if left is None else None))
    return layers if left is None else [*layers, _pointwise(layer, left, bias)]


def _shifted(bias: Tensor | None, shift: Tensor | None) -> Tensor | None:
    if bias is None or shift is None:
        return None if bias is None else bias.detach().clone()
    return (bias.detach().double() + shift).to(bias.dtype)


def _filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """`module`, made on the meta device, with these parameters."""
    for name, value in tensors.items():
        if value is not None:
            module._parameters[name] = nn.Parameter(value.contiguous().clone())
    return module


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _filled(made, weight=weight, bias=bias)


def _table(layer: nn.Embedding | nn.EmbeddingBag, weight: Tensor) -> nn.Module:
    options: dict[str, Any] = {"padding_idx": layer.padding_idx, "device": "meta"}
    if isinstance(layer, nn.EmbeddingBag):
        options |= {"mode": layer.mode, "include_last_offset": layer.include_last_offset}
    made = type(layer)(weight.shape[0], weight.shape[1], **options)
    return _filled(made, weight=weight)


def _recurrent(layer: nn.RNNBase, left: Tensor, shift: Tensor | None) -> nn.Module:
    """A copy whose first layer reads r inputs."""
    options: dict[str, Any] = {
        "num_layers": layer.num_layers,
        "bias": layer.bias,
        "batch_first": layer.batch_first,
        "dropout": layer.dropout,
        "bidirectional": layer.bidirectional,
    }
    if isinstance(layer, nn.LSTM):
        options["proj_size"] = layer.proj_size
    if isinstance(layer, nn.RNN):
        options["nonlinearity"] = layer.nonlinearity
    kind: Any = type(layer)
    made: nn.RNNBase = kind(left.shape[1], layer.hidden_size, device="meta", **options)
    values = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    names = _input_weights(layer)
    for name, part in zip(names, left.chunk(len(names)), strict=True):
        values[name] = part
    if shift is not None and layer.bias:
        for name, part in zip(names, shift.chunk(len(names)), strict=True):
            bias = name.replace("weight", "bias")
            values[bias] = (values[bias].double() + part).to(left.dtype)
    for name, value in values.items():  # by assignment, which keeps the layer's own list of weights in step
        setattr(made, name, nn.Parameter(value.contiguous().clone()))
    return made


def _pointwise(layer: nn.modules.conv._ConvNd, weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """A 1x1 convolution of as many dimensions as `layer` has. weight: (out, in)."""
    ones = [1] * len(layer.kernel_size)
    made = _CONVOLUTIONS[len(ones)](weight.shape[1], weight.shape[0], ones, bias=bias is not None, device="meta")
    return _filled(made, weight=weight.reshape(*weight.shape, *ones), bias=bias)


def _convolution(layer: Any, core: Tensor, bias: Tensor | None) -> nn.Module:
    """A convolution like `layer` with the weight `core`, (out, in, *kernel)."""
    options: dict[str, Any] = {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "bias": bias is not None,
        "device": "meta",
    }
    weight = core
    if isinstance(layer, _TRANSPOSED):
        options["output_padding"] = layer.output_padding
        weight = core.transpose(0, 1)
    made = type(layer)(core.shape[1], core.shape[0], **options)
    return _filled(made, weight=weight, bias=bias)


def insert_sequences(model: fx.GraphModule, sequences: Mapping[str, Sequence[nn.Module]]) -> None:
    """Replaces layers by sequences of layers, in place: `name` becomes `name.first`, `name.second`, `name.third`.
    Further arguments of a call (states of a recurrent layer) go to the last one."""
    for name, layers in sequences.items():
        holder = nn.Module()
        for child_name, child in model.get_submodule(name).named_children():
            holder.add_module(child_name, child)
        targets = [f"{name}.{part}" for part in PARTS[: len(layers)]]
        place(model, name, holder)
        for target, layer in zip(targets, layers, strict=True):
            place(model, target, layer)
        for node in list(model.graph.find_nodes(op="call_module", target=name)):
            value, *rest = node.args
            with model.graph.inserting_before(node):
                for target in targets[:-1]:
                    value = model.graph.call_module(target, (value,))
            node.target, node.args = targets[-1], (value, *rest)
    model.recompile()
    model.train(model.training)
