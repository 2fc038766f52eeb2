"""The zip file around an uploaded model: a directory that is believed only after it has been checked.

Python's zipfile reads it here. torch's own reader (miniz) never sees the upload, only a copy written anew from what was
read, so two readers that disagree about a malformed file cannot be played against each other.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from compressors.archive_json import RESAVE, shorten
from compressors.errors import UnsafeArchive

_CHUNK = 1 << 20
_SMALL = 1 << 20  # below this a high compression ratio does no harm
_DIRECTORY_BYTES_PER_MEMBER = 1024
_DAMAGED = "the file is damaged or truncated: upload it again"
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    MemoryError,
    OSError,
    LookupError,
)


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """Sizes in bytes. ratio: uncompressed to compressed bytes of one member (weights are stored, so about 1)."""

    file_bytes: int = 2 * 10**9
    members: int = 20_000
    total_bytes: int = 4 * 10**9
    ratio: float = 200.0
    json_bytes: int = 64 * 10**6
    pickle_bytes: int = 10**6


class Container:
    """The members of one zip file, by their name below the common top folder. Made by `open_container`."""

    def __init__(self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
        self._archive = archive
        self._members = members

    @property
    def sizes(self) -> dict[str, int]:
        """Declared bytes of each member; `read` and `chunks` hold members to it."""
        return {name: info.file_size for name, info in self._members.items()}

    def read(self, name: str, limit: int) -> bytes:
        """A whole member. Raises UnsafeArchive if it has more than `limit` bytes or is damaged."""
        if name not in self._members:
            raise UnsafeArchive(f"member {name} is missing: not a model saved by torch.export.save; {RESAVE}")
        size = self._members[name].file_size
        if size > limit:
            raise UnsafeArchive(f"member {name}: {size} bytes; the limit is {limit}")
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """The member's bytes, checked against declared size and checksum."""
        info = self._members[name]
        seen = 0
        with _damage_as_unsafe(name), self._archive.open(info) as stream:
            while chunk := stream.read(_CHUNK):
                seen += len(chunk)
                if seen > info.file_size:
                    break
                yield chunk
        if seen != info.file_size:
            raise UnsafeArchive(f"member {shorten(name)}: {info.file_size} bytes declared, {seen} found; {_DAMAGED}")


@contextmanager
def open_container(file: IO[bytes], limits: ArchiveLimits) -> Iterator[Container]:
    """Checks the zip directory of `file`, which stays open. Raises UnsafeArchive."""
    size = file.seek(0, 2)
    if size > limits.file_bytes:
        raise UnsafeArchive(f"{size} bytes; the limit is {limits.file_bytes}")
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        raise UnsafeArchive("not a zip archive: a model is a .pt2 file written by torch.export.save")
    _check_directory_size(file, size, limits)
    with _damage_as_unsafe("directory"):
        archive = zipfile.ZipFile(file)
    with archive:
        yield Container(archive, _checked_members(archive, size, limits))


@contextmanager
def _damage_as_unsafe(what: str) -> Iterator[None]:
    try:
        yield
    except UnsafeArchive:
        raise
    except _ZIP_ERRORS as error:
        reason = shorten(str(error) or type(error).__name__)
        raise UnsafeArchive(f"member {shorten(what)} cannot be read ({reason}); {_DAMAGED}") from None


def _check_directory_size(file: IO[bytes], size: int, limits: ArchiveLimits) -> None:
    """Looks at the end record by itself, because zipfile reads the whole directory before it can be asked anything."""
    file.seek(max(0, size - 65_557))  # 22 bytes of end record and a comment of at most 65,535
    tail = file.read()
    position = tail.rfind(b"PK\x05\x06")
    if position < 0 or len(tail) - position < 22:
        raise UnsafeArchive(f"the zip directory is missing; {_DAMAGED}")
    members, directory = struct.unpack_from("<HI", tail, position + 10)
    locator = tail[position - 20 : position] if position >= 20 else b""
    if locator[:4] == b"PK\x06\x07":  # zip64: torch always writes it
        file.seek(min(struct.unpack_from("<Q", locator, 8)[0], size))
        record = file.read(56)
        if len(record) < 56 or record[:4] != b"PK\x06\x06":
            raise UnsafeArchive(f"the zip64 directory is missing; {_DAMAGED}")
        members64, directory64 = struct.unpack_from("<QQ", record, 32)
        members, directory = max(members % 0xFFFF, members64), max(directory % 0xFFFFFFFF, directory64)
    if members > limits.members:
        raise UnsafeArchive(f"{members} members; the limit is {limits.members}")
    if directory > limits.members * _DIRECTORY_BYTES_PER_MEMBER:
        raise UnsafeArchive(f"a zip directory of {directory} bytes; {_DAMAGED}")


def _checked_members(archive: zipfile.ZipFile, size: int, limits: ArchiveLimits) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if not infos:
        raise UnsafeArchive(f"the archive is empty; {RESAVE}")
    if len(infos) > limits.members:
        raise UnsafeArchive(f"{len(infos)} members; the limit is {limits.members}")
    total = sum(info.file_size for info in infos)
    if total > limits.total_bytes:
        raise UnsafeArchive(f"{total} bytes when unpacked; the limit is {limits.total_bytes}")
    members: dict[str, zipfile.ZipInfo] = {}
    root = infos[0].filename.partition("/")[0]
    for info in infos:
        name = _checked_name(info)
        _checked_storage(info, size, limits)
        folder, _, rest = name.partition("/")
        if folder != root or not rest:
            if name in ("version", "serialized_exported_program.json", "serialized_state_dict.pt"):
                raise UnsafeArchive(
                    f"member {name}: the .pt2 format of torch 2.7 and older, which is pickled; {RESAVE}"
                )
            raise UnsafeArchive(f"member {shorten(name)} lies outside the archive's folder {shorten(root)}; {RESAVE}")
        if rest in members:
            raise UnsafeArchive(f"member {shorten(name)} occurs twice; {RESAVE}")
        members[rest] = info
    _check_overlaps(infos, archive.start_dir)
    return members


def _checked_name(info: zipfile.ZipInfo) -> str:
    name = info.orig_filename  # as stored: zipfile cuts `filename` at a NUL
    parts = name.split("/")
    if (
        not name.isascii()
        or not name.isprintable()
        or "\\" in name
        or ":" in name
        or len(name) > 1000
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise UnsafeArchive(f"member name {shorten(name)}: names must be plain relative paths; {RESAVE}")
    return name


def _checked_storage(info: zipfile.ZipInfo, size: int, limits: ArchiveLimits) -> None:
    name = shorten(info.filename)
    kind = (info.external_attr >> 16) & 0o170000
    if kind not in (0, 0o100000):
        raise UnsafeArchive(f"member {name} is a link or a device, not a file; {RESAVE}")
    if info.flag_bits & 0x2041:
        raise UnsafeArchive(f"member {name} is encrypted; upload the archive without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnsafeArchive(f"member {name}: compression method {info.compress_type} is not read; {RESAVE}")
    if info.compress_size > size:
        raise UnsafeArchive(f"member {name}: {info.compress_size} bytes declared in a file of {size}; {_DAMAGED}")
    if info.file_size > _SMALL and info.file_size > limits.ratio * max(info.compress_size, 1):
        raise UnsafeArchive(
            f"member {name}: {info.compress_size} bytes unpack to {info.file_size}; the limit is a ratio of "
            f"{limits.ratio:g}; store weights uncompressed, as torch.export.save does"
        )


def _check_overlaps(infos: list[zipfile.ZipInfo], directory_start: int) -> None:
    """Members that share bytes make small files unpack to large ones without any high ratio."""
    spans = sorted((info.header_offset, info.compress_size, info.orig_filename) for info in infos)
    ends = [start for start, _, _ in spans[1:]] + [directory_start]
    for (start, length, name), end in zip(spans, ends, strict=True):
        if start < 0 or start + 30 + len(name) + length > end:
            raise UnsafeArchive(f"member {shorten(name)} overlaps what follows it; {_DAMAGED}")
