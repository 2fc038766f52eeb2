"""The uncompressed model's outputs on the tuning rows: computed once per row, kept on disk, shared by all processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressors.training import order

CHUNK = 2048  # rows computed and stored together
KEPT_BYTES = 2**30

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class TeacherOutputs:
    """outputs(positions) -> (len(positions), ...) float32; positions are 0..rows-1 of the tuning rows.

    Rows are grouped in the order in which the first epoch sees them, so that a short run computes few chunks.
    Two processes may compute the same chunk; both write the same bytes and the rename is atomic.
    Outputs that would take more than KEPT_BYTES in all (of a language model, of large masks) are computed each time.

    row_bytes: of the outputs of one row.
    """

    def __init__(
        self, folder: Path, rows: int, seed: int, compute: Callable[[Positions], Floats], *, row_bytes: int = 0
    ) -> None:
        self._folder, self._rows, self._compute = folder, rows, compute
        self._keeps = rows * row_bytes <= KEPT_BYTES
        self._order = order(rows, 0, seed)
        self._rank = np.empty(rows, dtype=np.int64)
        self._rank[self._order] = np.arange(rows)
        self._loaded: dict[int, Floats] = {}

    def outputs(self, positions: Positions) -> Floats:
        if not self._keeps:
            return self._compute(positions)
        ranks = self._rank[positions]
        chunks, offsets = np.divmod(ranks, CHUNK)
        for chunk in np.unique(chunks):
            self._load(int(chunk))
        return np.stack([self._loaded[int(c)][o] for c, o in zip(chunks, offsets, strict=True)])

    def _load(self, chunk: int) -> None:
        if chunk in self._loaded:
            return
        path = self._folder / f"{chunk:06d}.npy"
        if not path.exists():
            members = self._order[chunk * CHUNK : (chunk + 1) * CHUNK]
            self._write(path, self._compute(members))
        self._loaded[chunk] = np.load(path)

    def _write(self, path: Path, values: Floats) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=self._folder, suffix=".partial")
        with os.fdopen(handle, "wb") as file:
            np.save(file, values.astype(np.float32))
        os.replace(partial, path)
