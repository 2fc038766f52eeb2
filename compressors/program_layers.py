"""Layers and tensors of an exported program, under their original names.

A layer is named after its weight ('net.conv1.weight' makes 'net.conv1'); a layer without weights after the module that
the exporter saw around the call; failing both, after the node. One weight used twice in the same way is one module
called twice; one weight used in different ways is several modules that share the Parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from compressors.aten_modules import LayerCall
from compressors.errors import UnsupportedModel


class ProgramLayers:
    """modules: the layers made so far, by name. constants: tensors that the program keeps outside its state."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self.modules: dict[str, nn.Module] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._copies: dict[tuple[Any, ...], torch.Tensor] = {}

    def name(self, node: fx.Node, layer: LayerCall, tensors: Mapping[str, str], stored: Set[str]) -> str:
        """Name of the module for a call; the same one again for the same tensors and options.

        tensors: the program's name per tensor of the layer. stored: names of tensors, which no module may take.
        """
        key: tuple[Any, ...] = (layer.kind, _frozen(layer.options), _frozen(tensors))
        if not tensors:
            key = (*key, self._around(node, layer.kind) or node.name)
        if key not in self._names:
            name = self._new_name(node, layer.kind, tensors, stored)
            self._names[key] = name
            self.modules[name] = self._module(layer, tensors)
        return self._names[key]

    def _new_name(self, node: fx.Node, kind: type[nn.Module], tensors: Mapping[str, str], stored: Set[str]) -> str:
        around = self._around(node, kind)
        candidates: list[str] = []
        for attribute in ("weight", "running_mean", "weight_ih_l0"):
            if attribute not in tensors:
                continue
            path = tensors[attribute]
            if around is not None and self._same_tensor(f"{around}.{attribute}", path):
                candidates.append(around)
            owner, _, leaf = path.rpartition(".")
            if leaf == attribute and owner:
                candidates.append(owner)
            elif leaf.endswith(f"_{attribute}"):
                candidates.append(path.removesuffix(f"_{attribute}"))
            candidates.append(f"{path}_{kind.__name__.lower()}")
        candidates += [around] if around and not tensors else []
        candidates.append(node.name)
        candidates = [allowed_name(candidate) for candidate in candidates]
        taken = self.modules.keys() | stored
        free = [candidate for candidate in candidates if candidate not in taken]
        return free[0] if free else _numbered(candidates[0], taken)

    def _around(self, node: fx.Node, kind: type[nn.Module]) -> str | None:
        """Name of the module that the exporter saw around the call, if it is of the layer's own kind."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        if not stack:
            return None
        name, type_name = str(stack[-1][0]).split("@")[0], stack[-1][1]
        type_name = type_name if isinstance(type_name, str) else getattr(type_name, "__name__", "")
        return name if name and type_name.rpartition(".")[2] == kind.__name__ else None

    def _same_tensor(self, path: str, other: str) -> bool:
        state = self._program.state_dict
        if path == other:
            return True
        return path in state and other in state and _identity(state[path]) == _identity(state[other])

    def _module(self, layer: LayerCall, tensors: Mapping[str, str]) -> nn.Module:
        # On the meta device construction allocates and initialises nothing.
        with torch.device("meta"):
            module = layer.kind(**layer.options)
        for attribute, path in tensors.items():
            value = self.tensor(path)
            if attribute in module._parameters:
                # By assignment: recurrent modules keep a second list of their parameters.
                is_parameter = isinstance(value, nn.Parameter)
                setattr(module, attribute, value if is_parameter else nn.Parameter(value, requires_grad=False))
            else:
                module._buffers[attribute] = value.detach()
        if module._buffers.get("num_batches_tracked") is not None:
            path = f"{tensors['running_mean'].rpartition('.')[0]}.num_batches_tracked"
            known = path in self._program.state_dict
            module._buffers["num_batches_tracked"] = self.tensor(path) if known else torch.zeros((), dtype=torch.long)
        return module

    def tensor(self, path: str) -> torch.Tensor:
        """A copy of a stored tensor, the same object for every name of a tied one."""
        value = self._program.state_dict.get(path)
        if value is None:
            value = self.constants.get(path, self._program.constants.get(path))
        if not isinstance(value, torch.Tensor):
            raise UnsupportedModel(f"constant {path!r} is a {type(value).__name__}: only tensors can be stored")
        key = (*_identity(value), isinstance(value, nn.Parameter))
        if key not in self._copies:
            copy = value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
            is_parameter = isinstance(value, nn.Parameter)
            self._copies[key] = nn.Parameter(copy, requires_grad=value.requires_grad) if is_parameter else copy
        return self._copies[key]


def _frozen(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(options.items()))


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are the same memory read in the same way."""
    return (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, str(tensor.device))


def allowed_name(name: str) -> str:
    """`name` with an underscore after parts that GraphModule uses itself, such as 'graph' or 'type'."""
    return ".".join(f"{part}_" if hasattr(fx.GraphModule, part) else part for part in name.split("."))


def _numbered(name: str, taken: Iterable[str]) -> str:
    names = set(taken)
    return next(f"{name}_{i}" for i in range(1, len(names) + 2) if f"{name}_{i}" not in names)
