"""Receives one file of a multipart form straight onto disk, hashed and counted on the way, never held in memory.

The file's own name is a label: it names nothing on this machine.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from service.problems import FieldError, Problem, invalid

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_NAME = 200
_MAX_FIELD = 4096
_FORM_BYTES = 64 * 1024  # everything in a form but the file


@dataclass(frozen=True)
class Upload:
    """path: a temporary file, gone when the context ends unless it was moved. name: the label to show."""

    path: Path
    sha256: str
    bytes: int
    name: str


@dataclass(frozen=True)
class UploadLimits:
    """bytes: of the file. total_s: for all of it to arrive. idle_s: between two pieces of it."""

    bytes: int
    total_s: float
    idle_s: float


@asynccontextmanager
async def received(request: Request, folder: Path, limits: UploadLimits) -> AsyncIterator[Upload]:
    """Reads the fields `file` and `name` of a form. Raises Problem 400, 408, 413, 415, 422 or 507."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Problem(415, "unsupported-media-type", "send multipart/form-data with the fields file and name")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.bytes + _FORM_BYTES:
        raise _too_large(limits.bytes)

    folder.mkdir(parents=True, exist_ok=True)
    if declared.isdecimal() and int(declared) > shutil.disk_usage(folder).free:
        raise _disk_full()
    handle, name = tempfile.mkstemp(dir=folder, prefix="upload-")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as target:
            form = _Form(target, limits.bytes)
            try:
                await _read(request, MultipartParser(boundary, form.callbacks()), limits)
            except FormParserError as error:
                raise Problem(400, "invalid-form", f"the form is damaged: {error}; send it again") from error
            except ClientDisconnect as error:
                raise Problem(400, "incomplete", "the upload broke off; send it again") from error
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise _disk_full() from error
        if not form.file_seen:
            raise invalid([FieldError("file", "missing; send the file in the form field `file`")])
        if not form.complete:
            raise Problem(400, "incomplete", "the form ends before its last boundary; send it again")
        if form.size == 0:
            raise invalid([FieldError("file", "empty; send a file with content")])
        yield Upload(path, form.digest.hexdigest(), form.size, _label(form))
    finally:
        path.unlink(missing_ok=True)


async def _read(request: Request, parser: MultipartParser, limits: UploadLimits) -> None:
    pieces = request.stream()
    total = 0
    deadline = time.monotonic() + limits.total_s
    while True:
        left = deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(limits.idle_s, left)):
                piece = await anext(pieces, None)
        except TimeoutError as error:
            detail = (
                f"nothing arrived for {limits.idle_s:g} s"
                if limits.idle_s < left
                else f"the upload took longer than {limits.total_s:g} s"
            )
            raise Problem(408, "too-slow", f"{detail}; send it again over a faster connection") from error
        if piece is None:
            return
        total += len(piece)
        if total > limits.bytes + _FORM_BYTES:  # what lies before, between and behind the parts counts too
            raise _too_large(limits.bytes)
        await asyncio.to_thread(parser.write, piece)


def remove_stale_uploads(folder: Path, older_than_s: float = 86400) -> None:
    """Clears what a killed server left behind; younger files may belong to another server on the same folder."""
    for path in folder.glob("*"):
        if time.time() - path.stat().st_mtime > older_than_s:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        "too-large",
        f"the file is larger than {limit} bytes; send a smaller one or raise the limit in the server's settings",
        [FieldError("file", f"larger than {limit} bytes")],
    )


def _disk_full() -> Problem:
    return Problem(507, "disk-full", "the server's disk has no room for this file; have some made, then send it again")


def _label(form: _Form) -> str:
    given = form.fields.get("name", bytearray()).decode("utf-8", "replace").strip()
    fallback = PurePosixPath(form.filename.replace("\\", "/")).name
    name = "".join(c for c in given or fallback or "unnamed" if c.isprintable())
    if len(name) > MAX_NAME:
        raise invalid([FieldError("name", f"{len(name)} characters; at most {MAX_NAME} are kept, shorten it")])
    return name or "unnamed"


@dataclass
class _Form:
    """Callbacks of the parser: the part named `file` goes to disk, small fields are kept."""

    target: BinaryIO
    limit: int
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size: int = 0
    filename: str = ""
    file_seen: bool = False
    complete: bool = False
    fields: dict[str, bytearray] = field(default_factory=dict)
    _part: str = ""
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.part_begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_finished,
            "on_part_data": self.part_data,
            "on_end": self.end,
        }

    def part_begin(self) -> None:
        self._disposition = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        if self._part == "file":
            if self.file_seen:
                raise invalid([FieldError("file", "given twice; send one file per request")])
            self.file_seen = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        elif self._part == "name":
            self.fields["name"] = bytearray()
        else:
            raise invalid([FieldError(self._part or "form", "unknown field; send only file and name")])

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part != "file":
            kept = self.fields[self._part]
            kept += data[start:end]
            if len(kept) > _MAX_FIELD:
                raise invalid([FieldError(self._part, f"longer than {MAX_NAME} characters; shorten it")])
            return
        self.size += end - start
        if self.size > self.limit:
            raise _too_large(self.limit)
        self.digest.update(memoryview(data)[start:end])
        self.target.write(memoryview(data)[start:end])

    def end(self) -> None:
        self.complete = True
