"""A quantised model as float modules that round where the integer graph rounds: what quantisation-aware
training trains.

Jacob et al. 2018, arXiv:1712.05877, section 3. The integer graph itself says which values it rounds and who reads them;
the exporter says which node of the module each of them is. Biases, whose int32 grid is fine, stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from compressors.activation_bits import range_roots
from compressors.channel_alignment import align_channels
from compressors.encodings.integers import IntegerCodes
from compressors.fake_quantization import Grid
from compressors.layer_weights import CONVOLUTIONS, TRANSPOSED, layer_weights
from compressors.onnx_export import ValueNames, trace_onnx
from compressors.onnx_graph import GraphView
from compressors.quantized_graph import Point, QuantizedGraph
from compressors.state import StaticQuantization, state_of
from compressors.static_quantization import write_integers

_TRAINED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
_EDGE = 0.49  # of a step: how far a weight may lie from its code and still round to it


@dataclass(frozen=True)
class Simulation:
    """module: a copy that rounds. weights: grids by the parameter's name. activations: grids by the exported value.

    Weights of other layers than convolutions and linear ones, shared ones, and those in groups stay at their codes.
    """

    module: fx.GraphModule
    weights: Mapping[str, Grid]
    activations: Mapping[str, Grid]

    @torch.no_grad()
    def write_back(self, model: fx.GraphModule, example_inputs: Sequence[Tensor]) -> None:
        """Gives `model`, which the simulation was made of, the trained values: codes, biases, ranges."""
        state = state_of(model)
        trained = dict(self.module.named_parameters())
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.copy_(trained[name])
        for name, grid in self.weights.items():
            encoding = state.encodings[name]
            assert isinstance(encoding, IntegerCodes)
            codes = grid.codes(trained[_latent(name)]).to(torch.uint8).numpy()
            scale = grid.scale().detach().numpy().astype(np.float32)
            state.encodings[name] = IntegerCodes(codes, encoding.bits, scale, encoding.zero_point)
            model.get_parameter(name).copy_(torch.from_numpy(state.encodings[name].decode()))
        if isinstance(state.activations, StaticQuantization) and state.activations.ranges is not None:
            roots = range_roots(GraphView(trace_onnx(model, example_inputs)[0]))
            symmetric = state.activations.config.activation_scheme == "symmetric"
            spans = {roots.get(name, name): _span(grid, symmetric) for name, grid in self.activations.items()}
            ranges = {name: spans.get(roots.get(name, name), old) for name, old in state.activations.ranges.items()}
            state.activations = StaticQuantization(state.activations.config, ranges)


def simulate(model: fx.GraphModule, example_inputs: Sequence[Tensor], *, learned: bool) -> Simulation:
    """learned: scales are parameters too (LSQ, arXiv:1902.08153)."""
    module = copy.deepcopy(model)
    state = state_of(module)
    activations = {}
    if isinstance(state.activations, StaticQuantization) and state.activations.ranges is not None:
        exported, names = trace_onnx(model, example_inputs)
        view = GraphView(align_channels(exported, state.activations.config.float_layers))
        graph = write_integers(view, state.activations.config, state.activations.ranges, state.encodings)
        activations = _insert(module, graph, names, learned)
    weights = {}
    for weight in layer_weights(module):
        encoding = state.encodings.get(weight.name)
        if encoding is None:
            continue
        layer = dict(module.named_modules()).get(weight.layers[0])
        alone = len(weight.names) == 1 and len(weight.layers) == 1
        if not alone or not isinstance(layer, _TRAINED) or not isinstance(encoding, IntegerCodes) or encoding.blocks:
            weight.tensor.requires_grad_(False)
            continue
        weights[weight.name] = _round_weight(layer, weight.tensor, encoding, state.floats.get(weight.name), learned)
        if weight.name in state.masks:
            state.masks[_latent(weight.name)] = state.masks.pop(weight.name)
    return Simulation(module, weights, activations)


def _latent(name: str) -> str:
    """What a rounded parameter's trained values are called."""
    layer, _, parameter = name.rpartition(".")
    return f"{layer}.parametrizations.{parameter}.original"


@torch.no_grad()
def _round_weight(layer: nn.Module, weight: Tensor, codes: IntegerCodes, before: Tensor | None, learned: bool) -> Grid:
    """Lets the layer round its weight, which starts as close to what it was before as its codes allow."""
    scale = torch.from_numpy(np.array(codes.scale, dtype=np.float32)).expand([-1] * codes.scale.ndim)
    zero_point = torch.from_numpy(codes.zero_point.astype(np.float32))
    scale = scale.reshape([1] * (weight.ndim - scale.ndim) + list(scale.shape))
    if before is not None:
        reach = _EDGE * scale.abs()
        weight.add_(torch.minimum(torch.maximum(before - weight, -reach), reach))
    grid = Grid(scale, zero_point, 2**codes.bits - 1, learned=learned)
    parametrize.register_parametrization(layer, "weight", grid, unsafe=True)
    return grid


def _insert(module: fx.GraphModule, graph: QuantizedGraph, names: ValueNames, learned: bool) -> dict[str, Grid]:
    """Adds the grids of activations to the module's graph."""
    nodes = {node.name: node for node in module.graph.nodes}
    first: dict[str, fx.Node] = {}
    for name, value in names.values.items():
        if name in nodes:
            first.setdefault(value, nodes[name])
    grids = {}
    for value, point in graph.points.items():
        node = first.get(value) or _moved_to(value, graph, first)
        if node is None or node.op == "get_attr":
            continue
        grids[value] = _grid(point, learned)
        readers = list(node.users)
        if point.readers is not None:
            wanted = {names.origins.get(reader) for reader in point.readers}
            readers = [user for user in readers if user.name in wanted]
        target = f"grid_{len(grids)}"
        module.add_submodule(target, grids[value])
        with module.graph.inserting_after(node):
            rounded = module.graph.call_module(target, (node,))
        for reader in readers:
            reader.replace_input_with(node, rounded)
    module.recompile()
    return grids


def _moved_to(value: str, graph: QuantizedGraph, first: Mapping[str, fx.Node]) -> fx.Node | None:
    """The node of what a value without a node of its own becomes by moves."""
    for output, source in graph.moved.items():
        if source == value:
            return first.get(output) or _moved_to(output, graph, first)
    return None


def _grid(point: Point, learned: bool) -> Grid:
    quantized = point.quantized
    offset = None if quantized.offset is None else torch.tensor(quantized.offset, dtype=torch.float32)
    return Grid(
        torch.tensor(quantized.scale, dtype=torch.float32),
        torch.tensor(float(quantized.zero_point)),
        quantized.levels,
        learned=learned and not point.fixed,
        offset=None if offset is None else offset.reshape(-1, 1, 1),
        limit=point.limit,
    )


def _span(grid: Grid, symmetric: bool) -> tuple[float, float]:
    """The range that leads to a grid again."""
    scale, zero_point = float(grid.scale().detach()), float(grid.zero_point)
    if symmetric and zero_point:
        high = max(zero_point - 1, 1) * scale
        return -high, high
    return -zero_point * scale, (grid.levels - zero_point) * scale
