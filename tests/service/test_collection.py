from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import delete, func, select, update

from search.stage_cache import StageCache
from service.blob_register import Collector, note, take_in
from service.blobs import Blob, BlobStore, digest_of
from service.catalogue import Catalogue
from service.collection import Collected, collect, tidy_folder
from service.database import Database, db_now
from service.leases import Leases
from service.ledger import SqlLedger
from service.settings import DAY, Settings
from service.tables import artifacts, blobs, datasets, jobs
from tests.service.rows import DATASET, LIMITS, add_job


def put(database: Database, store: BlobStore, folder: Path, content: bytes) -> str:
    (folder / "source").write_bytes(content)
    return take_in(database, store, folder / "source").sha256


def refer(database: Database, sha256: str) -> None:
    Catalogue(database, "default", LIMITS).add_dataset(name="n", sha256=sha256, size=1, description=DATASET)


def age(database: Database, seconds: float) -> None:
    with database.write() as connection:
        connection.execute(update(blobs).values(unused_since=blobs.c.unused_since - seconds))


@pytest.fixture
def store(settings: Settings) -> BlobStore:
    return BlobStore(settings.blobs_dir)


def kept(store: BlobStore) -> set[str]:
    return {p.name for p in store.root.rglob("*") if p.is_file()}


def test_a_blob_goes_when_nothing_has_referred_to_it_for_long_enough(
    database: Database, store: BlobStore, settings: Settings, tmp_path: Path
) -> None:
    used, unused, stray = (put(database, store, tmp_path, c) for c in (b"used", b"unused", b"stray"))
    refer(database, used)
    with database.write() as connection:
        connection.execute(delete(blobs).where(blobs.c.sha256 == stray))  # as a release without the table left it
    for prefix in {used[:2], unused[:2], stray[:2]}:
        assert not collect(database, store, settings, prefix)
    age(database, settings.blobs_keep_s - 60)
    assert not collect(database, store, settings, stray[:2])
    age(database, 120)
    assert collect(database, store, settings, stray[:2], dry_run=True).blobs == 2
    assert kept(store) == {used, unused, stray}
    found = collect(database, store, settings, stray[:2])
    assert (found.blobs, found.blob_bytes) == (2, len(b"unused") + len(b"stray"))
    assert kept(store) == {used}
    with database.write() as connection:
        connection.execute(delete(datasets))
    assert not collect(database, store, settings, used[:2]), "a week begins when the last row goes"
    age(database, settings.blobs_keep_s + 60)
    assert collect(database, store, settings, used[:2]).blobs == 1
    assert kept(store) == set()


def test_one_round_removes_a_bounded_number(database: Database, store: BlobStore, tmp_path: Path) -> None:
    for n in range(5):
        put(database, store, tmp_path, bytes([n]))
    collector = Collector(database, store, 60)
    collector.mark()
    age(database, 61)
    assert [collector.sweep(2).blobs for _ in range(4)] == [2, 2, 1, 0]


def test_an_upload_of_what_is_about_to_be_collected_keeps_it(
    database: Database, store: BlobStore, tmp_path: Path
) -> None:
    sha256 = put(database, store, tmp_path, b"again")
    collector = Collector(database, store, 60)
    collector.mark()
    age(database, 61)
    put(database, store, tmp_path, b"again")  # noted and written; its row is still to come
    assert collector.sweep(10).blobs == 0
    collector.mark()
    assert collector.sweep(10).blobs == 0
    refer(database, sha256)
    age(database, 3600)
    collector.mark()
    assert collector.sweep(10).blobs == 0
    assert kept(store) == {sha256}


def test_a_writer_that_comes_while_the_bytes_are_being_removed_waits(
    database: Database, store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race that must be lost by the collector: row deleted, bytes not yet, and an upload of the same bytes."""
    sha256 = put(database, store, tmp_path, b"race")
    collector = Collector(database, store, 60)
    collector.mark()
    age(database, 61)
    removing, go_on, order = Event(), Event(), list[str]()
    remove: Callable[[str], None] = store.remove

    def slow(name: str) -> None:
        removing.set()
        assert go_on.wait(20)
        remove(name)
        order.append("removed")

    monkeypatch.setattr(store, "remove", slow)
    sweeper = Thread(target=lambda: collector.sweep(10))
    sweeper.start()
    assert removing.wait(20)

    def upload() -> None:
        note(database, Blob(sha256, 4))
        order.append("noted")
        store.add(tmp_path / "source", sha256)

    uploader = Thread(target=upload)
    uploader.start()
    uploader.join(0.3)
    assert uploader.is_alive(), "it waits for the collector's transaction"
    go_on.set()
    sweeper.join()
    uploader.join()
    assert order == ["removed", "noted"]
    assert store.path(sha256).read_bytes() == b"race"
    refer(database, sha256)


def finished_job(database: Database, store: BlobStore, folder: Path) -> str:
    job_id = add_job(database)
    lease = Leases(database).claim("w", 60)
    assert lease is not None
    (folder / "w.onnx").write_bytes(b"winner")
    ledger = SqlLedger(database, store, lease)
    ledger.put_artifact("winner", folder / "w.onnx")
    ledger.finish("succeeded", outcome="feasible", reason=None, report=None)
    return job_id


def test_artifacts_are_kept_as_long_as_the_setting_says(
    database: Database, store: BlobStore, settings: Settings, tmp_path: Path
) -> None:
    job_id = finished_job(database, store, tmp_path)
    with database.write() as connection:
        connection.execute(update(jobs).values(finished_at=db_now() - 10 * DAY))
    assert collect(database, store, settings, "00").artifacts == 0, "forever, if nothing is said"
    longer, shorter = (settings.model_copy(update={"artifacts_keep_s": days * DAY}) for days in (11, 9))
    assert collect(database, store, longer, "00").artifacts == 0
    assert collect(database, store, shorter, "00", dry_run=True).artifacts == 1
    assert collect(database, store, shorter, "00").artifacts == 1
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(artifacts)).scalar_one() == 0
    age(database, settings.blobs_keep_s + 60)
    assert collect(database, store, shorter, "00").blobs == 1
    assert job_id and kept(store) == set()


def test_workspaces_of_ended_and_of_deleted_jobs_go(
    database: Database, store: BlobStore, settings: Settings, tmp_path: Path
) -> None:
    ended, waiting = finished_job(database, store, tmp_path), add_job(database)
    for name in (ended, waiting, "jdeleted"):
        settings.workspace(name).mkdir(parents=True)
        (settings.workspace(name) / "checkpoint.pt").write_bytes(bytes(50))
    assert tidy_folder(database, settings) == Collected(workspaces=1, workspace_bytes=50)
    assert settings.workspace(ended).exists(), "for a day, so that it can be looked into"
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == ended).values(finished_at=db_now() - 2 * DAY))
    assert tidy_folder(database, settings, dry_run=True).workspaces == 1
    assert tidy_folder(database, settings).workspaces == 1
    assert [p.name for p in (settings.data_dir / "jobs").iterdir()] == [waiting]


def test_the_stage_cache_keeps_what_was_used_last(database: Database, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    keys = [f"{n:064x}" for n in range(4)]
    for project, key in zip(("default", "default", "other", "other"), keys, strict=True):
        cache = StageCache(settings.cache(project))
        entry = cache.store(key, {"n": 1}, {"file": tmp_path / "file"})
        hours_ago = time.time() - 7200 - keys.index(key)
        os.utime(entry / "value.json", (hours_ago, hours_ago))
    StageCache(settings.cache("other")).find(keys[3])
    small = settings.model_copy(update={"cache_bytes": 2500})
    assert tidy_folder(database, settings).cache_entries == 0
    assert tidy_folder(database, small).cache_entries == 2, "keys 2 and 1, used before key 0"
    assert StageCache(settings.cache("default")).find(keys[0]) and StageCache(settings.cache("other")).find(keys[3])
    tiny = settings.model_copy(update={"cache_bytes": 1})
    assert tidy_folder(database, tiny).cache_entries == 0, "both have just been used"


def test_what_killed_processes_left_goes(database: Database, settings: Settings) -> None:
    old, new = settings.blobs_dir / ".incoming-a", settings.blobs_dir / ".incoming-b"
    staging = settings.data_dir / "cache" / "ab" / ".new-x"
    staging.mkdir(parents=True)
    settings.blobs_dir.mkdir(exist_ok=True)
    for path in (old, new):
        path.write_bytes(b"half")
    for path in (old, staging):
        os.utime(path, (1e9, 1e9))
    tidy_folder(database, settings)
    assert [p.exists() for p in (old, new, staging)] == [False, True, False]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_collects_to_the_end(database: Database, settings: Settings, tmp_path: Path) -> None:
    store = BlobStore(settings.blobs_dir)
    for n in range(3):
        (tmp_path / "source").write_bytes(bytes([n]))
        store.add(tmp_path / "source")  # strays under three prefixes
    environment = {**os.environ, **settings.environment()}

    def run(*flags: str) -> dict[str, int]:
        done = subprocess.run(
            [sys.executable, "-m", "service.gc", "--json", *flags], env=environment, capture_output=True, check=True
        )
        found: dict[str, int] = json.loads(done.stdout)
        return found

    assert run()["blobs"] == 0
    age(database, settings.blobs_keep_s + 60)
    assert run("--dry-run")["blobs"] == 3
    assert run()["blobs"] == 3
    assert kept(store) == set()
    assert digest_of(tmp_path / "source").bytes == 1
