"""Reads an exported program (.pt2) as modules under their original names, and describes it.

A model inside Bantam is an `fx.GraphModule`: placeholders are the user's inputs, layers are `call_module` nodes,
everything else is a `call_function` on ATen operators, `get_attr` reads constants, buffers and raw parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from compressors.descriptions import LayerDescription, ModelDescription, TensorDescription
from compressors.errors import CompressorError, ParityError, UnsupportedModel
from compressors.program_graph import lower_program
from compressors.shape_recording import record_shapes

PARITY_TOLERANCE = 1e-5
# Outputs below this are taken as zero when errors are related to them.
SMALLEST_SCALE = 1e-6
# Length given to a dynamic dimension that is not the batch.
FREE_LENGTH = 16
_ID_PRESERVING = {
    "view",
    "reshape",
    "slice",
    "to",
    "_to_copy",
    "clone",
    "contiguous",
    "unsqueeze",
    "squeeze",
    "flatten",
}


@dataclass(frozen=True)
class Program:
    """A model that is ready for techniques. module: in evaluation mode, on the CPU."""

    module: fx.GraphModule
    description: ModelDescription


def load_program(path: Path) -> Program:
    """Reads a .pt2 whose archive has been checked (`compressors.archive`), and compares it with the original once.

    Raises UnsupportedModel for what cannot be read, lowered or run; ParityError if the modules give other outputs.
    """
    try:
        with path.open("rb") as file:  # by name, torch wants a .pt2 ending, which a content-addressed store lacks
            program = torch.export.load(file)
    except Exception as error:
        raise UnsupportedModel(f"{path.name}: torch.export.load failed: {_first_line(error)}") from error
    try:
        module, training = lower_program(program)
        description = describe(program, module)
        # In training mode the program itself is random (dropout) and changes its statistics.
        if not training:
            check_parity(program, module, sample_inputs(description, batch=2, seed=0))
    except CompressorError:
        raise
    except Exception as error:
        raise UnsupportedModel(f"{path.name}: a forward pass failed: {_first_line(error)}") from error
    return Program(module, description)


def to_modules(program: ExportedProgram) -> fx.GraphModule:
    """The program as a GraphModule in evaluation mode; weights are copied, `program` is untouched.

    Raises UnsupportedModel, naming the node.
    """
    return lower_program(program)[0]


def check_parity(program: ExportedProgram, module: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> float:
    """Largest difference between program and module, relative to the largest output (see `relative_error`).

    Raises ParityError above PARITY_TOLERANCE.
    """
    with torch.no_grad():
        expected = _run_program(program, inputs)
        actual = pytree.tree_leaves(module(*inputs))
    error = max((relative_error(a, e) for a, e in zip(actual, expected, strict=True)), default=0.0)
    if not error <= PARITY_TOLERANCE:
        raise ParityError(
            f"modules differ from the exported program by {error:.2g}: above {PARITY_TOLERANCE:g}; "
            "the program uses an operator in a way that is not understood",
            max_error=error,
        )
    return error


def _run_program(program: ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Tensors that the program returns. Its lifted graph is run as it is, free of guards and name clashes."""
    remaining = iter(inputs)
    values: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            is_tensor = isinstance(spec.arg, TensorArgument)
            values.append(next(remaining) if is_tensor else getattr(spec.arg, "value", None))
        else:
            stored = program.state_dict.get(str(spec.target), program.constants.get(str(spec.target)))
            values.append(stored)
    returned = program.graph_module(*values)
    specs = program.graph_signature.output_specs
    return [
        value
        for spec, value in zip(specs, returned, strict=True)
        if spec.kind == OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)
    ]


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """max |actual - expected| / max |expected| over all values of one output, at least 0.

    Equal infinities, and NaNs in the same places, count as no difference; other shapes or NaNs as infinity.
    """
    if actual.shape != expected.shape:
        return math.inf
    if actual.numel() == 0:
        return 0.0
    a, e = actual.detach().to(torch.float64), expected.detach().to(torch.float64)
    difference = torch.where((a == e) | (a.isnan() & e.isnan()), 0.0, (a - e).abs())
    scale = torch.where(e.isfinite(), e.abs(), 0.0).max().clamp(min=SMALLEST_SCALE)
    error = float(difference.max() / scale)
    return math.inf if math.isnan(error) else error


def sample_inputs(description: ModelDescription, batch: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Inputs that a model accepts: floats uniform in [0, 1), ids below the embedding's size, other integers 1.

    batch: length of dimension 0 where that is dynamic. Other dynamic dimensions are FREE_LENGTH long.
    """
    generator = torch.Generator().manual_seed(seed)
    return tuple(_sample(tensor, batch, generator) for tensor in description.inputs)


def _sample(tensor: TensorDescription, batch: int, generator: torch.Generator) -> torch.Tensor:
    lengths = [batch if i == 0 else FREE_LENGTH for i in range(len(tensor.shape))]
    shape = [free if known is None else known for known, free in zip(tensor.shape, lengths, strict=True)]
    dtype = getattr(torch, tensor.dtype)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.rand(shape, generator=generator).to(dtype)
    if tensor.id_limit is not None:
        return torch.randint(0, tensor.id_limit, shape, generator=generator).to(dtype)
    return torch.ones(shape, dtype=dtype)


def describe(program: ExportedProgram, module: fx.GraphModule) -> ModelDescription:
    """Description of a lowered program; runs it once with two samples to count multiply-accumulates."""
    # A placeholder's target keeps the program's name; its own gives way to Python's, as that of `input` does.
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    inputs = tuple(
        _describe_tensor(str(node.target), values[str(node.target)], _id_limit(module, node))
        for node in module.graph.find_nodes(op="placeholder")
    )
    outputs = tuple(
        _describe_tensor(name, values[source])
        for name, source in zip(_output_names(program), program.graph_signature.user_outputs, strict=True)
        if source in values and isinstance(values[source], torch.Tensor)
    )
    partial = ModelDescription(
        format="pt2",
        parameters=sum(p.numel() for p in module.parameters()),
        inputs=inputs,
        outputs=outputs,
        layers=(),
        batch_is_dynamic=all(bool(tensor.shape) and tensor.shape[0] is None for tensor in inputs),
    )
    layers = describe_layers(module, sample_inputs(partial, batch=2, seed=0))
    return ModelDescription(**{**vars(partial), "layers": layers})


def describe_layers(module: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> tuple[LayerDescription, ...]:
    """Layers in order of first use; a layer that is called twice counts its MACs twice."""
    shapes = record_shapes(module, inputs)
    macs: dict[str, int] = {}
    for node in module.graph.find_nodes(op="call_module"):
        layer = module.get_submodule(str(node.target))
        count = layer_macs(layer, shapes[node.args[0]], shapes[node], len(inputs[0]))
        macs[str(node.target)] = macs.get(str(node.target), 0) + count
    return tuple(
        LayerDescription(
            name=name,
            kind=type(module.get_submodule(name)).__name__,
            parameters=sum(p.numel() for p in module.get_submodule(name).parameters()),
            macs=count,
        )
        for name, count in macs.items()
    )


def layer_macs(layer: nn.Module, input_shape: tuple[int, ...], output_shape: Any, batch: int) -> int:
    """Multiply-accumulates of one call, per sample of a batch of `batch`; biases and norms count as 0.

    The batch may stand anywhere in the shapes, also merged with other dimensions. output_shape: of a layer with several
    results a list, which is not read (a recurrent layer multiplies all its matrices once per step).
    """
    if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        positions = input_shape[0] * math.prod(input_shape[2:]) // batch
    elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        positions = output_shape[0] * math.prod(output_shape[2:]) // batch
    elif isinstance(layer, nn.Linear):
        positions = math.prod(output_shape[:-1]) // batch
    elif isinstance(layer, nn.RNNBase):
        return steps(layer, input_shape) * sum(p.numel() for p in layer.parameters() if p.dim() == 2)
    else:
        return 0
    return positions * layer.weight.numel()


def steps(layer: nn.RNNBase, input_shape: tuple[int, ...]) -> int:
    """Length of the sequences of `input_shape`, whose batch stands first, second, or nowhere."""
    return input_shape[1 if layer.batch_first and len(input_shape) == 3 else 0]


def _describe_tensor(name: str, value: torch.Tensor, id_limit: int | None = None) -> TensorDescription:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorDescription(name=name, shape=shape, dtype=str(value.dtype).removeprefix("torch."), id_limit=id_limit)


def _id_limit(module: fx.GraphModule, node: fx.Node) -> int | None:
    """Smallest embedding that an integer input is looked up in, also through changes of shape or dtype."""
    limits = []
    for user in node.users:
        if user.op == "call_module":
            layer = module.get_submodule(str(user.target))
            limits.append(layer.num_embeddings if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) else None)
        elif user.op == "call_function" and str(user.target).removeprefix("aten.").split(".")[0] in _ID_PRESERVING:
            limits.append(_id_limit(module, user))
    return min((limit for limit in limits if limit is not None), default=None)


def _output_names(program: ExportedProgram) -> list[str]:
    """Keys of a dictionary where the model returns one, else 'output' or 'output_0', 'output_1', …"""
    specification = program.call_spec.out_spec
    count = len(program.graph_signature.user_outputs)
    if specification is not None:
        template: Any = pytree.tree_unflatten(list(range(count)), specification)
        if isinstance(template, Mapping) and all(isinstance(place, int) for place in template.values()):
            return [str(key) for key, _ in sorted(template.items(), key=lambda item: item[1])]
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
