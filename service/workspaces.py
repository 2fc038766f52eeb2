"""A job's folder, fenced like its rows: each lease has a sub-folder of its own and moves its predecessor's there.

What a worker that was taken for dead still writes then goes nowhere: the paths that it knows are gone. Checkpoints and
files of trials move along; on a host that has none of them the folder is empty, and the search makes again what it
needs.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

_NAME = re.compile(r"lease-(\d+)")


def take_workspace(folder: Path, token: int) -> Path:
    """The sub-folder for the lease with this fencing token; one rename where a predecessor's lies there."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / f"lease-{token}"
    earlier = sorted((found for found in _leases(folder) if found[0] < token), reverse=True)
    if earlier and not mine.exists():
        with contextlib.suppress(FileNotFoundError):  # another worker was faster, and ours is over
            earlier[0][1].rename(mine)
    for _, left in earlier[1:]:  # what a late writer has made again
        shutil.rmtree(left, ignore_errors=True)
    mine.mkdir(exist_ok=True)
    return mine


def _leases(folder: Path) -> list[tuple[int, Path]]:
    return [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)) is not None]
