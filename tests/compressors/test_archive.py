"""Hostile archives are refused before torch sees them, and their payloads do not run."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressors.archive import ArchiveLimits, check_archive, copy_archive
from compressors.errors import UnsafeArchive
from tests.archives import (
    CONSTANTS,
    PROGRAM,
    SAMPLES,
    WEIGHTS,
    Members,
    add_constant,
    edit_json,
    first_weight,
    payload,
    read_members,
    torch_payload,
    write_members,
    write_tiny_model,
    zip_bomb,
)
from tests.models import exported


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.pt2")


@pytest.fixture(scope="module")
def members(tiny: Path) -> Members:
    return read_members(tiny)


def test_a_benign_archive_passes_and_its_copy_computes_the_same(tiny: Path, tmp_path: Path) -> None:
    check_archive(tiny)
    copy_archive(tiny, tmp_path / "copy.pt2")
    images = torch.rand(5, 3, 8, 8)
    assert torch.equal(
        torch.export.load(tmp_path / "copy.pt2").module()(images), torch.export.load(tiny).module()(images)
    )


@pytest.mark.parametrize("name", ["option_a_resnet", "bert", "two_inputs", "tied_weights"])
@pytest.mark.filterwarnings("ignore")
def test_models_of_every_kind_survive_the_copy(name: str, tmp_path: Path) -> None:
    program = exported(name)
    torch.export.save(program, tmp_path / "model.pt2")
    copy_archive(tmp_path / "model.pt2", tmp_path / "copy.pt2")
    copied = torch.export.load(tmp_path / "copy.pt2")
    assert copied.graph_module.code == program.graph_module.code
    assert str(copied.graph_signature) == str(program.graph_signature)
    assert str(copied.range_constraints) == str(program.range_constraints)
    assert copied.call_spec == program.call_spec
    assert copied.state_dict.keys() == program.state_dict.keys()
    assert all(torch.equal(copied.state_dict[key], value) for key, value in program.state_dict.items())


def test_a_nested_graph_survives_the_copy_and_is_checked(tmp_path: Path) -> None:
    """no_grad blocks become graphs inside the graph; they are held to the same rules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(_WithoutGradient(), (torch.rand(2, 3),)), tmp_path / "model.pt2")
    copy_archive(tmp_path / "model.pt2", tmp_path / "copy.pt2")
    x = torch.rand(2, 3)
    assert torch.equal(torch.export.load(tmp_path / "copy.pt2").module()(x), x * 2 + x)

    def change(document: Any) -> None:
        text = json.dumps(document["graph_module"]["graph"]["nodes"])
        assert "wrap_with_set_grad_enabled" in text
        document["graph_module"]["graph"]["nodes"] = json.loads(text.replace("torch.ops.aten.mul.Tensor", "os.system"))

    hostile = edit_json(read_members(tmp_path / "model.pt2"), PROGRAM, change)
    with pytest.raises(UnsafeArchive, match=r"graph\.nodes\[0\].*os\.system"):
        check_archive(write_members(tmp_path / "hostile.pt2", hostile))


class _WithoutGradient(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            doubled = x * 2
        return doubled + x


def test_the_copy_holds_no_sample_inputs_and_no_paths_of_the_author(tiny: Path, tmp_path: Path) -> None:
    copy_archive(tiny, tmp_path / "copy.pt2")
    copied = read_members(tmp_path / "copy.pt2")
    assert copied[SAMPLES] == b""
    assert b"stack_trace" in read_members(tiny)[PROGRAM]
    assert b"stack_trace" not in copied[PROGRAM]
    assert b"nn_module_stack" in copied[PROGRAM]


def test_the_same_model_gives_the_same_copy(tiny: Path, tmp_path: Path) -> None:
    copies = [tmp_path / "1.pt2", tmp_path / "2.pt2"]
    for path in copies:
        copy_archive(tiny, path)
    assert copies[0].read_bytes() == copies[1].read_bytes()
    check_archive(copies[0])


# --- payloads: every one of these creates a file when torch.export.load reads it --------------------------------------

Build = Callable[[Members, Path], Members]


def _in_samples(members: Members, marker: Path) -> Members:
    return {**members, SAMPLES: torch_payload(marker)}


def _in_samples_bare(members: Members, marker: Path) -> Members:
    return {**members, SAMPLES: payload(marker)}


def _as_pickled_weight(members: Members, marker: Path) -> Members:
    path_name = first_weight_path(members)
    changed = edit_json(members, WEIGHTS, lambda d: first_weight(d).update(use_pickle=True))
    return {**changed, f"data/weights/{path_name}": torch_payload(marker)}


def _as_pickled_constant(members: Members, marker: Path) -> Members:
    return add_constant(members, "tensor_9", torch_payload(marker), use_pickle=True)


def _as_opaque_constant(members: Members, marker: Path) -> Members:
    return add_constant(members, "opaque_obj_0", payload(marker), use_pickle=True)


def _as_legacy_weights(members: Members, marker: Path) -> Members:
    return {**members, "data/weights/model.pt": torch_payload(marker)}


def _as_size(members: Members, marker: Path) -> Members:
    code = f"open({str(marker)!r}, 'w') and 1"

    def change(document: Any) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        values["image"]["sizes"][0] = {"as_expr": {"expr_str": code, "hint": {"as_int": 2}}}

    return edit_json(members, PROGRAM, change)


def _as_input_name(members: Members, marker: Path) -> Members:
    """fx writes names into source text; this one parses as parameter, argument and assignment target."""
    name = f"image=torch[open({str(marker)!r}, 'w')]"

    def change(document: Any) -> None:
        program = document["graph_module"]
        program["graph"]["nodes"][0]["inputs"][1]["kind"] = 2  # image - mean: the second argument by keyword
        values = program["graph"]["tensor_values"]
        values[name] = values.pop("image")
        text = json.dumps(program).replace('{"name": "image"}', json.dumps({"name": name}))
        document["graph_module"] = json.loads(text)

    return edit_json(members, PROGRAM, change)


def first_weight_path(members: Members) -> str:
    found: list[str] = []
    edit_json(members, WEIGHTS, lambda d: found.append(first_weight(d)["path_name"]))
    return found[0]


RUNNING: dict[str, tuple[Build, str]] = {
    "in sample inputs": (_in_samples, "the pickle calls"),
    "in sample inputs, without zip": (_in_samples_bare, "sample_inputs"),
    "as a pickled weight": (_as_pickled_weight, "pickled"),
    "as a pickled constant": (_as_pickled_constant, "pickled"),
    "as an opaque constant": (_as_opaque_constant, "opaque"),
    "as weights of the old layout": (_as_legacy_weights, "pickled"),
    "as a symbolic size": (_as_size, "not a symbolic size"),
    "as the name of an input": (_as_input_name, "not a name that torch.export writes"),
}


@pytest.mark.parametrize("name", RUNNING)
def test_a_payload_is_refused_and_does_not_run(name: str, members: Members, tmp_path: Path) -> None:
    build, message = RUNNING[name]
    marker = tmp_path / "marker"
    hostile = write_members(tmp_path / "hostile.pt2", build(members, marker))
    with pytest.raises(UnsafeArchive, match=message):
        check_archive(hostile)
    with pytest.raises(UnsafeArchive, match=message):
        copy_archive(hostile, tmp_path / "copy.pt2")
    assert not (tmp_path / "copy.pt2").exists()
    assert not marker.exists()


@pytest.mark.parametrize("name", RUNNING)
@pytest.mark.filterwarnings("ignore")
def test_the_payload_is_real(name: str, members: Members, tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    marker = tmp_path / "marker"
    hostile = write_members(tmp_path / "hostile.pt2", RUNNING[name][0](members, marker))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):  # most fail once their payload has run
            torch.export.load(hostile).module()(torch.rand(2, 3, 8, 8))
    assert marker.exists()


# --- content ----------------------------------------------------------------------------------------------------------


def _program(change: Callable[[Any], None]) -> Callable[[Members], Members]:
    return lambda members: edit_json(members, PROGRAM, change)


def _weights(change: Callable[[Any], None]) -> Callable[[Members], Members]:
    return lambda members: edit_json(members, WEIGHTS, change)


def _target(target: str) -> Callable[[Members], Members]:
    return _program(lambda d: d["graph_module"]["graph"]["nodes"][0].update(target=target))


def _meta(**changes: Any) -> Callable[[Members], Members]:
    return _weights(lambda d: first_weight(d)["tensor_meta"].update(changes))


def _argument(argument: Any) -> Callable[[Members], Members]:
    return _program(lambda d: d["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(arg=argument))


def _member(name: str, content: bytes = b"") -> Callable[[Members], Members]:
    return lambda members: {**members, name: content}


def _call(**changes: Any) -> Callable[[Members], Members]:
    return _program(lambda d: d["graph_module"]["module_call_graph"][0]["signature"].update(changes))


_ENUM = (
    '[1, {"type": "builtins.tuple", "context": "{\\"__enum__\\": true, \\"fqn\\": \\"os:x\\"}", "children_spec": []}]'
)
_BAD_KEY = (
    '[1, {"type": "builtins.dict", "context": "[\\"a=1):\\"]", '
    '"children_spec": [{"type": null, "context": null, "children_spec": []}]}]'
)

REFUSED: dict[str, tuple[Callable[[Members], Members], str]] = {
    "custom operator": (_target("torch.ops.foo.bar.default"), "torch.ops.foo"),
    "os.system": (_target("os.system"), "os.system"),
    "torch.load": (_target("torch.load"), "torch.load"),
    "attribute walk": (_target("torch.ops.aten.relu.default.__globals__"), "globals"),
    "method caller": (_target("_operator.methodcaller"), "methodcaller"),
    "huge power": (_target("_operator.pow"), "pow"),
    "file operator": (_target("torch.ops.aten.from_file.default"), "from_file"),
    "storage operator": (_target("torch.ops.aten.set_.source_Storage"), "set_"),
    "unsafe sparse": (_target("torch.ops.aten._sparse_coo_tensor_unsafe.default"), "_sparse"),
    "extension": (_target("#foo:bar"), "foo"),
    "operator as argument": (_argument({"as_operator": "_operator.call"}), "as_operator"),
    "custom object argument": (_argument({"as_custom_obj": {"name": "x", "class_fqn": "y"}}), "custom object"),
    "text argument": (_argument({"as_string": "__import__('os')"}), "__import__"),
    "device argument": (_argument({"as_device": {"type": "cuda", "index": 0}}), "CPU"),
    "two alternatives": (_argument({"as_int": 1, "as_bool": True}), "2 alternatives"),
    "integer of 400 digits": (_argument({"as_int": 10**400}), "64 bits"),
    "enumeration in the calling convention": (_call(in_spec=_ENUM), "builtins.tuple"),
    "code in a key": (_call(out_spec=_BAD_KEY), "not a name"),
    "code in an argument name": (_call(forward_arg_names=["x=open('f')"]), "not a name"),
    "unknown container": (_call(out_spec='[1, {"type": "x.Y", "context": "null", "children_spec": []}]'), "x.Y"),
    "endless symbol": (
        _program(lambda d: d["range_constraints"].update({"u99999999999": {"min_val": 0, "max_val": 1}})),
        "u99999999999",
    ),
    "schema of the future": (_program(lambda d: d["schema_version"].update(major=9)), "schema version 9"),
    "custom object table": (
        _program(lambda d: d["graph_module"]["graph"].update(custom_obj_values={"o": {}})),
        "custom object",
    ),
    "custom object input": (
        _program(
            lambda d: d["graph_module"]["signature"]["input_specs"].append({"custom_obj": {"custom_obj_name": "x"}})
        ),
        "custom_obj",
    ),
    "path as weight name": (
        _weights(lambda d: d["config"].update({"../x": first_weight(d)})),
        "not a module path",
    ),
    "negative size": (_meta(sizes=[{"as_int": -4}] * 4), "negative"),
    "negative offset": (_meta(storage_offset={"as_int": -1}), "negative"),
    "offset beyond the end": (_meta(storage_offset={"as_int": 1}), "are stored"),
    "size beyond the end": (
        _meta(sizes=[{"as_int": 10**9}, *[{"as_int": 3}] * 3]),
        "are stored",
    ),
    "expanded from few bytes": (
        _meta(sizes=[{"as_int": 10**10}], strides=[{"as_int": 0}]),
        "are stored",
    ),
    "unknown dtype": (_meta(dtype=99), "dtype 99"),
    "weight on a GPU": (_meta(device={"type": "cuda", "index": 0}), "CPU"),
    "sparse weight": (_meta(layout=1), "layout"),
    "missing weight": (_weights(lambda d: d["config"].pop("conv.weight")), "conv.weight"),
    "weight without bytes": (
        lambda members: {k: v for k, v in members.items() if k != f"data/weights/{first_weight_path(members)}"},
        "not in the archive",
    ),
    "huge activation": (
        _program(lambda d: d["graph_module"]["graph"]["tensor_values"]["image"].update(sizes=[{"as_int": 2**50}] * 4)),
        "bytes; the limit is",
    ),
    "custom object": (
        lambda members: add_constant(members, "custom_obj_0", b"x", use_pickle=True),
        "custom and opaque objects",
    ),
    "compiled code": (_member("data/aotinductor/model/x.so"), "compiled code"),
    "extra file": (_member("extra/readme.txt"), "extra files"),
    "TorchScript": (_member("code/__torch__.py"), "TorchScript"),
    "saved module": (_member("data.pkl"), "torch.export.save"),
    "second model": (_member("models/other.json"), "one model"),
    "unknown member": (_member("notes.txt"), "does not belong"),
    "deep nesting": (_member(PROGRAM, b"[" * 200_000), "nested too deeply"),
    "no JSON": (_member(PROGRAM, b"\xff\xfe"), "not valid JSON"),
    "no object": (_member(CONSTANTS, b"[]"), "not an object"),
    "big-endian": (_member("byteorder", b"big"), "little"),
    "other format": (_member("archive_format", b"xyz"), "archive_format"),
    "stack global in sample inputs": (
        lambda members: {**members, SAMPLES: torch_payload(Path("never"), protocol=4)},
        "STACK_GLOBAL",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_content_is_refused_with_its_name(name: str, members: Members, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    hostile = write_members(tmp_path / "hostile.pt2", change(members))
    with pytest.raises(UnsafeArchive, match=message) as caught:
        check_archive(hostile)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text",
    [
        "().__class__",
        "__import__('os').system('true')",
        "Symbol('s0').__class__",
        "Symbol(open('x'))",
        "Symbol('s0', positive=open)",
        "lambda: 0",
        "[1][0]",
        "eval('1')",
        "Integer(open)",
        "Pow(Integer(10), Integer(10000000))",
        "2**10**9",
        "Pow(Integer(10), Pow(Integer(10), Integer(9)))",
        "s0 if s0 else s1",
        "Add(*s0)",
        "(" * 5000,
        "s0;s1",
        "source",
    ],
)
def test_an_expression_with_code_is_refused(text: str, members: Members, tmp_path: Path) -> None:
    def change(document: Any) -> None:
        document["graph_module"]["graph"]["tensor_values"]["image"]["sizes"][0] = {"as_expr": {"expr_str": text}}

    with pytest.raises(UnsafeArchive, match=r"symbolic size|an expression of"):
        check_archive(write_members(tmp_path / "hostile.pt2", edit_json(members, PROGRAM, change)))


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(-8), Symbol('s77', positive=True, integer=True))",
        "FloorDiv(Add(Symbol('s1', integer=True), Integer(1)), Integer(2))",
        "Pow(Symbol('s1', integer=True), Integer(2))",
        "2*s77 + 1",
        "Max(1, s0 // 2)",
    ],
)
def test_sizes_that_torch_writes_pass(text: str, members: Members, tmp_path: Path) -> None:
    def change(document: Any) -> None:
        document["graph_module"]["graph"]["tensor_values"]["image"]["sizes"][0] = {"as_expr": {"expr_str": text}}

    check_archive(write_members(tmp_path / "model.pt2", edit_json(members, PROGRAM, change)))


# --- container --------------------------------------------------------------------------------------------------------


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_text("not a model")
    with pytest.raises(UnsafeArchive, match=r"not a zip archive.*torch\.export\.save"):
        check_archive(tmp_path / "model.pt2")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"")
    with pytest.raises(UnsafeArchive, match="not a zip archive"):
        check_archive(tmp_path / "model.pt2")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_archive_is_refused(share: float, tiny: Path, tmp_path: Path) -> None:
    content = tiny.read_bytes()
    (tmp_path / "model.pt2").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnsafeArchive, match="upload it again"):
        check_archive(tmp_path / "model.pt2")


def test_a_zip_bomb_is_refused(members: Members, tmp_path: Path) -> None:
    bomb = zip_bomb(tmp_path / "bomb.pt2", members)
    assert bomb.stat().st_size < 1_000_000
    with pytest.raises(UnsafeArchive, match="ratio of 200"):
        check_archive(bomb)


def test_limits_are_named(tiny: Path) -> None:
    for limits, message in (
        (ArchiveLimits(file_bytes=100), "the limit is 100"),
        (ArchiveLimits(members=3), "the limit is 3"),
        (ArchiveLimits(total_bytes=1000), "the limit is 1000"),
        (ArchiveLimits(json_bytes=500), "the limit is 500"),
    ):
        with pytest.raises(UnsafeArchive, match=message):
            check_archive(tiny, limits)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "model/../../evil",
        "model//x",
        "model/./x",
        "model\\x",
        "model/a\x01b",
        "C:/x",
        "other/x",
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_leave_the_folder_are_refused(name: str, members: Members, tmp_path: Path) -> None:
    path = write_members(tmp_path / "hostile.pt2", members)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(UnsafeArchive, match=r"plain relative paths|outside the archive"):
        check_archive(path)


def test_a_nul_in_a_name_is_refused(members: Members, tmp_path: Path) -> None:
    """zipfile reads 'byteorder' where other readers see the whole name."""
    path = write_members(tmp_path / "hostile.pt2", {**members, "byteorderXevil": b"little"})
    path.write_bytes(path.read_bytes().replace(b"byteorderXevil", b"byteorder\x00evil"))
    with pytest.raises(UnsafeArchive, match="plain relative paths"):
        check_archive(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(members: Members, tmp_path: Path) -> None:
    path = write_members(tmp_path / "hostile.pt2", members)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"model/{PROGRAM}", b"{}")
    with pytest.raises(UnsafeArchive, match="occurs twice"):
        check_archive(path)


def test_a_link_is_refused(members: Members, tmp_path: Path) -> None:
    path = write_members(tmp_path / "hostile.pt2", members)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("model/version")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, b"/etc/passwd")
    with pytest.raises(UnsafeArchive, match="a link or a device"):
        check_archive(path)


def test_an_encrypted_member_is_refused(members: Members, tmp_path: Path) -> None:
    path = write_members(tmp_path / "hostile.pt2", members)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UnsafeArchive, match="encrypted"):
        check_archive(path)


def test_overlapping_members_are_refused(members: Members, tmp_path: Path) -> None:
    """Two directory entries over the same bytes: a bomb without a high ratio."""
    path = write_members(tmp_path / "hostile.pt2", members)
    content = bytearray(path.read_bytes())
    first = _directory(path)
    second = content.index(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    path.write_bytes(content)
    with pytest.raises(UnsafeArchive, match="overlaps"):
        check_archive(path)


def test_a_size_that_lies_is_refused(members: Members, tmp_path: Path) -> None:
    path = write_members(tmp_path / "hostile.pt2", members)
    content = bytearray(path.read_bytes())
    entry = _directory(path)
    size = struct.unpack_from("<I", content, entry + 24)[0]
    struct.pack_into("<I", content, entry + 24, size + 4)
    path.write_bytes(content)
    with pytest.raises(UnsafeArchive, match="upload it again"):
        check_archive(path)


def test_the_old_layout_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", b"{}")
        archive.writestr("version", b"8.8")
    with pytest.raises(UnsafeArchive, match=r"torch 2\.7 and older.*torch 2\.11 or newer"):
        check_archive(tmp_path / "old.pt2")


def test_a_saved_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "weights.pt2")
    with pytest.raises(UnsafeArchive, match="not an exported program"):
        check_archive(tmp_path / "weights.pt2")


def test_a_missing_file_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_archive(tmp_path / "none.pt2")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_damage_never_raises_anything_else(flips: list[tuple[float, int]], tiny: Path, tmp_path: Path) -> None:
    content = bytearray(tiny.read_bytes())
    for position, value in flips:
        content[int(position * len(content))] = value
    _check_quietly(bytes(content), tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
def test_damage_in_the_directory_never_raises_anything_else(
    flips: list[tuple[float, int]], tiny: Path, tmp_path: Path
) -> None:
    content = bytearray(tiny.read_bytes())
    start = _directory(tiny)
    for position, value in flips:
        content[start + int(position * (len(content) - start))] = value
    _check_quietly(bytes(content), tmp_path)


def _directory(path: Path) -> int:
    """Where the zip directory starts (sample inputs are a zip of their own, with a directory too)."""
    with zipfile.ZipFile(path) as archive:
        return archive.start_dir


def _check_quietly(content: bytes, folder: Path) -> None:
    path = folder / f"damaged-{os.getpid()}.pt2"
    path.write_bytes(content)
    with contextlib.suppress(UnsafeArchive):  # anything else fails the test
        check_archive(path)
