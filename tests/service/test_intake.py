"""The real reading of datasets, in its child process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressors.errors import InvalidData
from service.intake import describe_in_child

GIB = 1024**3


def test_a_dataset_is_read_in_a_child(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with path.open("wb") as stream:
        np.savez(stream, x=np.zeros((5, 3), np.float32), label=np.arange(5))
    found = describe_in_child(path, timeout_s=60, memory_bytes=16 * GIB)
    assert (found.format, found.rows) == ("npz", 5)
    assert {c.name: c.shape for c in found.columns} == {"x": (3,), "label": ()}


def test_what_is_no_dataset_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidData, match="parquet"):
        describe_in_child(path, timeout_s=60, memory_bytes=16 * GIB)


def test_a_dataset_that_needs_too_much_memory_harms_only_the_child(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with path.open("wb") as stream:
        np.savez_compressed(stream, x=np.zeros((2**20, 64), np.float32))
    with pytest.raises(InvalidData):
        describe_in_child(path, timeout_s=60, memory_bytes=GIB // 8)


def test_reading_takes_no_longer_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.touch()
    with pytest.raises(InvalidData, match="longer than"):
        describe_in_child(path, timeout_s=0.01, memory_bytes=16 * GIB)
