"""Calls of the client that move files: uploads that tell how far they are, downloads that can be resumed."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

import httpx

from service.client_calls import post
from service.client_errors import DamagedDownload
from service.client_flow import Flow, Json, Pause, Read, Send, refuse

Artifact = Literal["winner", "baseline"]
OnProgress = Callable[[int, int | None], None]
_CHUNK = 2**20
_BREAKS = 5  # in a row without a byte between them
_BREAK_S = 0.5


def upload_model(
    path: Path, name: str | None = None, *, on_progress: OnProgress | None = None, timeout_s: float = 600.0
) -> Flow[Json]:
    """Streams a .pt2 to the service; the same bytes give the same id. on_progress: see `upload_dataset`."""
    return (yield from _upload("/v1/models", path, name, on_progress, timeout_s))


def upload_dataset(
    path: Path, name: str | None = None, *, on_progress: OnProgress | None = None, timeout_s: float = 600.0
) -> Flow[Json]:
    """Streams a parquet, npz or safetensors file; the same bytes give the same id.

    on_progress: sees bytes sent and bytes in all; starts again at 0 if the upload has to be repeated. timeout_s: for
    the answer, which comes when the service has read every row.
    """
    return (yield from _upload("/v1/datasets", path, name, on_progress, timeout_s))


def _upload(where: str, path: Path, name: str | None, on_progress: OnProgress | None, timeout_s: float) -> Flow[Json]:
    with path.open("rb") as stream:
        file = stream if on_progress is None else _Watched(stream, path.stat().st_size, on_progress)
        files = {"file": (path.name, file, "application/octet-stream")}
        return (yield from post(where, files=files, data={"name": name or path.stem}, timeout=timeout_s))


class _Watched:
    """A file that tells how much of it has been read. httpx seeks to its start before each attempt."""

    def __init__(self, stream: BinaryIO, size: int, on_progress: OnProgress) -> None:
        self._stream, self._size, self._on_progress = stream, size, on_progress

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        if chunk:
            self._on_progress(self._stream.tell(), self._size)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def fileno(self) -> int:
        return self._stream.fileno()


def download_artifact(
    job_id: str, destination: Path, *, which: Artifact = "winner", on_progress: OnProgress | None = None
) -> Flow[str]:
    """Writes the file and returns its sha256 (hex). Raises DamagedDownload, leaving nothing behind.

    What has arrived is kept in `<destination>.part` until the file is whole. A connection that breaks is made again and
    the rest fetched; if it cannot be, a later call goes on from there. on_progress: bytes here, bytes in all if known.
    """
    partial = destination.with_name(destination.name + ".part")
    download = _Download(partial, on_progress)
    left_over = download.size > 0
    breaks = 0
    while True:
        before = download.size
        step = Send("GET", f"/v1/jobs/{job_id}/artifact", download.options(which), stream=True)
        response: httpx.Response = yield step
        if response.status_code == 416:  # what is there is longer than the file: another one's
            download.restart()
            continue
        if not response.is_success:
            yield from refuse(step, response)
        try:
            with download.opened(response) as file:
                while (chunk := (yield Read())) is not None:
                    download.take(file, chunk)
        except httpx.TransportError:
            breaks = 0 if download.size > before else breaks + 1
            if breaks > _BREAKS:
                raise
            yield Pause(_BREAK_S)
            continue
        expected, found = announced_sha256(response.headers), download.sha256
        if expected is not None and expected != found:
            partial.unlink()
            if left_over:  # perhaps the rest of another file: once more from the start
                left_over = False
                download.restart()
                continue
            raise DamagedDownload(expected, found)
        partial.replace(destination)
        return found


class _Download:
    """What of a file is here: its size and hash so far."""

    def __init__(self, partial: Path, on_progress: OnProgress | None) -> None:
        self._partial, self._on_progress = partial, on_progress
        self._etag: str | None = None
        self._total: int | None = None
        self._hash = hashlib.sha256()
        self.size = 0
        if partial.exists():
            with partial.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    self._hash.update(chunk)
                    self.size += len(chunk)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def options(self, which: Artifact) -> dict[str, object]:
        headers = {"Accept-Encoding": "identity"}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if self._etag is not None:
                headers["If-Range"] = self._etag
        return {"params": {"which": which}, "headers": headers}

    def restart(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._hash = hashlib.sha256()
        self.size, self._etag = 0, None

    def opened(self, response: httpx.Response) -> BinaryIO:
        """The partial file, at the place where the response's bytes belong."""
        if response.status_code != 206:
            self.restart()
        self._etag = response.headers.get("ETag")
        length = response.headers.get("Content-Length", "")
        self._total = self.size + int(length) if length.isdecimal() else None
        return self._partial.open("ab")

    def take(self, file: BinaryIO, chunk: bytes) -> None:
        file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)
        if self._on_progress is not None:
            self._on_progress(self.size, self._total)


def announced_sha256(headers: Mapping[str, str]) -> str | None:
    """sha256 (hex) of `Digest: sha-256=...` or `Repr-Digest: sha-256=:...:`; None when the header is missing.

    RFC 3230 and RFC 9530 write base64; hex is understood too.
    """
    value = headers.get("Repr-Digest") or headers.get("Digest") or ""
    for part in value.split(","):
        name, _, digest = part.strip().partition("=")
        if name.lower().replace("-", "") != "sha256":
            continue
        digest = digest.strip(":")
        if len(digest) == 64:
            return digest.lower()
        try:
            return base64.b64decode(digest, validate=True).hex()
        except binascii.Error:
            return None
    return None
