"""`bantam gc`: `python -m service.gc [--dry-run] [--json]`, the scheduler's collection at once and to its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from service.collection import Collected, collect
from service.database import Database
from service.remote_blobs import CannotReachStore, open_blobs
from service.settings import Settings

PREFIXES = [f"{n:02x}" for n in range(256)]


def run(settings: Settings, *, dry_run: bool) -> Collected:
    """Raises CannotReachStore."""
    database, store = Database(settings.database), open_blobs(settings)
    try:
        if dry_run:
            return collect(database, store, settings, PREFIXES[0], dry_run=True)
        found = Collected()
        for prefix in PREFIXES:
            found += collect(database, store, settings, prefix)
        while more := collect(database, store, settings, PREFIXES[0]):
            found += more
        return found
    finally:
        database.close()


def main(arguments: Sequence[str]) -> int:
    dry_run = "--dry-run" in arguments
    try:
        found = run(Settings(), dry_run=dry_run)
    except CannotReachStore as error:
        print(error, file=sys.stderr)
        return 2
    if "--json" in arguments:
        print(json.dumps({"dry_run": dry_run, **asdict(found)}))
        return 0
    print("would be removed:" if dry_run else "removed:")
    rows = (
        ("blobs", found.blobs, found.blob_bytes),
        ("artifacts of old jobs", found.artifacts, None),
        ("workspaces of ended jobs", found.workspaces, found.workspace_bytes),
        ("results of stages", found.cache_entries, found.cache_bytes),
    )
    for what, count, size in rows:
        print(f"  {count:>8} {what}" + ("" if size is None else f" ({size / 1e6:.1f} MB)"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
