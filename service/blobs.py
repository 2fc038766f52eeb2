"""Content-addressed files: named by the sha256 of their bytes, written whole or not at all, never changed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    sha256: str
    bytes: int


class BlobStore:
    """Keeps files under `root/ab/abcdef…`. Any number of processes may use one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where a blob lies. Raises ValueError for anything but 64 hex digits, FileNotFoundError if it is gone."""
        path = self._place(sha256)
        if not path.is_file():
            raise FileNotFoundError(f"blob {sha256}: missing from {self.root}; restore the folder or upload it again")
        return path

    def add(self, source: Path) -> Blob:
        """Copies a file into the store; durable when it returns."""
        self.root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".incoming-")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as target, source.open("rb") as stream:
                shutil.copyfileobj(stream, target, CHUNK)
            return self.adopt(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def adopt(self, temporary: Path, sha256: str | None = None) -> Blob:
        """Moves a finished file of the same file system into the store. sha256: if it is known already."""
        with temporary.open("rb") as stream:
            digest = sha256 or hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
        place = self._place(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(temporary, 0o644)
        os.replace(temporary, place)  # the same bytes again: replaces the file by its equal
        _sync_folder(place.parent)
        return Blob(digest, size)

    def _place(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r}: not the sha256 of a blob")
        return self.root / sha256[:2] / sha256


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
