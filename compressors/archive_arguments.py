"""Arguments of the operators in an uploaded program: tensors by name, numbers and flags; nothing builds objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compressors.archive_json import RESAVE, boolean, field, integer, mapping, number, sequence, shorten, string, union
from compressors.archive_names import expression, identifier
from compressors.archive_operators import operator_string
from compressors.archive_tensors import STRIDED, cpu, scalar_type
from compressors.errors import UnsafeArchive

Graph = Callable[[Any, str], dict[str, Any]]


def named_tensor(value: Any, where: str) -> dict[str, str]:
    return {"name": identifier(string(field(mapping(value, where), "name", where), where), where)}


def _symbolic(kind: str, literal: Callable[[Any, str], Any]) -> Callable[[Any, str], dict[str, Any]]:
    def read(value: Any, where: str) -> dict[str, Any]:
        tag, content = union(value, where)
        if tag == "as_name":
            return {tag: identifier(string(content, where), where)}
        if tag == kind:
            return {tag: literal(content, where)}
        raise UnsafeArchive(f"{where}: {shorten(tag)} is not a kind of symbolic value; {RESAVE}")

    return read


def _optional_tensor(value: Any, where: str) -> dict[str, Any]:
    tag, content = union(value, where)
    if tag == "as_none":
        return {tag: True}
    if tag == "as_tensor":
        return {tag: named_tensor(content, where)}
    raise UnsafeArchive(f"{where}: {shorten(tag)} is not a tensor; {RESAVE}")


def _complex(value: Any, where: str) -> dict[str, Any]:
    document = mapping(value, where)
    return {part: number(field(document, part, where), where) for part in ("real", "imag")}


def _memory_format(value: Any, where: str) -> int:
    if integer(value, where) not in (1, 2, 3, 4):
        raise UnsafeArchive(f"{where}: memory format {value} is not known; {RESAVE}")
    return int(value)


def _layout(value: Any, where: str) -> int:
    if integer(value, where) != STRIDED:
        raise UnsafeArchive(
            f"{where}: layout {value} is not read, only dense tensors; call to_dense() before exporting"
        )
    return STRIDED


def _many(item: Callable[[Any, str], Any]) -> Callable[[Any, str], list[Any]]:
    return lambda value, where: sequence(value, where, item)


_sym_int_argument = _symbolic("as_int", integer)
_sym_float_argument = _symbolic("as_float", number)
_sym_bool_argument = _symbolic("as_bool", boolean)
_ARGUMENTS: dict[str, Callable[[Any, str], Any]] = {
    "as_none": lambda value, where: True,
    "as_tensor": named_tensor,
    "as_tensors": _many(named_tensor),
    "as_nested_tensors": _many(_many(named_tensor)),
    "as_optional_tensor": _optional_tensor,
    "as_optional_tensors": _many(_optional_tensor),
    "as_int": integer,
    "as_ints": _many(integer),
    "as_int_lists": _many(_many(integer)),
    "as_float": number,
    "as_floats": _many(number),
    "as_float_lists": _many(_many(number)),
    "as_bool": boolean,
    "as_bools": _many(boolean),
    "as_complex": _complex,
    "as_sym_int": _sym_int_argument,
    "as_sym_ints": _many(_sym_int_argument),
    "as_sym_float": _sym_float_argument,
    "as_sym_floats": _many(_sym_float_argument),
    "as_sym_bool": _sym_bool_argument,
    "as_sym_bools": _many(_sym_bool_argument),
    "as_scalar_type": scalar_type,
    "as_memory_format": _memory_format,
    "as_layout": _layout,
    "as_device": cpu,
}


def argument(value: Any, where: str, *, target: str = "", subgraph: Graph | None = None) -> dict[str, Any]:
    """One argument, input or output. target: the operator it is given to. subgraph: reads a nested graph."""
    tag, content = union(value, where)
    if tag in _ARGUMENTS:
        return {tag: _ARGUMENTS[tag](content, where)}
    if tag == "as_string":
        return {tag: operator_string(string(content, where), target, where)}
    if tag == "as_graph" and subgraph is not None:
        document = mapping(content, where)
        name = identifier(string(field(document, "name", where), where), where)
        return {tag: {"name": name, "graph": subgraph(field(document, "graph", where), f"{where}.graph")}}
    if tag == "as_custom_obj":
        raise UnsafeArchive(f"{where}: a custom object; objects are unpickled when read; keep only tensors")
    raise UnsafeArchive(f"{where}: an argument of kind {shorten(tag)} is not read; export plain tensor operations")


def sym_bool(value: Any, where: str) -> dict[str, Any]:
    tag, content = union(value, where)
    return {"as_bool": boolean(content, where)} if tag == "as_bool" else _sym_expression(tag, content, where)


def sym_float(value: Any, where: str) -> dict[str, Any]:
    tag, content = union(value, where)
    return {"as_float": number(content, where)} if tag == "as_float" else _sym_expression(tag, content, where)


def _sym_expression(tag: str, content: Any, where: str) -> dict[str, Any]:
    if tag != "as_expr":
        raise UnsafeArchive(f"{where}: {shorten(tag)} is not a kind of symbolic value; {RESAVE}")
    text = field(mapping(content, where), "expr_str", where)
    return {"as_expr": {"expr_str": expression(string(text, where), where), "hint": None}}
