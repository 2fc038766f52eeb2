"""Results of stages by content: the same input is never computed twice, also across jobs and coordinators.

A key is the sha256 of the stage's name, its inputs and the code version. An entry is a folder with `value.json` and
the stage's files; it appears by one rename, so that readers never see half of it and two writers may race.
Cost of a look-up: one open. Growth: one folder per stage result, in 256 sub-folders.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_ROOMS = ("compressors", "search")


@functools.cache
def code_version() -> str:
    """Hash of the sources that compute stages, so that a changed technique never meets an old result."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def foreign_code(*kinds: type) -> dict[str, str]:
    """Hashes of the modules of other packages in which these classes are written, for the keys of what they compute."""
    modules = {kind.__module__ for kind in kinds if kind.__module__.partition(".")[0] not in _ROOMS}
    files = {name: getattr(sys.modules[name], "__file__", None) for name in sorted(modules)}
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
        for name, file in files.items()
        if file is not None
    }


def stage_key(stage: str, inputs: Mapping[str, Any]) -> str:
    """inputs: JSON values only; their order does not matter."""
    text = json.dumps([stage, code_version(), inputs], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class StageCache:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> tuple[dict[str, Any], Path] | None:
        """The value and the folder with its files, or None. A damaged entry counts as none."""
        entry = self._entry(key)
        try:
            value = json.loads((entry / "value.json").read_text())
            os.utime(entry / "value.json")  # when it was last used: the collector removes the others first
        except (OSError, ValueError):
            return None
        return value, entry

    def store(self, key: str, value: Mapping[str, Any], files: Mapping[str, Path]) -> Path:
        """Copies `files` (name in the entry -> source) and returns the entry's folder."""
        entry = self._entry(key)
        entry.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
        for name, source in files.items():
            shutil.copyfile(source, staging / name)
        (staging / "value.json").write_text(json.dumps(value, allow_nan=False))
        try:
            os.rename(staging, entry)
        except OSError:  # another process stored the same result first, or a damaged entry stands there
            if self.find(key) is None:
                shutil.rmtree(entry, ignore_errors=True)
                os.rename(staging, entry)
            else:
                shutil.rmtree(staging, ignore_errors=True)
        return entry

    def get_or_compute(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        compute: Callable[[Path], Mapping[str, Any]],
        *,
        keep: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    ) -> tuple[dict[str, Any], Path, bool]:
        """Returns (value, folder of its files, whether it was found).

        `compute` gets an empty folder, leaves its files there and returns the value. keep: whether a value is worth
        finding again; one that is not has no files.
        """
        key = stage_key(stage, inputs)
        found = self.find(key)
        if found is not None:
            return (*found, True)
        with tempfile.TemporaryDirectory(prefix="stage-") as scratch:
            value = compute(Path(scratch))
            if not keep(value):
                return dict(value), self._entry(key), False
            files = {path.name: path for path in Path(scratch).iterdir()}
            entry = self.store(key, value, files)
        return dict(value), entry, False

    def _entry(self, key: str) -> Path:
        return self._folder / key[:2] / key
