"""The calling convention of an uploaded program: nested tuples, lists and dicts of tensors, as JSON in a string.

torch's own reader looks registered classes up by name and imports enumerations by path; here only containers pass.
"""

from __future__ import annotations

import json
from typing import Any

from compressors.archive_json import RESAVE, field, mapping, parse_json, sequence, shorten, string
from compressors.archive_names import identifier
from compressors.errors import UnsafeArchive

_SEQUENCES = ("builtins.tuple", "builtins.list")
_MAX_DEPTH = 16


def clean_treespec(value: Any, where: str) -> str:
    """torch.utils._pytree's protocol 1: [1, {"type", "context", "children_spec"}]."""
    document = parse_json(string(value, where).encode("utf-8", "replace"), where)
    if not isinstance(document, list) or len(document) != 2 or document[0] != 1:
        raise UnsafeArchive(f"{where}: {shorten(document)} is not a tree of inputs of protocol 1; {RESAVE}")
    return json.dumps([1, _node(document[1], where, _MAX_DEPTH)])


def _node(value: Any, where: str, depth: int) -> dict[str, Any]:
    node = mapping(value, where)
    kind, context = field(node, "type", where), field(node, "context", where)
    if depth == 0:
        raise UnsafeArchive(f"{where}: nested more than {_MAX_DEPTH} deep; {RESAVE}")
    children = sequence(field(node, "children_spec", where), where, lambda child, at: _node(child, where, depth - 1))
    if kind is None and context is None and not children:
        return {"type": None, "context": None, "children_spec": []}
    if kind in _SEQUENCES and context == "null":
        return {"type": kind, "context": "null", "children_spec": children}
    if kind == "builtins.dict":
        keys = sequence(parse_json(string(context, where).encode("utf-8", "replace"), where), where, string)
        for key in keys:
            identifier(key, where)
        if len(keys) == len(children):
            return {"type": kind, "context": json.dumps(keys), "children_spec": children}
    raise UnsafeArchive(
        f"{where}: container {shorten(kind)} is not read; take and return tensors in tuples, lists or dicts "
        "and export again"
    )
