"""What the data folder and the blob store no longer need: blobs, artifacts, workspaces of ended jobs, old results of
stages. The scheduler calls it between its rounds, `bantam gc` at once.

A workspace or a cache entry is renamed before it is removed, so that nobody meets half of one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sqlalchemy import delete, select, tuple_

from service.blob_register import Collector
from service.blobs import Blobs
from service.database import Database, db_now
from service.jobs import TERMINAL
from service.settings import Settings
from service.tables import artifacts, jobs

logger = logging.getLogger("bantam.collection")
BATCH = 200
GRACE_S = 3600.0  # an entry of the cache that was used since may be under somebody's eyes
_LEFTOVER_S = 86400.0
_DOOMED = ".doomed-"
_UNFINISHED = (".incoming-*", ".new-*", f"{_DOOMED}*")


@dataclass(frozen=True)
class Collected:
    """artifacts: rows, whose blobs go later if nothing else refers to them."""

    blobs: int = 0
    blob_bytes: int = 0
    artifacts: int = 0
    workspaces: int = 0
    workspace_bytes: int = 0
    cache_entries: int = 0
    cache_bytes: int = 0

    def __add__(self, other: Collected) -> Collected:
        return Collected(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __bool__(self) -> bool:
        return any(asdict(self).values())


def collect(database: Database, store: Blobs, settings: Settings, prefix: str, *, dry_run: bool = False) -> Collected:
    """One bounded round. prefix: the two hex digits under which stray blobs are looked for this time.

    dry_run: removes nothing and counts what would be removed; blobs that would be freed by it are not among them.
    """
    collector = Collector(database, store, settings.blobs_keep_s)
    if dry_run:
        due = collector.due()
        found = Collected(blobs=due.blobs, blob_bytes=due.bytes, artifacts=_drop_artifacts(database, settings, True))
    else:
        dropped = _drop_artifacts(database, settings, False)
        collector.find_strays(prefix)
        collector.mark()
        swept = collector.sweep(BATCH)
        found = Collected(blobs=swept.blobs, blob_bytes=swept.bytes, artifacts=dropped)
    return found + tidy_folder(database, settings, dry_run=dry_run)


def tidy_folder(database: Database, settings: Settings, *, dry_run: bool = False) -> Collected:
    """What concerns this machine's data folder alone; a worker on another machine calls it for its own."""
    found = Collected()
    for path in _ended_workspaces(database, settings):
        found += Collected(workspaces=1, workspace_bytes=_size(path))
        if not dry_run:
            _remove(path)
    root = settings.data_dir / "cache"
    for path, size in _least_used(root, settings.cache_bytes):
        found += Collected(cache_entries=1, cache_bytes=size)
        if not dry_run:
            _remove(path)
    if not dry_run:
        for folder in (settings.data_dir / "jobs", settings.blobs_dir, root):
            _remove_leftovers(folder)
    return found


def _drop_artifacts(database: Database, settings: Settings, dry_run: bool) -> int:
    """Rows of artifacts whose job ended too long ago."""
    if settings.artifacts_keep_s is None:
        return 0
    key = (artifacts.c.job_id, artifacts.c.name)
    old = (
        select(*key)
        .join(jobs, jobs.c.id == artifacts.c.job_id)
        .where(jobs.c.state.in_(TERMINAL), jobs.c.finished_at < db_now() - settings.artifacts_keep_s)
        .limit(BATCH)
    )
    with database.write() as connection:
        found = [tuple(row) for row in connection.execute(old)]
        if found and not dry_run:
            connection.execute(delete(artifacts).where(tuple_(*key).in_(found)))
    return len(found)


def _ended_workspaces(database: Database, settings: Settings) -> Iterator[Path]:
    """Of jobs that ended too long ago, or whose rows are gone; at most a batch of them."""
    names = [path.name for path in (settings.data_dir / "jobs").glob("[!.]*") if path.is_dir()]
    found = 0
    for begin in range(0, len(names), BATCH):
        asked = names[begin : begin + BATCH]
        still_needed = jobs.c.state.not_in(TERMINAL) | (jobs.c.finished_at >= db_now() - settings.workspaces_keep_s)
        with database.read() as connection:
            kept = set(connection.scalars(select(jobs.c.id).where(jobs.c.id.in_(asked), still_needed)))
        for name in asked:
            if name not in kept and found < BATCH:
                found += 1
                yield settings.workspace(name)


def _least_used(root: Path, most: int) -> list[tuple[Path, int]]:
    """Entries of the stage cache beyond `most` bytes, with their sizes; those that were used lately are spared."""
    entries: list[tuple[float, int, Path]] = []
    for pattern in ("[0-9a-f][0-9a-f]/[0-9a-f]*", "project-*/[0-9a-f][0-9a-f]/[0-9a-f]*"):
        for path in root.glob(pattern):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                entries.append(((path / "value.json").stat().st_mtime, _size(path), path))
    over = sum(size for _, size, _ in entries) - most
    chosen: list[tuple[Path, int]] = []
    for used, size, path in sorted(entries):
        if over <= 0 or used > time.time() - GRACE_S:
            break
        chosen.append((path, size))
        over -= size
    return chosen


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            total += found.st_size if found.st_nlink == 1 or not path.is_file() else 0  # a lent blob is not its own
    return total


def _remove(path: Path) -> None:
    doomed = path.with_name(f"{_DOOMED}{path.name}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """What a killed process had not finished."""
    for pattern in _UNFINISHED:
        for path in [*folder.glob(pattern), *folder.glob(f"*/{pattern}")]:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
