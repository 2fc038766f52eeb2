"""What every implementation of `compressors.runtime.Runtime` must do. Subclass it and provide the fixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressors.errors import InvalidData, UnsupportedModel
from compressors.runtime import Runtime, predict


class RuntimeConformance:
    """Fixtures to provide: `runtime`, and `artifact`: a file for it that computes y = 2 x for float32 (batch, 3)."""

    @pytest.fixture
    def runtime(self) -> Runtime:
        raise pytest.UsageError("provide the fixture `runtime`")

    @pytest.fixture
    def artifact(self, tmp_path: Path) -> Path:
        raise pytest.UsageError("provide the fixture `artifact`")

    def test_it_says_what_it_is(self, runtime: Runtime) -> None:
        assert runtime.name
        assert runtime.version[0].isdigit()

    @pytest.mark.parametrize("batch", [1, 5])
    def test_the_batch_is_free(self, runtime: Runtime, artifact: Path, batch: int) -> None:
        x = np.arange(batch * 3, dtype=np.float32).reshape(batch, 3)
        (y,) = runtime.load(artifact, 1).run([x])
        np.testing.assert_array_equal(y, 2 * x)

    def test_results_are_not_overwritten_by_the_next_run(self, runtime: Runtime, artifact: Path) -> None:
        session = runtime.load(artifact, 1)
        (first,) = session.run([np.ones((1, 3), dtype=np.float32)])
        session.run([np.zeros((1, 3), dtype=np.float32)])
        assert first.tolist() == [[2.0, 2.0, 2.0]]

    def test_threads_do_not_change_the_result(self, runtime: Runtime, artifact: Path) -> None:
        x = np.linspace(-1, 1, 300, dtype=np.float32).reshape(100, 3)
        one, two = (runtime.load(artifact, threads).run([x])[0] for threads in (1, 2))
        np.testing.assert_array_equal(one, two)

    def test_batches_are_joined(self, runtime: Runtime, artifact: Path) -> None:
        batches = [[np.full((n, 3), n, dtype=np.float32)] for n in (2, 1)]
        assert predict(runtime.load(artifact, 1), batches)[:, 0].tolist() == [4.0, 4.0, 2.0]

    @pytest.mark.parametrize(
        "inputs",
        [
            [],
            [np.zeros((1, 4), dtype=np.float32)],
            [np.zeros(3, dtype=np.float32)],
            [np.zeros((1, 3), dtype=np.int64)],
            [np.zeros((1, 3), dtype=np.float32)] * 2,
        ],
        ids=["none", "width", "rank", "dtype", "too many"],
    )
    def test_wrong_inputs_are_refused(
        self, runtime: Runtime, artifact: Path, inputs: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
    ) -> None:
        session = runtime.load(artifact, 1)
        with pytest.raises(InvalidData):
            session.run(inputs)

    def test_a_missing_file_is_named(self, runtime: Runtime, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            runtime.load(tmp_path / "nowhere", 1)

    def test_a_damaged_file_is_refused(self, runtime: Runtime, artifact: Path, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged"
        damaged.write_bytes(artifact.read_bytes()[: artifact.stat().st_size // 2])
        with pytest.raises(UnsupportedModel):
            runtime.load(damaged, 1)

    def test_no_threads_are_refused(self, runtime: Runtime, artifact: Path) -> None:
        with pytest.raises(ValueError, match="threads=0"):
            runtime.load(artifact, 0)
