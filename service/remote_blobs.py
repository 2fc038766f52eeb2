"""Blobs at any URL that fsspec knows (S3 and its likes, Google Cloud, Azure, …), with a local cache for readers.

An object store commits a put, in one piece or in parts, as a whole; so nothing is renamed. S3, Google Cloud and Azure
are reached by obstore, which takes its credentials from the usual variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from service.blobs import Blob, Blobs, BlobStore, DamagedBlob, digest_of, place_of
from service.settings import Settings

PIECE = 8 * 1024 * 1024
_OBJECT_STORES = ("s3", "s3a", "gs", "az", "abfs", "abfss")


class CannotReachStore(Exception):
    """The URL names no store that this installation can use."""


def open_blobs(settings: Settings) -> Blobs:
    """The store that the settings name. Raises CannotReachStore."""
    url = settings.blobs_url
    if url is None:
        return BlobStore(settings.blobs_dir)
    parts = urlsplit(url)
    if parts.scheme == "file":
        return BlobStore(Path(parts.path))
    return RemoteBlobs(url, BlobCache(settings.data_dir / "blob-cache", settings.blob_cache_bytes))


class BlobCache:
    """Local copies, the least recently used of which go first when they are more than `most` bytes.

    A copy that somebody works with is linked into his folder, so that its removal here takes nothing from him.
    """

    def __init__(self, root: Path, most: int) -> None:
        self.root, self._most = root, most

    def find(self, sha256: str) -> Path | None:
        path = self.root / sha256
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def keep(self, sha256: str, pieces: Iterator[bytes]) -> Path:
        """Raises DamagedBlob if the pieces do not have this hash; nothing is kept then."""
        self.root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".incoming-")
        digest = hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as target:
                for piece in pieces:
                    digest.update(piece)
                    target.write(piece)
            if digest.hexdigest() != sha256:
                raise DamagedBlob(f"blob {sha256}: the store sent other bytes; upload it again or restore a backup")
            os.replace(name, self.root / sha256)
        finally:
            Path(name).unlink(missing_ok=True)
        self.shrink(spare=sha256)
        return self.root / sha256

    def shrink(self, *, spare: str | None = None) -> int:
        """Bytes removed. spare: the one that has just come, however large it is."""
        entries = []
        for path in self.root.glob("[0-9a-f]*"):
            with contextlib.suppress(FileNotFoundError):
                entries.append((path.stat().st_mtime, path.stat().st_size, path))
        over = sum(size for _, size, _ in entries) - self._most
        removed = 0
        for _, size, path in sorted(entries):
            if removed >= over:
                break
            if path.name != spare:
                path.unlink(missing_ok=True)
                removed += size
        return removed


class RemoteBlobs:
    """url: `s3://bucket/prefix` or another one of fsspec. Raises CannotReachStore."""

    def __init__(self, url: str, cache: BlobCache) -> None:
        _use_obstore(urlsplit(url).scheme)
        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise CannotReachStore(f"BANTAM_BLOBS_URL={url}: {error}; install what fsspec needs for it") from error
        self._root = root.rstrip("/")
        self._cache = cache

    def local(self, sha256: str) -> Path | None:
        return None

    def lend(self, sha256: str, folder: Path) -> Path:
        place_of(sha256)
        folder.mkdir(parents=True, exist_ok=True)
        lent = folder / sha256
        for _ in range(2):  # another process may shrink the cache between the two lines
            cached = self._cache.find(sha256) or self._cache.keep(sha256, self.read(sha256))
            with contextlib.suppress(FileExistsError):
                try:
                    os.link(cached, lent)
                except FileNotFoundError:
                    continue
            break
        return lent

    def size(self, sha256: str) -> int:
        try:
            return int(self._files.info(self._place(sha256))["size"])
        except FileNotFoundError as error:
            raise self._missing(sha256) from error

    def read(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        end = self.size(sha256) if stop is None else stop
        place = self._place(sha256)
        for begin in range(start, end, PIECE):
            try:
                yield self._files.cat_file(place, start=begin, end=min(begin + PIECE, end))
            except FileNotFoundError as error:
                raise self._missing(sha256) from error

    def add(self, source: Path, sha256: str | None = None) -> Blob:
        blob = digest_of(source) if sha256 is None else Blob(sha256, source.stat().st_size)
        self._files.put_file(str(source), self._place(blob.sha256))
        return blob

    def adopt(self, temporary: Path, sha256: str | None = None) -> Blob:
        blob = self.add(temporary, sha256)
        temporary.unlink()
        return blob

    def remove(self, sha256: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._place(sha256))

    def listed(self, prefix: str) -> list[Blob]:
        self._files.invalidate_cache()
        try:
            found: list[dict[str, Any]] = self._files.ls(f"{self._root}/{prefix}", detail=True)
        except FileNotFoundError:
            return []
        finally:
            self._files.invalidate_cache()  # or later answers would come from this listing
        blobs = [Blob(str(f["name"]).rpartition("/")[2], int(f["size"])) for f in found if f["type"] == "file"]
        return sorted(blobs, key=lambda blob: blob.sha256)

    def check(self) -> None:
        self.listed("00")

    def _place(self, sha256: str) -> str:
        return f"{self._root}/{place_of(sha256)}"

    def _missing(self, sha256: str) -> FileNotFoundError:
        return FileNotFoundError(f"blob {sha256}: missing from {self._root}; restore the store or upload it again")


def _use_obstore(scheme: str) -> None:
    """obstore is an extra (`pip install 'bantam[s3]'`); without it, whatever fsspec finds for the scheme is used."""
    if scheme in _OBJECT_STORES:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("obstore.fsspec").register(scheme)
