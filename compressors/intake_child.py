"""Child of `compressors.intake`: reads one clean copy with torch and prints its description as JSON.

The copy has passed `compressors.archive`, so nothing in it should be able to run code. This process assumes that
something was overlooked: unpickling is switched off, and an audit hook, which cannot be taken back, refuses to start
processes, open sockets and write files.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from compressors.errors import CompressorError, UnsafeArchive
from compressors.onnx_export import export_onnx
from compressors.programs import Program, load_program, sample_inputs

_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "os.kill",
    "subprocess.Popen",
    "socket.",
    "ftplib.",
    "urllib.Request",
    "shutil.",
    "pty.spawn",
    "pickle.find_class",
    "webbrowser.open",
)


_refused: list[str] = []


def _refuse_unpickling(*_: object, **__: object) -> NoReturn:
    _refused.append("unpickling")
    raise UnsafeArchive("reading the model led to unpickling")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_FORBIDDEN) or (event == "open" and _writes(arguments)):
        _refused.append(event)  # the exception may be caught on its way up
        raise UnsafeArchive(f"reading the model led to {event}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND))


def confine() -> None:
    """Irreversible: only for a process that reads one model and ends."""
    tempfile.tempdir = os.getcwd()  # otherwise found by writing a file
    for owner, name in ((torch, "load"), (torch._C, "_pickle_load_obj"), (pickle, "loads"), (pickle, "load")):
        setattr(owner, name, _refuse_unpickling)
    sys.addaudithook(_audit)


def describe(path: Path) -> dict[str, Any]:
    """`{"model": description}` or `{"error": class, "message": text}`."""
    answer = _read(path)
    if _refused:
        message = f"reading the model led to {_refused[0]}, which is refused; it may hold only tensors and operators"
        return {"error": "UnsafeArchive", "message": message}
    return answer


def _read(path: Path) -> dict[str, Any]:
    try:
        program = load_program(path)
        description = replace(program.description, unsupported=_unsupported(program))
    except CompressorError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        raise
    except Exception as error:
        return {
            "error": "UnsupportedModel",
            "message": f"the model cannot be read ({type(error).__name__}: {str(error)[:300]}); export it again with "
            "torch 2.11 or newer",
        }
    return {"model": description.to_json()}


def _unsupported(program: Program) -> str | None:
    """What the exporter says of a model that it cannot write; found here, so that no search starts in vain."""
    try:
        export_onnx(program.module, sample_inputs(program.description, batch=2, seed=0))
    except CompressorError as error:
        return str(error)
    return None


def main(path: Path) -> None:
    answer = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not end up in the answer
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    confine()
    json.dump(describe(path), answer, allow_nan=False)
    answer.close()
    # Skips finalisers of libraries, which might write files that the hook refuses.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
