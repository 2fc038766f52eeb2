"""Teacher outputs: each row computed once, in the order of the first epoch, found again by other processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressors.training import order
from search.teacher import CHUNK, KEPT_BYTES, TeacherOutputs

ROWS = 3 * CHUNK + 100


def test_rows_are_computed_once_and_kept(tmp_path: Path) -> None:
    computed: list[int] = []

    def compute(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        computed.extend(positions.tolist())
        return np.stack([positions, positions * 2], axis=1).astype(np.float32)

    first = TeacherOutputs(tmp_path, ROWS, 0, compute)
    early = order(ROWS, 0, 0)[:500]
    assert np.array_equal(first.outputs(early)[:, 0], early)
    assert len(computed) == CHUNK, "a short run computes one chunk"
    everything = np.arange(ROWS)
    assert np.array_equal(first.outputs(everything)[:, 1], everything * 2)
    assert sorted(computed) == list(range(ROWS))
    again = TeacherOutputs(tmp_path, ROWS, 0, compute)
    again.outputs(everything)
    assert len(computed) == ROWS, "another process finds them on disk"


def test_outputs_too_large_to_keep_are_computed_each_time(tmp_path: Path) -> None:
    def compute(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return positions[:, None].astype(np.float32)

    teacher = TeacherOutputs(tmp_path / "none", ROWS, 0, compute, row_bytes=KEPT_BYTES // ROWS + 1)
    some = np.array([5, 3, 7000])
    assert teacher.outputs(some)[:, 0].tolist() == [5, 3, 7000]
    assert not (tmp_path / "none").exists()
