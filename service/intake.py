"""How uploads become known: the functions that read a model, a dataset and a specification against both.

They are handed to the app as one value, so that tests of the API need no real model.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressors.descriptions import DatasetDescription, ModelDescription
from compressors.errors import InvalidData
from compressors.intake import read_model
from search.fit import check_fit
from search.spec import JobSpec
from service.problems import FieldError
from service.settings import Settings


@dataclass(frozen=True)
class Intake:
    """model: (upload, destination) -> description; raises UnsafeArchive, UnsupportedModel. dataset: raises InvalidData.

    fit: every way in which a specification does not fit its model and data. All block; call them in a thread.
    """

    model: Callable[[Path, Path], ModelDescription]
    dataset: Callable[[Path], DatasetDescription]
    fit: Callable[[JobSpec, ModelDescription, Mapping[str, DatasetDescription]], Sequence[FieldError]]


def real_intake(settings: Settings) -> Intake:
    return Intake(
        model=read_model,
        dataset=lambda path: describe_in_child(
            path, timeout_s=settings.dataset_read_s, memory_bytes=settings.dataset_memory_bytes
        ),
        fit=lambda spec, model, data: [FieldError(p.field, p.message) for p in check_fit(spec, model, data)],
    )


def describe_in_child(path: Path, *, timeout_s: float, memory_bytes: int) -> DatasetDescription:
    """Reads the file in a limited child process. Raises InvalidData."""
    command = [sys.executable, "-m", "service.dataset_child", str(path), str(memory_bytes)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise InvalidData(
            f"reading it took longer than {timeout_s:.0f} s; send a smaller or a split-up file"
        ) from error
    try:
        document = json.loads(done.stdout)
    except ValueError as error:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise InvalidData(f"it cannot be read ({last}); write it again with pyarrow, numpy or safetensors") from error
    if "error" in document:
        raise InvalidData(document["error"])
    return DatasetDescription.from_json(document["description"])
