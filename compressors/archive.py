"""The gate for uploaded models: decides, without torch, whether a .pt2 may be read at all.

torch.export.load trusts its file. It unpickles weights, constants and sample inputs that say so, evaluates symbolic
sizes, resolves operators by name, compiles guards and writes names into Python source that it runs. Here the archive is
read with zipfile and json alone, everything is held to an allow-list, and what passed is written anew: torch sees only
that copy.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compressors.archive_container import ArchiveLimits, Container, open_container
from compressors.archive_json import RESAVE, parse_json, shorten
from compressors.archive_pickles import check_sample_inputs
from compressors.archive_program import clean_program
from compressors.archive_tensors import clean_payloads
from compressors.errors import UnsafeArchive

__all__ = ["DEFAULT_LIMITS", "ArchiveLimits", "check_archive", "copy_archive"]

DEFAULT_LIMITS = ArchiveLimits()
_PROGRAM = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_WEIGHTS = ("data/weights/", "weight_", "data/weights/model_weights_config.json")
_CONSTANTS = ("data/constants/", "tensor_", "data/constants/model_constants_config.json")
_PLAIN = {"archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id", "version"}
_PLAIN |= {".format_version", ".storage_alignment"}
# Folders that torch.export.load runs, loads as a library or hands to another interpreter.
_FORBIDDEN = {
    "data/aotinductor/": "compiled code",
    "data/executorch/": "an ExecuTorch program",
    "extra/": "extra files",
    "xl_model_weights/": "external weights",
    "mtia/": "an MTIA program",
    "code/": "TorchScript code",
}


@dataclass(frozen=True)
class _Checked:
    """program and tables: cleaned JSON. payloads: members that the tables refer to."""

    documents: dict[str, bytes]
    payloads: tuple[str, ...]


def check_archive(path: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
    """Raises UnsafeArchive, saying what was found and the remedy, unless torch may read a copy of this file.

    Reads every byte once (checksums). Raises OSError if the file cannot be opened.
    """
    with _opened(path, limits) as container:
        checked = _check(container, limits)
        for name in checked.payloads:
            for _ in container.chunks(name):
                pass


def copy_archive(path: Path, destination: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
    """Checks like `check_archive` and writes what passed to `destination`, without sample inputs.

    The same model gives the same bytes. Raises UnsafeArchive; leaves no file behind then.
    """
    try:
        with _opened(path, limits) as container, zipfile.ZipFile(destination, "w", zipfile.ZIP_STORED) as copy:
            checked = _check(container, limits)
            for name in checked.payloads:
                with copy.open(_member(name), "w", force_zip64=True) as target:
                    for chunk in container.chunks(name):
                        target.write(chunk)
            for name, content in checked.documents.items():
                copy.writestr(_member(name), content)
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"model/{name}", date_time=(1980, 1, 1, 0, 0, 0))


@contextmanager
def _opened(path: Path, limits: ArchiveLimits) -> Iterator[Container]:
    with path.open("rb") as file:
        try:
            with open_container(file, limits) as container:
                yield container
        except RecursionError:
            raise UnsafeArchive(f"{_PROGRAM}: nested too deeply; {RESAVE}") from None


def _check(container: Container, limits: ArchiveLimits) -> _Checked:
    sizes = container.sizes
    for name in sizes:
        _check_member(name)
    if container.read("archive_format", 64) != b"pt2":
        raise UnsafeArchive(f"archive_format is not 'pt2'; {RESAVE}")
    if container.read("archive_version", 64) != b"0":
        raise UnsafeArchive(f"archive_version is not 0, the one this release reads; {RESAVE}")
    if "byteorder" in sizes and container.read("byteorder", 64) != b"little":
        raise UnsafeArchive("byteorder is not 'little'; save the model on a little-endian machine")
    if _SAMPLES in sizes:
        check_sample_inputs(container.read(_SAMPLES, limits.json_bytes), limits)
    program = clean_program(parse_json(container.read(_PROGRAM, limits.json_bytes), _PROGRAM))
    documents: dict[str, bytes] = {_PROGRAM: _json(program.document), _SAMPLES: b""}
    payloads: set[str] = set()
    for (folder, prefix, table), needed in ((_WEIGHTS, program.weights), (_CONSTANTS, program.constants)):
        stored = {name.removeprefix(folder): size for name, size in sizes.items() if name.startswith(folder)}
        value = parse_json(container.read(table, limits.json_bytes), table)
        cleaned = clean_payloads(value, table, prefix, stored, needed)
        documents[table] = _json(cleaned)
        payloads |= {folder + entry["path_name"] for entry in cleaned["config"].values()}
    documents |= {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little", ".data/version": b"6\n"}
    return _Checked(documents, tuple(sorted(payloads)))


def _check_member(name: str) -> None:
    for folder, what in _FORBIDDEN.items():
        if name.startswith(folder):
            raise UnsafeArchive(f"member {shorten(name)}: {what} inside the archive is not read; {RESAVE}")
    if name == "data.pkl" or name == "constants.pkl":
        raise UnsafeArchive(
            f"member {name}: a pickled or TorchScript model, not an exported program; unpickling runs code of "
            "whoever wrote it; use torch.export.export and torch.export.save"
        )
    if name.endswith((".pt", ".pkl", ".so")) and name != _SAMPLES:
        if name.startswith("data/sample_inputs/"):
            raise UnsafeArchive(f"member {shorten(name)}: an archive holds one model, called 'model'; save it alone")
        raise UnsafeArchive(f"member {shorten(name)}: pickled or compiled content is not read; {RESAVE}")
    if name.startswith("models/") and name != _PROGRAM:
        raise UnsafeArchive(f"member {shorten(name)}: an archive holds one model, called 'model'; save it alone")
    for folder, prefix, table in (_WEIGHTS, _CONSTANTS):
        if name == table:
            return
        if name.startswith(folder):
            if name.removeprefix(folder + prefix).isdigit():
                return
            raise UnsafeArchive(
                f"member {shorten(name)}: not a plain tensor; custom and opaque objects are unpickled when read; "
                "keep only tensors in the model and save again"
            )
    if name not in _PLAIN | {_PROGRAM, _SAMPLES}:
        raise UnsafeArchive(f"member {shorten(name)} does not belong to a model saved by torch.export.save; {RESAVE}")


def _json(document: object) -> bytes:
    return json.dumps(document, allow_nan=False).encode()
