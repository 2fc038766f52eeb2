"""Brings the database's schema up to this release: at the start of `serve` and by `bantam db upgrade`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

import migrations
from service.database import Database
from service.settings import Settings

# One arbitrary number for PostgreSQL's advisory lock: two processes that start at once must not both migrate.
_LOCK = 7_238_110_451


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(next(iter(migrations.__path__)))).replace("%", "%%"))
    return config


def head() -> str:
    """The newest revision that this release knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("no migration found; the installation is incomplete, install bantam again")
    return revision


def current(connection: Connection) -> str | None:
    """The revision of the database; None if it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade_database(database: Database, revision: str = "head") -> None:
    """All steps in one transaction: a failed upgrade leaves the old schema. revision: for tests of upgrades."""
    with database.rebuild() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def upgrade(settings: Settings) -> None:
    database = Database(settings.database)
    try:
        upgrade_database(database)
    finally:
        database.close()
