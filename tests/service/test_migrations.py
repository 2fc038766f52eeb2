from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from service import migrate
from service.database import Database
from service.settings import Settings
from service.tables import metadata


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
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    database.close()
