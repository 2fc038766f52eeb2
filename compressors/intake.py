"""Takes an uploaded model in: checks the archive, writes a clean copy, and reads that in a confined child process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressors.archive import ArchiveLimits, copy_archive
from compressors.descriptions import ModelDescription
from compressors.errors import CompressorError, UnsafeArchive, UnsupportedModel

_CHILD = "compressors.intake_child"
_SMALLER = "try a smaller model or raise the limit"
# Words with which Python, C++, torch, OpenBLAS and the dynamic linker give up.
_OUT_OF_MEMORY = re.compile(rb"(?i)memory|bad_alloc|failed to map segment")
# What the interpreter and its libraries need to be found; no tokens, no database address, no proxy.
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")


@dataclass(frozen=True, kw_only=True)
class IntakeLimits:
    """wall_s, cpu_s: seconds for reading one model, of which importing torch takes about 3. memory_bytes: what the
    child may allocate, to which six times the model's own bytes are added. address_bytes: the same with mapped files;
    far higher, because the libraries of a CUDA build alone take gigabytes. answer_bytes: of the description sent back.
    """

    archive: ArchiveLimits = field(default_factory=ArchiveLimits)
    wall_s: float = 180.0
    cpu_s: int = 120
    memory_bytes: int = 4 * 2**30
    address_bytes: int = 32 * 2**30
    answer_bytes: int = 16 * 2**20


DEFAULT_LIMITS = IntakeLimits()


def read_model(source: Path, destination: Path, limits: IntakeLimits = DEFAULT_LIMITS) -> ModelDescription:
    """Describes the model and puts a clean copy at `destination` (.pt2), which torch may then read anywhere.

    The copy holds no sample inputs, and the same model gives the same bytes. Blocks for some seconds; several calls may
    run at once. Raises UnsafeArchive for a file that must not be read, UnsupportedModel for one that cannot; nothing
    is left at `destination` then.
    """
    with tempfile.TemporaryDirectory(prefix=".intake-", dir=destination.parent) as folder:
        copy = Path(folder) / "model.pt2"
        copy_archive(source, copy, limits.archive)
        description = _description(_run_child(copy, Path(folder), limits))
        os.replace(copy, destination)
    return description


def _run_child(model: Path, folder: Path, limits: IntakeLimits) -> dict[str, Any]:
    memory = limits.memory_bytes + 6 * model.stat().st_size
    resources = {
        "memory_bytes": memory,
        "address_bytes": limits.address_bytes + memory,
        "cpu_s": limits.cpu_s,
        "written_bytes": limits.answer_bytes,
        "core_bytes": 0,
    }
    command = [sys.executable, "-m", "compressors.limited_process", json.dumps(resources), _CHILD, str(model)]
    # Answers go to files: the limit on written bytes then bounds them, whatever the child does.
    with (folder / "answer").open("w+b") as answer, (folder / "log").open("w+b") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=answer,
            stderr=log,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
            close_fds=True,
        )
        try:
            status = child.wait(timeout=limits.wall_s)
        except subprocess.TimeoutExpired:
            raise UnsupportedModel(f"reading took longer than {limits.wall_s:g} s; {_SMALLER}") from None
        finally:
            _kill(child)
        answer.seek(0)
        log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
        return _answer(status, answer.read(limits.answer_bytes), log.read(), limits.cpu_s, memory)


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder),
        "OMP_NUM_THREADS": "1",
    }


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and whatever it started: it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _answer(status: int, answer: bytes, log: bytes, cpu_s: int, memory: int) -> dict[str, Any]:
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        raise UnsupportedModel(f"reading took more than {cpu_s} s of processor time or was killed; {_SMALLER}")
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        document = None
    if status != 0 or not isinstance(document, dict):
        if _OUT_OF_MEMORY.search(log):
            raise UnsupportedModel(f"reading needs more than {memory} bytes of memory; {_SMALLER}")
        raise UnsupportedModel(
            f"the process that reads the model ended with status {status} and no answer; export the model again with "
            "torch 2.11 or newer"
        )
    return document


def _description(document: dict[str, Any]) -> ModelDescription:
    if "error" in document:
        kinds: dict[str, type[CompressorError]] = {"UnsafeArchive": UnsafeArchive}
        raise kinds.get(str(document["error"]), UnsupportedModel)(str(document.get("message"))[:4000])
    try:
        return ModelDescription.from_json(document["model"])
    except (KeyError, TypeError, AttributeError):
        raise UnsupportedModel("the process that reads the model gave an answer that is not a description") from None
