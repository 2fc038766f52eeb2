"""Replaces the float weights of an exported graph by their encodings: the last pass before a file is written.

An exporter writes a parameter in its own layout, transposed (matrix products of rank 3), reshaped, or joined from
several (recurrent layers reorder the blocks of their gates and stack directions). All of these are found by value: the
rows of an initialiser are looked up among the decoded rows, and the codes are moved instead of the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from compressors.encodings.encoding import Encoding
from compressors.errors import ParityError
from compressors.onnx_emission import Array, Emission


def store_encoded(model: onnx.ModelProto, encodings: Mapping[str, Encoding]) -> onnx.ModelProto:
    """A model that computes the same and stores each encoded weight as codes. `model` is left untouched.

    Weights that other passes have turned into integers already are left to them. Encodings shared by tied parameters
    are stored once.
    Raises ParityError if a float initialiser with an encoded parameter's name holds other values: the model changed
    after it was encoded.
    """
    floats = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    if not floats or not encodings:
        return model
    emission = Emission()
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            emission.reserve(name)
    emission.functions.update({function.name: function for function in model.functions})
    store = _Store(emission, encodings, floats)
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        stored = store.replacement(tensor.name) if tensor.name in floats else None
        if stored is None:
            emission.initializers[emission.reserve(tensor.name)] = tensor
        else:
            renamed[tensor.name] = stored
    if not renamed:
        return model
    _keep_names(emission.nodes, renamed)
    for node in model.graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        del copied.input[:]
        copied.input.extend(renamed.get(name, name) for name in node.input)
        emission.nodes.append(copied)
    return emission.finish(emission.nodes, list(model.graph.input), list(model.graph.output))


def _keep_names(decoding: Iterable[onnx.NodeProto], renamed: dict[str, str]) -> None:
    """Decoded tensors take the names of the initialisers that they stand for, so that a file says what it holds."""
    final: dict[str, str] = {}
    for name, stored in renamed.items():
        renamed[name] = final.setdefault(stored, name)
    for node in decoding:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = final.get(name, name)


class _Store:
    """Encodings on their way into a graph."""

    def __init__(
        self, emission: Emission, encodings: Mapping[str, Encoding], floats: Mapping[str, onnx.TensorProto]
    ) -> None:
        self.emission = emission
        self._encodings = encodings
        self._floats = floats
        self._decoded: dict[int, Array] = {}
        self._emitted: dict[tuple[int, bool], str] = {}

    def replacement(self, name: str) -> str | None:
        """Emits what stands for the initialiser `name`; None if no encoding does."""
        candidates = list({id(e): e for e in self._candidates(name)}.values())
        if not candidates:
            return None
        content = numpy_helper.to_array(self._floats[name])
        for encoding in candidates:
            for transposed in (False, True):
                expected = self._decode(encoding).T if transposed else self._decode(encoding)
                if (expected.ndim == 2 or not transposed) and np.array_equal(content, expected):
                    return self._emit(encoding, transposed)
        joined = self._joined(content, candidates)
        if joined is None and name in self._encodings:
            raise ParityError(
                f"{name}: its values are not those of its encoding; encode weights after everything else",
                max_error=float("inf"),
            )
        return joined

    def _candidates(self, name: str) -> Iterable[Encoding]:
        """The encoding of that name, those of the same layer, and those whose parameter is not in the graph by name."""
        if name in self._encodings:
            yield self._encodings[name]
        owner = name.rpartition(".")[0]
        for other, encoding in self._encodings.items():
            if other not in self._floats or (owner and other.rpartition(".")[0] == owner):
                yield encoding

    def _joined(self, content: Array, candidates: list[Encoding]) -> str | None:
        """Rows of one or several encodings, behind one another, reshaped to what the graph wants."""
        for length in {prod(encoding.shape[1:]) for encoding in candidates}:
            if not length or content.size % length:
                continue
            fitting = [encoding for encoding in candidates if prod(encoding.shape[1:]) == length]
            places = _find_rows(content.reshape(-1, length), [self._decode(encoding) for encoding in fitting])
            if places is None:
                continue
            parts = []
            for index, rows in groupby(places, key=lambda place: place[0]):
                taken = np.array([row for _, row in rows], dtype=np.int64)
                encoding = fitting[index]
                whole = len(taken) == encoding.shape[0] and np.array_equal(taken, np.arange(len(taken)))
                parts.append(self._emit(encoding, False) if whole else encoding.take(taken).emit(self.emission))
            joined = parts[0] if len(parts) == 1 else self.emission.add("Concat", *parts, axis=0)
            return self.emission.add("Reshape", joined, self.emission.ints(content.shape))
        return None

    def _decode(self, encoding: Encoding) -> Array:
        if id(encoding) not in self._decoded:
            self._decoded[id(encoding)] = encoding.decode()
        return self._decoded[id(encoding)]

    def _emit(self, encoding: Encoding, transposed: bool) -> str:
        key = (id(encoding), transposed)
        if key not in self._emitted:
            plain = self._emit(encoding, False) if transposed else encoding.emit(self.emission)
            self._emitted[key] = self.emission.add("Transpose", plain) if transposed else plain
        return self._emitted[key]


def _find_rows(wanted: Array, sources: list[Array]) -> list[tuple[int, int]] | None:
    """(source, row) for each row of `wanted` (rows, length), staying in one source as long as possible; None if one
    is nowhere."""
    known: dict[bytes, dict[int, int]] = {}
    for index, source in enumerate(sources):
        for position, row in enumerate(source.reshape(len(source), -1)):
            known.setdefault(row.tobytes(), {}).setdefault(index, position)
    places: list[tuple[int, int]] = []
    for row in wanted:
        found = known.get(row.tobytes())
        if found is None:
            return None
        index = places[-1][0] if places and places[-1][0] in found else next(iter(found))
        places.append((index, found[index]))
    return places
