"""What every blob store must do. A subclass gives the fixtures `store` and `other`, two handles on one store."""

from __future__ import annotations

import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.blobs import Blob, Blobs

CONTENT = random.Random(0).randbytes(20 * 1024 * 1024 + 7)  # more than one part of a multipart upload
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class BlobsConformance:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = tmp_path / "source"
        path.write_bytes(CONTENT)
        return path

    def test_a_file_is_found_by_its_hash(self, store: Blobs, other: Blobs, source: Path, tmp_path: Path) -> None:
        assert store.add(source) == Blob(SHA256, len(CONTENT))
        assert source.exists()
        assert other.size(SHA256) == len(CONTENT)
        assert b"".join(other.read(SHA256)) == CONTENT
        lent = other.lend(SHA256, tmp_path / "job" / "inputs")
        assert lent.read_bytes() == CONTENT
        assert other.lend(SHA256, tmp_path / "job" / "inputs") == lent

    def test_parts_are_read_by_their_bounds(self, store: Blobs, source: Path) -> None:
        store.add(source, SHA256)
        bounds = ((0, 1), (5, 105), (8 * 1024**2 - 3, 8 * 1024**2 + 3), (len(CONTENT) - 7, len(CONTENT)), (3, None))
        for start, stop in bounds:
            pieces = list(store.read(SHA256, start, stop))
            assert b"".join(pieces) == CONTENT[start:stop]
            assert max(map(len, pieces)) <= 8 * 1024**2

    def test_adopting_takes_the_file(self, store: Blobs, source: Path) -> None:
        blob = store.adopt(source)
        assert not source.exists()
        assert store.size(blob.sha256) == blob.bytes

    def test_the_same_bytes_are_one_blob_and_nothing_unfinished_stays(self, store: Blobs, source: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(store.add, [source] * 4)) == {Blob(SHA256, len(CONTENT))}
        assert store.listed(SHA256[:2]) == [Blob(SHA256, len(CONTENT))]

    def test_what_is_not_there_is_named(self, store: Blobs, tmp_path: Path) -> None:
        for call in (lambda: list(store.read("ab" * 32)), lambda: store.size("ab" * 32)):
            with pytest.raises(FileNotFoundError, match="missing from"):
                call()
        with pytest.raises(FileNotFoundError, match="missing from"):
            store.lend("ab" * 32, tmp_path / "inputs")
        assert store.listed("ab") == []
        store.remove("ab" * 32)
        store.check()

    @pytest.mark.parametrize("name", ["../../etc/passwd", "", "AB" * 32, "ab" * 31])
    def test_only_hashes_name_blobs(self, store: Blobs, tmp_path: Path, name: str) -> None:
        for call in (store.size, store.remove, lambda n: list(store.read(n)), lambda n: store.lend(n, tmp_path)):
            with pytest.raises(ValueError, match="not the sha256"):
                call(name)

    def test_what_is_removed_is_gone_and_may_come_back(self, store: Blobs, other: Blobs, source: Path) -> None:
        store.add(source)
        store.listed(SHA256[:2])
        other.remove(SHA256)
        with pytest.raises(FileNotFoundError):
            store.size(SHA256)
        assert store.listed(SHA256[:2]) == []
        store.add(source)
        assert other.size(SHA256) == len(CONTENT)

    def test_a_file_that_cannot_be_read_leaves_nothing(self, store: Blobs, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            store.add(tmp_path / "missing")
        os.mkdir(tmp_path / "folder")
        with pytest.raises(IsADirectoryError):
            store.add(tmp_path / "folder")
        assert all(store.listed(f"{n:02x}") == [] for n in range(16))
