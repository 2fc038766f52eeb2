from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import JSON, Boolean, Connection, MetaData, Table, func, inspect, select

from service import migrate
from service.database import Database
from service.idempotency import Once
from service.leases import Leases
from service.settings import Settings
from service.tables import (
    artifacts,
    idempotency_keys,
    job_logs,
    jobs,
    metadata,
    model_versions,
    models,
    projects,
    schedules,
    trials,
)
from service.views import JobView
from tests.service.rows import LIMITS, jobs_of, make_spec

STORED = Path(__file__).parents[1] / "migrations"


def test_the_migrated_schema_is_the_one_that_the_code_uses(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert migrate.current(connection) == migrate.head()
        names = {c["name"] for c in inspect(connection).get_check_constraints("jobs")}
    assert {"ck_jobs_state", "ck_jobs_directive"} <= names


def test_upgrading_twice_changes_nothing(settings: Settings) -> None:
    migrate.upgrade(settings)
    migrate.upgrade(settings)
    database = Database(settings.database)
    with database.read() as connection:
        assert migrate.current(connection) == migrate.head()
    database.close()


def test_two_processes_may_upgrade_one_new_database_at_once(tmp_path: Path) -> None:
    code = "from service.migrate import upgrade; from service.settings import Settings; upgrade(Settings())"
    environment = {"BANTAM_DATA_DIR": str(tmp_path / "new"), "PATH": ""}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]


def test_sqlite_runs_in_wal_mode_with_foreign_keys(sqlite_settings: Settings) -> None:
    database = Database(sqlite_settings.database)
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 1
    database.close()


def fill_old(database: Database, dump: Path) -> None:
    """An empty database becomes the stored one: on SQLite as it was written, on PostgreSQL row by row."""
    if database.is_sqlite:
        with closing(sqlite3.connect(str(database.url.database))) as raw:
            raw.executescript(dump.read_text())
        return
    migrate.upgrade_database(database, dump.name.partition("_")[0])
    with closing(sqlite3.connect(":memory:")) as raw, database.write() as connection:
        raw.executescript(dump.read_text())
        raw.row_factory = sqlite3.Row
        old = MetaData()
        old.reflect(connection)
        for table in old.sorted_tables:
            if table.name != "alembic_version":
                _copy_rows(raw, connection, table)


def _copy_rows(raw: sqlite3.Connection, connection: Connection, table: Table) -> None:
    for row in raw.execute(f"SELECT * FROM {table.name}"):
        values = dict(row)
        for column in table.c:
            value = values[column.name]
            if isinstance(column.type, JSON) and value is not None:
                values[column.name] = json.loads(value)
            elif isinstance(column.type, Boolean) and value is not None:
                values[column.name] = bool(value)
        connection.execute(table.insert().values(**values))


def rows_of(dump: Path) -> dict[str, int]:
    with closing(sqlite3.connect(":memory:")) as raw:
        raw.executescript(dump.read_text())
        names = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: raw.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


def test_a_stored_database_of_the_first_release_is_brought_up_whole(empty_database: Database) -> None:
    """Written by the code at revision 0001: jobs in five states, a schedule, a key, all that a search leaves."""
    database, dump = empty_database, STORED / "0001_sqlite.sql"
    fill_old(database, dump)
    migrate.upgrade_database(database)
    migrate.upgrade_database(database)
    before = rows_of(dump)
    with database.read() as connection:
        assert migrate.current(connection) == migrate.head()
        tables = (models, jobs, trials, job_logs, artifacts, idempotency_keys)
        counts = {t.name: connection.execute(select(func.count()).select_from(t)).scalar_one() for t in tables}
        assert counts == {name: before[name] for name in counts}
        assert min(counts.values()) >= 1 and counts["trials"] > 20
        assert list(connection.scalars(select(projects.c.id))) == ["default"]
        assert {row.project_id for row in connection.execute(select(jobs))} == {"default"}
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    page = jobs_of(database).page(state=None, limit=100, cursor=None)
    views = [JobView.of(row) for row in page.rows]
    assert {(v.state, v.priority) for v in views} == {
        (s, 0) for s in ("succeeded", "running", "queued", "paused", "cancelled")
    }
    assert len([v for v in views if v.schedule is not None]) == 1
    with database.read() as connection:
        kept = connection.execute(select(model_versions.c.object_id, model_versions.c.number)).all()
        assert sorted(kept) == [(key, 1) for key in sorted(connection.scalars(select(models.c.id)))]
        (old,) = connection.execute(select(schedules)).all()
    assert (old.missed, old.overlap, old.warm_start) == ("run_once", "skip", False)

    paused = next(v for v in views if v.state == "paused")
    once = Once("default", "retry-me", "another digest than the one that was kept")
    assert jobs_of(database).create(make_spec(database), LIMITS, once=once).id == paused.id
    lease = Leases(database).claim("w", 10)
    assert lease is not None
