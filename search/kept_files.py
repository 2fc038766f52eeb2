"""The better one of a candidate's files stays: what it had before a rung is put back if more tuning made it worse."""

from __future__ import annotations

import shutil
from pathlib import Path


class KeptFiles:
    """Copies of a trial's files from before rung `rung`. A copy that an interrupted run left behind is the one that
    counts: the files may have changed since."""

    def __init__(self, rung: int, *files: Path) -> None:
        self._copies = {file: file.with_name(f"{file.name}.before-{rung}") for file in files}
        self._done = next(iter(self._copies.values())).with_suffix(f".kept-{rung}")
        if not self._done.exists():
            for file, copy in self._copies.items():
                copy.unlink(missing_ok=True)
                if file.exists():
                    shutil.copyfile(file, copy)
            self._done.touch()

    def holds(self, file: Path) -> bool:
        return self._copies[file].exists()

    def restore(self) -> None:
        """Puts the copies back; a file that did not exist then is gone again."""
        for file, copy in self._copies.items():
            if copy.exists():
                copy.replace(file)
            else:
                file.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        self._done.unlink(missing_ok=True)
        for copy in self._copies.values():
            copy.unlink(missing_ok=True)
