"""The program inside an uploaded archive (models/model.json), checked field by field and written anew.

`clean_program` returns a document that holds nothing but what was understood here: the graph, its signature, its
shapes and the names of its modules. Dropped on the way: guards (torch compiles them from source text), stack traces,
custom metadata and named-tuple definitions. The schema is torch/_export/serde/schema.py, major version 8.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from compressors.archive_arguments import argument, named_tensor, sym_bool, sym_float
from compressors.archive_json import (
    RESAVE,
    boolean,
    field,
    integer,
    mapping,
    mapping_of,
    sequence,
    shorten,
    string,
    union,
)
from compressors.archive_names import dotted, identifier, symbol
from compressors.archive_operators import operator
from compressors.archive_tensors import sym_int, tensor_meta
from compressors.archive_treespec import clean_treespec
from compressors.errors import UnsafeArchive

SCHEMA_MAJOR = 8
MAX_NODES = 200_000
_VERIFIERS = ("TRAINING", "ATEN", "")
# One activation: far above what a network on a CPU produces, far below what would bring the machine down.
MAX_ACTIVATION_BYTES = 2**33
_MODULE_STACK_ENTRY = re.compile(r"[\w.@'\[\]\-]*,[\w.@'\[\]\-]*,[\w.]*", re.ASCII)


@dataclass(frozen=True)
class CleanProgram:
    """document: what torch may read. weights, constants: names of the tensors that the program takes from each."""

    document: dict[str, Any]
    weights: frozenset[str]
    constants: frozenset[str]


def clean_program(value: Any) -> CleanProgram:
    """Raises UnsafeArchive for anything that could run code, exhaust the machine or is not understood."""
    root = "models/model.json"
    document = mapping(value, root)
    version = mapping(field(document, "schema_version", root), f"{root}.schema_version")
    if version.get("major") != SCHEMA_MAJOR:
        raise UnsafeArchive(
            f"{root}: schema version {shorten(version.get('major'))}; this release reads {SCHEMA_MAJOR}; {RESAVE}"
        )
    module = mapping(field(document, "graph_module", root), f"{root}.graph_module")
    signature, weights, constants = _signature(field(module, "signature", root), "signature")
    ranges = mapping_of(document.get("range_constraints", {}), "range_constraints", _range)
    for name in ranges:
        symbol(name, "range_constraints")
    verifiers = sequence(document.get("verifiers", []), "verifiers", string)
    for verifier in verifiers:
        if verifier not in _VERIFIERS:
            raise UnsafeArchive(f"verifiers: dialect {shorten(verifier)} is not read; save the output of torch.export")
    cleaned = {
        "graph_module": {
            "graph": _graph(field(module, "graph", root), "graph", depth=0),
            "signature": signature,
            "module_call_graph": _module_calls(field(module, "module_call_graph", root), "module_call_graph"),
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": mapping_of(field(document, "opset_version", root), "opset_version", integer),
        "range_constraints": ranges,
        "schema_version": {"major": SCHEMA_MAJOR, "minor": integer(version.get("minor"), "schema_version.minor")},
        "verifiers": verifiers,
        "torch_version": string(document.get("torch_version", ""), "torch_version")[:40],
        "guards_code": [],
    }
    return CleanProgram(cleaned, frozenset(weights), frozenset(constants))


# --- graph -----------------------------------------------------------------------------------------------------------


def _graph(value: Any, where: str, depth: int) -> dict[str, Any]:
    graph = mapping(value, where)
    if depth > 8:
        raise UnsafeArchive(f"{where}: graphs nested more than 8 deep; {RESAVE}")
    if graph.get("custom_obj_values"):
        names = ", ".join(map(shorten, mapping(graph["custom_obj_values"], where)))
        raise UnsafeArchive(f"{where}: custom object {names}: objects are unpickled when read; keep only tensors")
    nodes = field(graph, "nodes", where)
    if isinstance(nodes, list) and len(nodes) > MAX_NODES:
        raise UnsafeArchive(f"{where}: {len(nodes)} nodes; the limit is {MAX_NODES}")

    cleaned: dict[str, Any] = {
        "inputs": sequence(field(graph, "inputs", where), f"{where}.inputs", argument),
        "outputs": sequence(field(graph, "outputs", where), f"{where}.outputs", argument),
        "nodes": sequence(nodes, f"{where}.nodes", lambda entry, at: _node(entry, at, depth)),
        "tensor_values": mapping_of(field(graph, "tensor_values", where), f"{where}.tensor_values", _activation),
        "sym_int_values": mapping_of(graph.get("sym_int_values", {}), f"{where}.sym_int_values", sym_int),
        "sym_bool_values": mapping_of(graph.get("sym_bool_values", {}), f"{where}.sym_bool_values", sym_bool),
        "sym_float_values": mapping_of(graph.get("sym_float_values", {}), f"{where}.sym_float_values", sym_float),
        "custom_obj_values": {},
        "is_single_tensor_return": boolean(graph.get("is_single_tensor_return", False), where),
    }
    for kind in ("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"):
        for name in cleaned[kind]:
            identifier(name, f"{where}.{kind}")
    return cleaned


def _activation(value: Any, where: str) -> dict[str, Any]:
    meta, itemsize = tensor_meta(value, where)
    size = itemsize * math.prod(entry.get("as_int", 1) for entry in meta["sizes"])
    if size > MAX_ACTIVATION_BYTES:
        raise UnsafeArchive(f"{where}: a tensor of {size} bytes; the limit is {MAX_ACTIVATION_BYTES}")
    return meta


def _node(value: Any, where: str, depth: int) -> dict[str, Any]:
    node = mapping(value, where)
    target = operator(string(field(node, "target", where), where), where)

    def subgraph(entry: Any, at: str) -> dict[str, Any]:
        return _graph(entry, at, depth + 1)

    def node_argument(entry: Any, at: str) -> dict[str, Any]:
        return argument(entry, at, target=target, subgraph=subgraph)

    def named(entry: Any, at: str) -> dict[str, Any]:
        document = mapping(entry, at)
        name = string(field(document, "name", at), at)
        if name and not (name.isascii() and name.isidentifier()):
            raise UnsafeArchive(f"{at}: {shorten(name)} is not the name of an argument; {RESAVE}")
        kind = document.get("kind")
        if kind is not None and integer(kind, f"{at}.kind") not in (0, 1, 2):
            raise UnsafeArchive(f"{at}.kind={kind}: not a kind of argument; {RESAVE}")
        return {"name": name, "arg": node_argument(field(document, "arg", at), at), "kind": kind}

    cleaned: dict[str, Any] = {
        "target": target,
        "inputs": sequence(field(node, "inputs", where), f"{where}.inputs", named),
        "outputs": sequence(field(node, "outputs", where), f"{where}.outputs", node_argument),
        "metadata": _metadata(node.get("metadata", {}), where),
        "is_hop_single_tensor_return": None,
        "name": None,
    }
    if node.get("is_hop_single_tensor_return") is not None:
        cleaned["is_hop_single_tensor_return"] = boolean(node["is_hop_single_tensor_return"], where)
    if node.get("name") is not None:
        cleaned["name"] = identifier(string(node["name"], where), f"{where}.name")
    return cleaned


def _metadata(value: Any, where: str) -> dict[str, str]:
    """Keeps the modules that a node comes from ("key,path,type;…"), where they are written as torch writes them."""
    stack = mapping(value, f"{where}.metadata").get("nn_module_stack")
    if not isinstance(stack, str) or len(stack) > 10_000:
        return {}
    entries = stack.split(";")
    plain = all(
        _MODULE_STACK_ENTRY.fullmatch(entry) and all(part.count("[") == part.count("]") for part in entry.split(","))
        for entry in entries
    )
    return {"nn_module_stack": stack} if plain else {}


def _range(value: Any, where: str) -> dict[str, int | None]:
    document = mapping(value, where)
    return {
        bound: None if document.get(bound) is None else integer(document[bound], where)
        for bound in ("min_val", "max_val")
    }


# --- signature -------------------------------------------------------------------------------------------------------


def _signature(value: Any, where: str) -> tuple[dict[str, Any], list[str], list[str]]:
    document = mapping(value, where)
    weights: list[str] = []
    constants: list[str] = []

    def path(content: dict[str, Any], key: str, at: str) -> str:
        return dotted(string(field(content, key, at), at), at)

    def input_spec(entry: Any, at: str) -> dict[str, Any]:
        tag, content = union(entry, at)
        content = mapping(content, at)
        if tag == "user_input":
            return {tag: {"arg": argument(field(content, "arg", at), at)}}
        if tag == "constant_input":
            constant = argument(field(content, "value", at), at)
            return {tag: {"name": identifier(string(field(content, "name", at), at), at), "value": constant}}
        if tag == "parameter":
            weights.append(path(content, "parameter_name", at))
            return {tag: {"arg": named_tensor(field(content, "arg", at), at), "parameter_name": weights[-1]}}
        if tag == "buffer":
            persistent = boolean(field(content, "persistent", at), at)
            name = path(content, "buffer_name", at)
            (weights if persistent else constants).append(name)
            return {
                tag: {"arg": named_tensor(field(content, "arg", at), at), "buffer_name": name, "persistent": persistent}
            }
        if tag == "tensor_constant":
            constants.append(path(content, "tensor_constant_name", at))
            return {tag: {"arg": named_tensor(field(content, "arg", at), at), "tensor_constant_name": constants[-1]}}
        raise UnsafeArchive(f"{at}: an input of kind {shorten(tag)} is not read; models may take and hold tensors only")

    def output_spec(entry: Any, at: str) -> dict[str, Any]:
        tag, content = union(entry, at)
        content = mapping(content, at)
        if tag == "user_output":
            return {tag: {"arg": argument(field(content, "arg", at), at)}}
        if tag == "buffer_mutation":
            return {
                tag: {
                    "arg": named_tensor(field(content, "arg", at), at),
                    "buffer_name": path(content, "buffer_name", at),
                }
            }
        raise UnsafeArchive(
            f"{at}: an output of kind {shorten(tag)} is not read; export the model for inference, not a training step"
        )

    cleaned = {
        "input_specs": sequence(field(document, "input_specs", where), f"{where}.input_specs", input_spec),
        "output_specs": sequence(field(document, "output_specs", where), f"{where}.output_specs", output_spec),
    }
    return cleaned, weights, constants


def _module_calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Keeps the model's own calling convention (first entry) and the module paths of the others."""

    def entry(item: Any, at: str) -> dict[str, Any]:
        document = mapping(item, at)
        fqn = string(field(document, "fqn", at), at)
        signature = document.get("signature")
        if fqn:
            dotted(fqn.partition("@")[0], at)  # 'layer@1' is the second call of a module
            return {"fqn": fqn.partition("@")[0], "signature": None} if "@" not in fqn else {}
        return {"fqn": "", "signature": None if signature is None else _call_signature(signature, at)}

    return [call for call in sequence(value, where, entry) if call]


def _call_signature(value: Any, where: str) -> dict[str, Any]:
    document = mapping(value, where)
    names = document.get("forward_arg_names")
    return {
        "inputs": [],
        "outputs": [],
        "in_spec": clean_treespec(field(document, "in_spec", where), f"{where}.in_spec"),
        "out_spec": clean_treespec(field(document, "out_spec", where), f"{where}.out_spec"),
        "forward_arg_names": None
        if names is None
        else sequence(names, where, lambda name, at: identifier(string(name, at), at)),
    }
