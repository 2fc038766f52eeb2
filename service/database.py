"""One way to reach SQLite and PostgreSQL: engines, short transactions, and the database's own clock.

SQLite runs in WAL mode, and a writing transaction takes the write lock at its start (BEGIN IMMEDIATE), so that no
reader fails when it turns into a writer. A commit survives the death of any process, because the log is in the
operating system's hands by then. It is on the disk after the next checkpoint only (synchronous=NORMAL, 1,000 pages or
less later): a power cut may take the last transactions with it, always whole ones and never an older without a newer.
PostgreSQL flushes every commit.

Writers of SQLite wait for each other by trying again after a short random pause. SQLite's own waiting sleeps longer the
longer it has waited, so that with eight writers some wait for seconds while others pass.
"""

from __future__ import annotations

import json
import math
import random
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Double, Engine, Table, create_engine, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

BUSY_TIMEOUT_MS = 20_000
_PAUSE_S = 0.001
_PATIENT_AFTER_S = 1.0  # something holds the lock for long: look less often
_LONG_PAUSE_S = 0.01
_TRUSTED_S = 1.0  # a connection of the pool is not asked whether it lives when it was used as late as that
_WRITE = "bantam_write"


class db_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it is
    """Seconds since the epoch by the database's clock: one clock for all workers, whatever their machines think."""

    type = Double()
    inherit_cache = True
    name = "db_now"


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def insert_if_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """False if a row with the same key exists. One that another transaction is about to commit is waited for."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(**row).on_conflict_do_nothing()
    return connection.execute(statement.returning(*table.primary_key)).one_or_none() is not None


class Encoded(str):
    """JSON text that was made before its transaction began, to keep that short: goes to the database as it is."""

    __slots__ = ()


def dump_json(value: Any) -> str:
    """JSON text; a NaN or infinity, which JSON lacks and PostgreSQL refuses, becomes null."""
    if isinstance(value, Encoded):
        return value
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


class Database:
    """An engine with `read()` and `write()` transactions. Safe to share between threads; not between processes."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database is not None:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine: Engine = create_engine(self.url, json_serializer=dump_json, pool_size=pool_size, max_overflow=20)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "checkin", _note_use)
            event.listen(self.engine, "checkout", _ask_whether_it_lives)
        self._reader = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = self.engine.execution_options(**{_WRITE: True})

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view on SQLite; one view per statement on PostgreSQL, with no transaction around them."""
        with self._reader.begin() as connection:
            yield connection

    @contextmanager
    def statement(self) -> Iterator[Connection]:
        """A writing transaction of one statement: on PostgreSQL it spares BEGIN and COMMIT their ways to the server."""
        with (self._writer if self.is_sqlite else self._reader).begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Commits at the end, rolls back on an exception."""
        with self._writer.begin() as connection:
            yield connection

    def clock(self) -> float:
        """Seconds since the epoch by the database's clock."""
        with self.read() as connection:
            return float(connection.execute(select(db_now())).scalar_one())

    @contextmanager
    def rebuild(self) -> Iterator[Connection]:
        """A writing transaction that may rebuild tables: foreign keys of SQLite are checked at its end.

        SQLite changes a table by copying and dropping it, and a dropped table takes the rows that refer to it along
        while foreign keys are on. They can be turned off only outside a transaction.
        """
        with self._writer.connect() as connection:
            self._check_foreign_keys(connection, "OFF")
            try:
                with connection.begin():
                    yield connection
                    if self.is_sqlite:
                        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                        if broken:
                            raise ValueError(f"rows refer to what is missing, nothing was changed: {broken[:5]}")
            finally:
                self._check_foreign_keys(connection, "ON")

    def _check_foreign_keys(self, connection: Connection, how: str) -> None:
        if self.is_sqlite:
            cursor = connection.connection.cursor()
            cursor.execute(f"PRAGMA foreign_keys = {how}")
            cursor.close()

    def close(self) -> None:
        self.engine.dispose()


def _note_use(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ask_whether_it_lives(
    connection: DBAPIConnection, record: ConnectionPoolEntry, fairy: PoolProxiedConnection
) -> None:
    """A connection that has lain idle may have been cut. To ask at every checkout would cost a way to the server."""
    if time.monotonic() - record.info.get("used_at", time.monotonic()) < _TRUSTED_S:
        return
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
        connection.rollback()
    except Exception as error:
        raise DisconnectionError from error  # the pool then gives a new one


def _prepare_sqlite(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    # The driver's own transaction control begins late and only for some statements: turned off, BEGIN is sent below.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get(_WRITE, False):
        connection.exec_driver_sql("BEGIN")
        return
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 0")
    try:
        if not _take_write_lock(cursor):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # raises what the driver says
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.close()


def _take_write_lock(cursor: DBAPICursor) -> bool:
    """False after BUSY_TIMEOUT_MS. All that wait have the same chance at each turn."""
    began = time.monotonic()
    while True:
        try:
            cursor.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        waited = time.monotonic() - began
        if waited > BUSY_TIMEOUT_MS / 1000:
            return False
        time.sleep(random.random() * (_PAUSE_S if waited < _PATIENT_AFTER_S else _LONG_PAUSE_S))
