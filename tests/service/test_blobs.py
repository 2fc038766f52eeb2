from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.blobs import Blobs, BlobStore, DamagedBlob
from service.remote_blobs import BlobCache, CannotReachStore, RemoteBlobs, open_blobs
from service.settings import GIB, Settings
from tests.conformance.blobs import CONTENT, SHA256, BlobsConformance
from tests.s3 import s3_server


class TestFolder(BlobsConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Blobs:
        return BlobStore(tmp_path / "blobs")

    @pytest.fixture
    def other(self, tmp_path: Path) -> Blobs:
        return open_blobs(Settings(data_dir=tmp_path))


class TestMemory(BlobsConformance):
    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid.uuid4()}"

    @pytest.fixture
    def store(self, tmp_path: Path, url: str) -> Blobs:
        return RemoteBlobs(url, BlobCache(tmp_path / "cache", GIB))

    @pytest.fixture
    def other(self, tmp_path: Path, url: str) -> Blobs:
        return open_blobs(Settings(data_dir=tmp_path / "other", blobs_url=url))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the server's buckets lie."""
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield folder


class TestS3(BlobsConformance):
    @pytest.fixture
    def url(self, s3: Path) -> str:
        return f"s3://bantam/{uuid.uuid4()}"

    @pytest.fixture
    def store(self, tmp_path: Path, url: str) -> Blobs:
        return RemoteBlobs(url, BlobCache(tmp_path / "cache", GIB))

    @pytest.fixture
    def other(self, tmp_path: Path, url: str) -> Blobs:
        return open_blobs(Settings(data_dir=tmp_path / "other", blobs_url=url))

    def test_bytes_that_were_changed_in_the_store_are_refused(
        self, store: Blobs, s3: Path, url: str, source: Path, tmp_path: Path
    ) -> None:
        store.add(source)
        kept = s3 / url.removeprefix("s3://") / SHA256[:2] / SHA256
        kept.write_bytes(CONTENT[:-1] + b"?")
        with pytest.raises(DamagedBlob, match=f"{SHA256}.*upload it again"):
            store.lend(SHA256, tmp_path / "inputs")
        assert list((tmp_path / "inputs").iterdir()) == []
        assert list((tmp_path / "cache").iterdir()) == []


def test_the_cache_drops_what_was_used_longest_ago_and_takes_nothing_from_a_borrower(tmp_path: Path) -> None:
    store = RemoteBlobs(f"memory://{uuid.uuid4()}", BlobCache(tmp_path / "cache", 250))
    names = []
    for n in range(4):
        (tmp_path / "file").write_bytes(bytes([n]) * 100)
        names.append(store.add(tmp_path / "file").sha256)
    first = store.lend(names[0], tmp_path / "job")
    store.lend(names[1], tmp_path / "job")
    for age, name in enumerate(names[:2]):
        os.utime(tmp_path / "cache" / name, (1e9 - age, 1e9 - age))
    store.lend(names[0], tmp_path / "job 2")  # used again: the second one is the oldest now
    store.lend(names[2], tmp_path / "job")
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {names[0], names[2]}
    os.utime(tmp_path / "cache" / names[0], (1e9, 1e9))
    store.lend(names[3], tmp_path / "job")
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {names[2], names[3]}
    assert first.read_bytes() == bytes(100)


def test_a_store_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotReachStore, match="BANTAM_BLOBS_URL=nosuch://x"):
        open_blobs(Settings(data_dir=tmp_path, blobs_url="nosuch://x"))
    with pytest.raises(ValueError, match="not a URL; like s3"):
        Settings(blobs_url="bucket/x")
    assert isinstance(open_blobs(Settings(blobs_url=f"file://{tmp_path}/shared")), BlobStore)
