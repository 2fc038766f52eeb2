from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from service.blobs import BlobStore


def test_a_file_is_found_by_its_hash(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    store = BlobStore(tmp_path / "blobs")
    blob = store.add(source)
    assert blob.sha256 == hashlib.sha256(b"content").hexdigest()
    assert blob.bytes == 7
    assert store.path(blob.sha256).read_bytes() == b"content"
    assert source.exists()


def test_the_same_bytes_are_one_file_and_nothing_unfinished_stays(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    store = BlobStore(tmp_path / "blobs")
    assert store.add(source) == store.add(source)
    assert len([p for p in store.root.rglob("*") if p.is_file()]) == 1


def test_adopting_moves_the_file(tmp_path: Path) -> None:
    temporary = tmp_path / "upload"
    temporary.write_bytes(b"content")
    store = BlobStore(tmp_path / "blobs")
    blob = store.adopt(temporary)
    assert not temporary.exists()
    assert store.path(blob.sha256).read_bytes() == b"content"


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "AB" * 32, "ab" * 31])
def test_only_hashes_name_blobs(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not the sha256"):
        BlobStore(tmp_path).path(name)


def test_a_missing_blob_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing from"):
        BlobStore(tmp_path).path("ab" * 32)
