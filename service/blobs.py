"""Content-addressed files: named by the sha256 of their bytes, written whole or not at all, never changed.

`Blobs` is the protocol; `BlobStore` keeps them in a folder, `service.remote_blobs` at any URL that fsspec knows.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    sha256: str
    bytes: int


class DamagedBlob(Exception):
    """The bytes that a store holds are not those that their name promises."""


class Blobs(Protocol):
    """Any number of processes and machines may use one store. Contract, which the conformance class tests:

    - Adding is atomic and durable: a blob is there whole, under its hash, or not at all. Adding it again is harmless.
    - A name that is no sha256 raises ValueError, a blob that is not there FileNotFoundError.
    - Who adds a blob has noted it with `service.blob_register` before, or it may be collected under his hands.
    """

    def add(self, source: Path, sha256: str | None = None) -> Blob:
        """Copies a file into the store. sha256: if it is known already."""
        ...

    def adopt(self, temporary: Path, sha256: str | None = None) -> Blob:
        """Like add, but the file is the store's afterwards and gone from its place."""
        ...

    def lend(self, sha256: str, folder: Path) -> Path:
        """A local file with these bytes, checked against the hash if it came over a network. It stays as long as the
        blob is referred to, or as long as `folder` (of the borrower, on this machine) exists."""
        ...

    def local(self, sha256: str) -> Path | None:
        """Where the blob lies, for a store that is a folder of this machine; None for any other."""
        ...

    def size(self, sha256: str) -> int: ...

    def read(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Bytes start:stop in pieces of bounded size."""
        ...

    def remove(self, sha256: str) -> None:
        """No error if it is gone already."""
        ...

    def listed(self, prefix: str) -> list[Blob]:
        """Blobs whose hash begins with these two digits."""
        ...

    def check(self) -> None:
        """Raises OSError, or what the store's client raises, if it cannot be reached."""
        ...


def digest_of(path: Path) -> Blob:
    with path.open("rb") as stream:
        return Blob(hashlib.file_digest(stream, "sha256").hexdigest(), os.fstat(stream.fileno()).st_size)


def place_of(sha256: str) -> str:
    """`ab/abcdef…`. Raises ValueError for anything but 64 hex digits."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r}: not the sha256 of a blob")
    return f"{sha256[:2]}/{sha256}"


class BlobStore:
    """Keeps files under `root/ab/abcdef…`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where a blob lies. Raises ValueError for anything but 64 hex digits, FileNotFoundError if it is gone."""
        path = self.root / place_of(sha256)
        if not path.is_file():
            raise FileNotFoundError(f"blob {sha256}: missing from {self.root}; restore the folder or upload it again")
        return path

    def local(self, sha256: str) -> Path | None:
        return self.path(sha256)

    def lend(self, sha256: str, folder: Path) -> Path:
        return self.path(sha256)

    def size(self, sha256: str) -> int:
        return self.path(sha256).stat().st_size

    def read(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        with self.path(sha256).open("rb") as stream:
            stream.seek(start)
            left = os.fstat(stream.fileno()).st_size - start if stop is None else stop - start
            while left > 0 and (piece := stream.read(min(CHUNK, left))):
                left -= len(piece)
                yield piece

    def add(self, source: Path, sha256: str | None = None) -> Blob:
        """Durable when it returns."""
        self.root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".incoming-")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as target, source.open("rb") as stream:
                shutil.copyfileobj(stream, target, CHUNK)
            return self.adopt(temporary, sha256)
        finally:
            temporary.unlink(missing_ok=True)

    def adopt(self, temporary: Path, sha256: str | None = None) -> Blob:
        """Moves a finished file into the store; on another file system it is copied."""
        self.root.mkdir(parents=True, exist_ok=True)
        if temporary.stat().st_dev != self.root.stat().st_dev:
            blob = self.add(temporary, sha256)
            temporary.unlink()
            return blob
        with temporary.open("rb") as stream:
            digest = sha256 or hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
        place = self.root / place_of(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(temporary, 0o644)
        os.replace(temporary, place)  # the same bytes again: replaces the file by its equal
        _sync_folder(place.parent)
        return Blob(digest, size)

    def remove(self, sha256: str) -> None:
        (self.root / place_of(sha256)).unlink(missing_ok=True)

    def listed(self, prefix: str) -> list[Blob]:
        found = sorted((self.root / prefix).glob("*"))
        return [Blob(p.name, p.stat().st_size) for p in found if _SHA256.fullmatch(p.name)]

    def check(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
