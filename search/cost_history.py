"""What earlier jobs measured of the same model on the same target, for the cost model of the next one.

One file per model and target, a line per measured plan, appended in one write, so that processes may share it.
Cost: loading reads the file once per job, O(lines kept); at most KEPT plans per template are given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from search.cost_prediction import Point

KEPT = 200  # plans per template, the newest


class CostHistory:
    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, tuple[Point, ...]]:
        """Points by template key, oldest first. A line that cannot be read is passed over."""
        found: dict[str, list[Point]] = {}
        try:
            lines = self._path.read_text().splitlines()
        except OSError:
            return {}
        for line in lines:
            try:
                document = json.loads(line)
                point = Point(**{**document["point"], "features": tuple(document["point"]["features"])})
                found.setdefault(str(document["template"]), []).append(point)
            except (ValueError, TypeError, KeyError):
                continue
        return {template: tuple(points[-KEPT:]) for template, points in found.items()}

    def add(self, template: str, point: Point) -> None:
        """Raises nothing that matters: what cannot be kept is measured again."""
        document: Mapping[str, object] = {"template": template, "point": asdict(point)}
        line = (json.dumps(document) + "\n").encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError:
            return
        try:
            os.write(handle, line)
        except OSError:
            pass
        finally:
            os.close(handle)
