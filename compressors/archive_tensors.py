"""Shapes, types and storage of the tensors in an uploaded archive."""

from __future__ import annotations

import re
from typing import Any

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
from compressors.archive_names import dotted, expression
from compressors.errors import UnsafeArchive

STRIDED = 7
MAX_DIMENSIONS = 16
# torch/_export/serde/schema.py, ScalarType: bytes per element.
ITEMSIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2}
ITEMSIZE |= {28: 2, 29: 1, 30: 1, 31: 1, 32: 1, 33: 1, 34: 4, 35: 8}


def scalar_type(value: Any, where: str) -> int:
    if integer(value, where) not in ITEMSIZE:
        raise UnsafeArchive(f"{where}: dtype {value} is not known; {RESAVE}")
    return int(value)


def cpu(value: Any, where: str) -> dict[str, Any]:
    kind = mapping(value, where).get("type")
    if kind != "cpu":
        raise UnsafeArchive(f"{where}: device {shorten(kind)}; move the model to the CPU and export again")
    return {"type": "cpu", "index": None}


def sym_int(value: Any, where: str) -> dict[str, Any]:
    """A size: an integer, or an expression with the value it had when the model was exported."""
    tag, content = union(value, where)
    if tag == "as_int":
        return {tag: integer(content, where)}
    if tag != "as_expr":
        raise UnsafeArchive(f"{where}: {shorten(tag)} is not a kind of size; {RESAVE}")
    document = mapping(content, where)
    hint = document.get("hint")
    if hint is not None:
        kind, hinted = union(hint, where)
        if kind != "as_int":
            raise UnsafeArchive(f"{where}: hint {shorten(hint)} is not an integer; {RESAVE}")
        hint = {kind: integer(hinted, where)}
    return {tag: {"expr_str": expression(string(field(document, "expr_str", where), where), where), "hint": hint}}


def _size(value: Any, where: str) -> dict[str, Any]:
    size = sym_int(value, where)
    if size.get("as_int", 0) < 0:
        raise UnsafeArchive(f"{where}: {size['as_int']} is negative; {RESAVE}")
    return size


def tensor_meta(value: Any, where: str) -> tuple[dict[str, Any], int]:
    """The cleaned description of a dense CPU tensor, and its bytes per element."""
    document = mapping(value, where)
    dtype = scalar_type(field(document, "dtype", where), f"{where}.dtype")
    if field(document, "layout", where) != STRIDED:
        raise UnsafeArchive(f"{where}: layout {shorten(document['layout'])} is not read, only dense tensors; {RESAVE}")
    sizes = sequence(field(document, "sizes", where), f"{where}.sizes", _size)
    strides = sequence(field(document, "strides", where), f"{where}.strides", _size)
    if len(sizes) != len(strides) or len(sizes) > MAX_DIMENSIONS:
        raise UnsafeArchive(
            f"{where}: {len(sizes)} sizes and {len(strides)} strides; they must agree, {MAX_DIMENSIONS} at most"
        )
    return {
        "dtype": dtype,
        "sizes": sizes,
        "requires_grad": boolean(field(document, "requires_grad", where), where),
        "device": cpu(field(document, "device", where), f"{where}.device"),
        "strides": strides,
        "storage_offset": _size(field(document, "storage_offset", where), f"{where}.storage_offset"),
        "layout": STRIDED,
    }, ITEMSIZE[dtype]


def clean_payloads(
    value: Any, where: str, prefix: str, stored: dict[str, int], needed: frozenset[str]
) -> dict[str, Any]:
    """The table of weights or constants, checked against the bytes that are really there.

    prefix: 'weight_' or 'tensor_'. stored: bytes of each member of the folder. needed: tensors the program reads.
    Every tensor must lie inside its member and be no larger than it (a stride of 0 would make gigabytes of a few
    bytes); members that nothing refers to are left behind.
    """
    table = mapping_of(field(mapping(value, where), "config", where), where, mapping)
    missing = sorted(needed - table.keys())
    if missing:
        raise UnsafeArchive(f"{where}: {len(missing)} tensors are missing, first {shorten(missing[0])}; {RESAVE}")
    dtypes: dict[str, int] = {}
    cleaned = {}
    for name, entry in table.items():
        at = f"{where}[{shorten(name)}]"
        dotted(name, where)
        path = string(field(entry, "path_name", at), at)
        if boolean(field(entry, "use_pickle", at), at):
            raise UnsafeArchive(
                f"{at}: pickled; unpickling runs code of whoever wrote it; use plain tensors (no tensor subclass) "
                "and save again"
            )
        if re.fullmatch(rf"{prefix}\d+", path, re.ASCII) is None:
            raise UnsafeArchive(
                f"{at}: {shorten(path)} is not a plain tensor (custom and opaque objects are unpickled when read); "
                "keep only tensors in the model and save again"
            )
        if path not in stored:
            raise UnsafeArchive(f"{at}: member {path} is not in the archive; the file is incomplete: upload it again")
        meta, itemsize = tensor_meta(field(entry, "tensor_meta", at), at)
        if dtypes.setdefault(path, meta["dtype"]) != meta["dtype"]:
            raise UnsafeArchive(f"{at}: {path} is read with two dtypes; {RESAVE}")
        _check_storage(meta, itemsize, stored[path], at)
        is_param = boolean(field(entry, "is_param", at), at)
        cleaned[name] = {"path_name": path, "is_param": is_param, "use_pickle": False, "tensor_meta": meta}
    return {"config": cleaned}


def _check_storage(meta: dict[str, Any], itemsize: int, stored: int, where: str) -> None:
    static = [*meta["sizes"], *meta["strides"], meta["storage_offset"]]
    if any("as_int" not in entry for entry in static):
        raise UnsafeArchive(f"{where}: a stored tensor with a symbolic size; {RESAVE}")
    sizes = [entry["as_int"] for entry in meta["sizes"]]
    strides = [entry["as_int"] for entry in meta["strides"]]
    elements = 1
    last = meta["storage_offset"]["as_int"]
    for size, stride in zip(sizes, strides, strict=True):
        elements *= size
        last += (size - 1) * stride
    if stored % itemsize:
        raise UnsafeArchive(
            f"{where}: {stored} bytes are no multiple of {itemsize}; the file is damaged: upload it again"
        )
    needed = max(last + 1, elements) * itemsize if elements else 0
    if needed > stored:
        raise UnsafeArchive(
            f"{where}: shape {sizes} with strides {strides} needs {needed} bytes, {stored} are stored; "
            "call .contiguous() on it and save again"
        )
