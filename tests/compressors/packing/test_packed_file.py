"""`.bantam` files: the very ONNX file comes back, damaged ones are refused, and the reader stands alone."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compressors import packed_reader
from compressors.encodings import Codebook, Encoding, FloatEncoding, IntegerCodes
from compressors.encodings.codebook import of_indices
from compressors.errors import UnsupportedModel
from compressors.onnx_emission import Array, Emission
from compressors.packed_file import pack
from compressors.packed_reader import PackedFileError, decoded_tensors, expand, safetensors_bytes


def graph_of(weights: dict[str, Array | Encoding]) -> bytes:
    """An ONNX file that multiplies its input with every weight."""
    emission = Emission()
    for name in ("x", *weights):
        emission.reserve(name)
    for name, weight in weights.items():
        if isinstance(weight, np.ndarray):
            emission.initializers[name] = numpy_helper.from_array(weight, name)
        else:
            weight.emit(emission)
            emission.nodes[-1].output[0] = name
    outputs = [emission.add("Mul", "x", name) for name in weights]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    content: bytes = emission.finish(emission.nodes, inputs, infos).SerializeToString(deterministic=True)
    return content


@functools.cache
def sample() -> tuple[bytes, dict[str, Array]]:
    """A file with every encoding in it, and what its weights are."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((40, 8, 3, 3)).astype(np.float32)
    bins = np.clip(np.round(normal * 4 + 8), 0, 15).astype(np.uint8)
    pruned = np.where(rng.random(bins.shape) < 0.9, 8, bins)
    scale = rng.uniform(1, 2, (40, 1, 1, 1)).astype(np.float32)
    weights: dict[str, Array | Encoding] = {
        "plain": normal,
        "bias": np.arange(7, dtype=np.float32),
        "codebook4": of_indices(bins, np.linspace(-2, 2, 16)),
        "codebook3": of_indices(bins // 2, np.linspace(-2, 2, 8)),
        "sparse": of_indices(pruned, np.linspace(-2, 2, 16)),
        "denser": of_indices(np.where(rng.random(bins.shape) < 0.4, 8, bins), np.linspace(-2, 2, 16)),
        "integers5": IntegerCodes(bins, 5, scale, np.array(8, dtype=np.uint8)),
        "integers4": IntegerCodes(bins, 4, scale, np.array(8, dtype=np.uint8)),
        "half": FloatEncoding.of(normal, "float16"),
        "brain": FloatEncoding.of(normal, "bfloat16"),
        "e4m3": FloatEncoding.of(normal, "float8_e4m3"),
        "e5m2": FloatEncoding.of(normal, "float8_e5m2", scale),
    }
    decoded = {name: w if isinstance(w, np.ndarray) else w.decode() for name, w in weights.items()}
    return graph_of(weights), decoded


def test_it_comes_back_bit_for_bit_and_is_smaller_than_zip() -> None:
    content, _ = sample()
    packed = pack(content)
    assert expand(packed.content) == content
    assert packed.onnx_bytes == len(content)
    assert packed.ratio < 0.8
    assert len(packed.content) < 0.97 * packed.zip_bytes
    labels = " ".join(label for label, _, _ in packed.coded.values())
    assert "huffman 5 bits" in labels


def test_packing_is_deterministic() -> None:
    content, _ = sample()
    assert pack(content).content == pack(content).content


@given(st.binary(max_size=3000), st.integers(0, 3))
def test_any_weights_come_back(noise: bytes, repeat: int) -> None:
    content = graph_of({"w": np.frombuffer(noise * 2**repeat, dtype=np.uint8)})
    assert expand(pack(content).content) == content


def test_tensors_are_decoded_by_name() -> None:
    content, weights = sample()
    decoded = decoded_tensors(expand(pack(content).content))
    assert decoded.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(decoded[name], weight, err_msg=name)


def test_safetensors_are_read_by_the_library() -> None:
    content, weights = sample()
    read = safetensors.numpy.load(safetensors_bytes(decoded_tensors(content)))
    assert read.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(read[name], weight, err_msg=name)


def test_the_reader_stands_alone(tmp_path: Path) -> None:
    """Copied to another place, without any package but numpy."""
    content, weights = sample()
    shutil.copytree(Path(packed_reader.__file__).parent, tmp_path / "packed_reader")
    (tmp_path / "m.bantam").write_bytes(pack(content).content)
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, '.');"
        "import packed_reader.__main__ as m; assert m.main(['m.bantam', 'm.onnx']) == 0;"
        "assert m.main(['m.bantam', 'm.safetensors']) == 0;"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(loaded - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['numpy', 'packed_reader']"
    assert (tmp_path / "m.onnx").read_bytes() == content
    assert safetensors.numpy.load_file(tmp_path / "m.safetensors").keys() == weights.keys()


# Damaged and hostile files.


@functools.cache
def packed_sample() -> bytes:
    return pack(sample()[0]).content


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    content = bytearray(packed_sample())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PackedFileError):
        expand(bytes(content))


@given(st.integers(0, 10**9))
def test_a_cut_file_is_noticed(length: int) -> None:
    content = packed_sample()
    with pytest.raises(PackedFileError):
        expand(content[: length % len(content)])


def test_something_behind_the_end_is_noticed() -> None:
    with pytest.raises(PackedFileError, match="cut off or damaged"):
        expand(packed_sample() + b"x")


def with_header(change: Any) -> bytes:
    content = packed_sample()
    length = int.from_bytes(content[8:12], "little")
    header = json.loads(zlib.decompress(content[12 : 12 + length]))
    changed = zlib.compress(json.dumps(change(header)).encode())
    return content[:8] + len(changed).to_bytes(4, "little") + changed + content[12 + length :]


HOSTILE: list[Any] = [
    lambda h: [],
    lambda h: {},
    lambda h: {**h, "size": -1},
    lambda h: {**h, "size": 1.5},
    lambda h: {**h, "size": 2**40},
    lambda h: {**h, "size": h["size"] + 1},
    lambda h: {**h, "rest": 10**12},
    lambda h: {**h, "tensors": 5},
    lambda h: {**h, "tensors": [None]},
    lambda h: {**h, "tensors": h["tensors"][1:]},
    lambda h: {**h, "tensors": [{**t, "at": 10**9} for t in h["tensors"]]},
    lambda h: {**h, "tensors": [{**t, "at": -1} for t in h["tensors"]]},
    lambda h: {**h, "tensors": [{**t, "size": 2**30} for t in h["tensors"]]},
    lambda h: {**h, "tensors": [{**t, "planes": []} for t in h["tensors"]]},
    lambda h: {**h, "tensors": [{**t, "planes": [[p[0], [9, "1" * 512]] for p in t["planes"]]} for t in h["tensors"]]},
    lambda h: {**h, "tensors": [{**t, "planes": [[p[0], [4, "é" * 16]] for p in t["planes"]]} for t in h["tensors"]]},
    lambda h: {**h, "tensors": [{**t, "planes": [[p[0], [4, "1" * 16]] for p in t["planes"]]} for t in h["tensors"]]},
    lambda h: {**h, "tensors": [{**t, "planes": [[p[0], "q"] for p in t["planes"]]} for t in h["tensors"]]},
    lambda h: {**h, "sha256": "0" * 64},
]


@pytest.mark.parametrize("change", HOSTILE)
def test_a_lying_header_is_refused(change: Any) -> None:
    with pytest.raises(PackedFileError):
        expand(with_header(change))


def test_a_bomb_is_refused() -> None:
    with pytest.raises(PackedFileError, match="above the limit of 1000; raise the limit"):
        expand(packed_sample(), maximum_bytes=1000)
    bomb = zlib.compress(b" " * 2**25, 9)
    with pytest.raises(PackedFileError, match="deflated stream has another length"):
        expand(b"BANTAM01" + len(bomb).to_bytes(4, "little") + bomb)


@pytest.mark.parametrize("content", [b"", b"BANTAM02", b"PK\x03\x04" + bytes(99), b"BANTAM01\xff\xff\xff\xff"], ids=str)
def test_what_is_no_packed_file_is_refused(content: bytes) -> None:
    with pytest.raises(PackedFileError):
        expand(content)


def test_what_is_no_onnx_file_is_not_packed(tmp_path: Path) -> None:
    for content in (b"", b"hello, world", sample()[0][:-5]):
        with pytest.raises(UnsupportedModel, match="cannot be packed"):
            pack(content)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    graph = helper.make_graph([], "g", [], [], [tensor])
    with pytest.raises(UnsupportedModel, match="weights in a second file; save it as one file"):
        pack(helper.make_model(graph).SerializeToString())


@given(st.data())
def test_a_damaged_onnx_file_decodes_to_an_error_or_to_arrays(data: st.DataObject) -> None:
    content = bytearray(sample()[0])
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PackedFileError):
        decoded_tensors(bytes(content), maximum_bytes=2**26)


def test_decoding_is_limited_in_memory() -> None:
    with pytest.raises(PackedFileError, match="memory limit"):
        decoded_tensors(sample()[0], maximum_bytes=10_000)


def test_codebooks_with_one_value() -> None:
    book = Codebook(np.zeros((30, 30), dtype=np.uint8), np.array([0.5], dtype=np.float32))
    content = graph_of({"w": book})
    assert expand(pack(content).content) == content
    np.testing.assert_array_equal(decoded_tensors(content)["w"], np.full((30, 30), 0.5))
