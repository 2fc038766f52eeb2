"""Turns an exported program's graph into modules under their original names plus plain ATen functions."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, SymIntArgument, TensorArgument

from compressors import aten_recurrent
from compressors.aten_modules import LayerCall, operator_name, read_layer
from compressors.aten_spellings import plainly_spelled
from compressors.errors import UnsupportedModel
from compressors.module_tree import has_attribute, place
from compressors.program_layers import ProgramLayers, allowed_name

# Modules whose import declares readers of layers.
READERS = (aten_recurrent,)
_STORED = {InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR}
_INLINED = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
_ASSERTIONS = ("_assert", "sym_constrain_range")
_PLAIN_FUNCTIONS = {"_operator", "math", "torch", "builtins"}
_TRAINING_ARGUMENTS = {"dropout_p": 0.0, "train": False, "training": False}
_GUARDS = "_guards_fn"


def lower_program(program: ExportedProgram) -> tuple[fx.GraphModule, bool]:
    """The program as a GraphModule of layers and functions, and whether it was exported in training mode.

    Raises UnsupportedModel, naming the node, for control flow, custom operators and mutated inputs or buffers.
    """
    program = plainly_spelled(program)
    if _mutates_aliases(program):
        # An empty table decomposes nothing: the call only rewrites mutation into functions.
        program = program.run_decompositions({})
    lowering = _Lowering(program)
    lowering.lower()
    return lowering.assemble(), lowering.training


class _Lowering:
    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.graph = fx.Graph()
        self.training = False
        # What each source node became: a node of the new graph, or a literal, or a tuple of those.
        self._values: dict[fx.Node, Any] = {}
        self._mutated: dict[fx.Node, fx.Node] = {}
        self._first_only: set[fx.Node] = set()
        self._mutated_statistics: set[fx.Node] = set()
        self._stored: dict[fx.Node, str] = {}
        self._reads: dict[str, fx.Node] = {}
        self._attributes: dict[str, torch.Tensor] = {}
        self._layers = ProgramLayers(program)

    def lower(self) -> None:
        source = self.program.graph
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in source.find_nodes(op="placeholder"):
            self._placeholder(node, specs[node.name])
        if not any(node.op == "placeholder" for node in self.graph.nodes):
            raise UnsupportedModel("the program has no tensor input: export the model with its example inputs")
        self._output(self._body(self.program.graph_module))
        # Everything is functional by now, so whatever is unread may go.
        for node in reversed(self.graph.nodes):
            if not node.users and node.op not in {"placeholder", "output"}:
                self.graph.erase_node(node)

    def assemble(self) -> fx.GraphModule:
        root = nn.Module()
        used = {str(node.target) for node in self.graph.nodes if node.op == "call_module"}
        for name in sorted(used, key=lambda name: name.count(".")):
            place(root, name, self._layers.modules[name])
        read = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        for name in sorted(read):
            if not has_attribute(root, name):
                place(root, name, self._attributes[name])
        model = fx.GraphModule(root, self.graph, class_name="Program")
        return model.eval()

    def _placeholder(self, node: fx.Node, spec: Any) -> None:
        if spec.kind in _STORED:
            self._stored[node] = spec.target
        elif spec.kind == InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument):
            self._values[node] = self.graph.placeholder(node.name)
        elif spec.kind == InputKind.USER_INPUT and not isinstance(spec.arg, SymIntArgument):
            self._values[node] = getattr(spec.arg, "value", None)
        else:
            raise UnsupportedModel(
                f"input {node.name!r} is a {spec.kind.name.lower()} of {type(spec.arg).__name__}: only tensors can be "
                "inputs; export the model without it"
            )

    def _body(self, owner: fx.GraphModule) -> Any:
        """Lowers the nodes of `owner`'s graph after its placeholders; returns the source nodes that it returns."""
        for node in owner.graph.nodes:
            if node.op == "call_function":
                self._call(node, owner)
            elif node.op == "output":
                return node.args[0]
            elif node.op == "get_attr":
                value = operator.attrgetter(str(node.target))(owner)
                if isinstance(value, torch.Tensor):
                    self._stored[node] = str(node.target)
                    self._layers.constants[str(node.target)] = value
            elif node.op != "placeholder" and str(node.target) != _GUARDS:
                raise UnsupportedModel(f"node {node.name!r} is a {node.op}: export the model with torch.export")
        raise UnsupportedModel("the program's graph has no output node")

    def _call(self, node: fx.Node, owner: fx.GraphModule) -> None:
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            self._inline(node, owner)
            return
        name = operator_name(node)
        if name.startswith(_ASSERTIONS) or self._counts_batches(node):
            return
        if node.target is operator.getitem and self._getitem(node):
            return
        layer = read_layer(node, lambda value: value in self._stored)
        if layer is not None and not (layer.first_of_tuple and self._uses_more_than_first(node, layer)):
            self._layer(node, layer)
            return
        self._check_supported(node, name)
        if name.split(".")[0].endswith("_") and not name.startswith("_"):
            self._inplace(node, name)
            return
        args, kwargs = self._argument(node.args), self._argument(node.kwargs)
        call = self.graph.create_node("call_function", node.target, args, kwargs, name=node.name)
        self._values[node] = call
        if name:
            self.training |= _evaluate_always(call)

    def _check_supported(self, node: fx.Node, name: str) -> None:
        target = node.target
        if isinstance(target, torch._ops.OpOverload):
            if name:
                return
            remedy = "custom operators cannot be compressed; express it in torch functions and export again"
        elif getattr(target, "__module__", "") in _PLAIN_FUNCTIONS:
            return
        else:
            remedy = "only ATen operators can be compressed; export the model with torch.export"
        raise UnsupportedModel(f"node {node.name!r} calls {target}: {remedy}")

    def _inline(self, node: fx.Node, owner: fx.GraphModule) -> None:
        """Grad-mode and disabled-autocast regions change nothing in a forward pass: their bodies move up."""
        operator_ = str(getattr(node.target, "__name__", node.target))
        position = _INLINED.get(operator_)
        if position is None or (operator_ == "wrap_with_autocast" and node.args[2]):
            raise UnsupportedModel(
                f"node {node.name!r} calls {operator_}: control flow and wrapped regions cannot be compressed; "
                "export a model whose forward pass is straight-line"
            )
        body_node, *arguments = node.args[position:]
        assert isinstance(body_node, fx.Node)
        body = getattr(owner, str(body_node.target))
        for inner, outer in zip(body.graph.find_nodes(op="placeholder"), arguments, strict=True):
            if outer in self._stored:
                self._stored[inner] = self._stored[outer]  # type: ignore[index]
            else:
                self._values[inner] = self._argument(outer)
        self._values[node] = self._argument(self._body(body))

    def _counts_batches(self, node: fx.Node) -> bool:
        """Programs exported in training mode count batches by hand; the module does it itself."""
        first = node.args[0] if node.args else None
        counts = isinstance(first, fx.Node) and self._stored.get(first, "").endswith("num_batches_tracked")
        if counts:
            self._mutated_statistics.add(node)
            self.training = True
        return counts

    def _getitem(self, node: fx.Node) -> bool:
        source, index = node.args
        if source in self._first_only:
            if index == 0:
                self._values[node] = self._values[source]  # type: ignore[index]
            else:
                self._mutated_statistics.add(node)
            return True
        value = self._values.get(source)  # type: ignore[arg-type]
        if isinstance(value, (tuple, list)):
            self._values[node] = value[index]  # type: ignore[index]
            return True
        return False

    def _uses_more_than_first(self, node: fx.Node, layer: LayerCall) -> bool:
        """Saved statistics and updated running statistics may go unread or to a buffer; indices of maxima may not."""
        mutations = {
            spec.arg.name
            for spec in self.program.graph_signature.output_specs
            if spec.kind == OutputKind.BUFFER_MUTATION
        }
        for user in node.users:
            if user.target is not operator.getitem:
                return True
            if user.args[1] != 0 and user.users and not (layer.training and user.name in mutations):
                return True
        return False

    def _layer(self, node: fx.Node, layer: LayerCall) -> None:
        self.training |= layer.training
        tensors = {attribute: self._stored[tensor] for attribute, tensor in layer.tensors.items()}
        name = self._layers.name(node, layer, tensors, set(self._stored.values()))
        inputs = (layer.input,) if layer.states is None else (layer.input, layer.states)
        call = self.graph.call_module(name, self._argument(inputs))
        self._values[node] = self._flat_results(call, layer.state_count) if layer.state_count else call
        if layer.first_of_tuple:
            self._first_only.add(node)

    def _flat_results(self, call: fx.Node, state_count: int) -> tuple[fx.Node, ...]:
        """(output, *states) of a recurrent module; what nobody reads goes with everything else that is unread."""
        output = self.graph.call_function(operator.getitem, (call, 0))
        states = self.graph.call_function(operator.getitem, (call, 1))
        if state_count == 1:
            return output, states
        parts = (self.graph.call_function(operator.getitem, (states, i)) for i in range(state_count))
        return output, *parts

    def _argument(self, argument: Any) -> Any:
        return fx.node.map_aggregate(argument, self._value)

    def _value(self, value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if not isinstance(value, fx.Node):
            return value
        if value not in self._stored:
            if value not in self._values:
                raise UnsupportedModel(f"node {value.name!r} has no value in a forward pass and is used")
            return self._values[value]
        path = self._stored[value]
        if path not in self._reads:
            name = allowed_name(path)
            self._attributes[name] = self._layers.tensor(path)
            self._reads[path] = self.graph.get_attr(name)
        return self._reads[path]

    def _inplace(self, node: fx.Node, name: str) -> None:
        """`relu_(x)` becomes `relu(x)`, and later readers of x read the result."""
        base, _, overload = name.partition(".")
        packet = getattr(torch.ops.aten, base.removesuffix("_"), None)
        functional = getattr(packet, overload or "default", None)
        target = node.args[0]
        if functional is None or not isinstance(target, fx.Node) or target in self._stored:
            raise UnsupportedModel(f"node {node.name!r} changes {target} in place: write it without mutation")
        result = self.graph.create_node(
            "call_function", functional, self._argument(node.args), self._argument(node.kwargs), name=node.name
        )
        self._values[node] = result
        self._mutated[node] = target
        changed: fx.Node | None = target
        while changed is not None:
            self._values[changed] = result
            changed = self._mutated.get(changed)

    def _output(self, returned: Any) -> None:
        specs = self.program.graph_signature.output_specs
        results = []
        for spec, value in zip(specs, returned, strict=True):
            if spec.kind == OutputKind.USER_OUTPUT:
                if isinstance(value, fx.Node) and isinstance(spec.arg, TensorArgument):
                    results.append(self._argument(value))
            elif value not in self._mutated_statistics:
                raise UnsupportedModel(
                    f"node {spec.arg.name!r} writes to {spec.target!r}: models that change their inputs or buffers "
                    "cannot be compressed; export a model without state"
                )
        if not results:
            raise UnsupportedModel("the program returns no tensor")
        self.graph.output(results[0] if len(results) == 1 else tuple(results))


def _evaluate_always(call: fx.Node) -> bool:
    """Functions cannot follow the model's mode: what a training program makes random (attention dropout) is set to
    its evaluation form. Returns whether anything was."""
    assert isinstance(call.target, torch._ops.OpOverload)
    changed = False
    for position, argument in enumerate(call.target._schema.arguments):
        if argument.name not in _TRAINING_ARGUMENTS:
            continue
        if position < len(call.args) and call.args[position]:
            call.update_arg(position, _TRAINING_ARGUMENTS[argument.name])
            changed = True
        elif call.kwargs.get(argument.name):
            call.update_kwarg(argument.name, _TRAINING_ARGUMENTS[argument.name])
            changed = True
    return changed


def _mutates_aliases(program: ExportedProgram) -> bool:
    """Whether some call changes in place a tensor that shares memory with another one."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes if _is_inplace(node)):
        target = node.args[0]
        if not isinstance(target, fx.Node) or _may_alias(target) or any(_may_alias(user) for user in target.users):
            return True
    return False


def _is_inplace(node: fx.Node) -> bool:
    base = operator_name(node).split(".")[0]
    counts = bool(node.args) and str(node.args[0]).endswith("num_batches_tracked")
    return base.endswith("_") and not base.startswith("_") and not counts


def _may_alias(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return node.op == "call_function"
    views = any(result.alias_info is not None and not result.alias_info.is_write for result in target._schema.returns)
    return views or "dropout" in target._schema.name
