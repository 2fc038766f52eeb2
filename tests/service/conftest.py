"""Databases for the tests of the service: SQLite and a real PostgreSQL, each test on a fresh, migrated one."""

from __future__ import annotations

import importlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.postgres import NoPostgres, execute, other_database, postgres_server
from service.database import Database
from service.migrate import upgrade_database
from service.settings import Settings

if TYPE_CHECKING:
    from tests.service.api import RunningApi

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of an empty database of a PostgreSQL server that lives as long as the tests."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(postgres_server(durable=False))
        except NoPostgres as error:
            pytest.skip(f"no PostgreSQL here: {error}")
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    execute(postgres_url, "CREATE DATABASE bantam_template")
    database = Database(other_database(postgres_url, "bantam_template"))
    upgrade_database(database)
    database.close()
    return "bantam_template"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "bantam.sqlite3"
    database = Database(f"sqlite:///{path}")
    upgrade_database(database)
    database.close()
    return path


@pytest.fixture
def sqlite_database_url(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "data" / "bantam.sqlite3"
    path.parent.mkdir(exist_ok=True)
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_database_url(postgres_url: str, postgres_template: str) -> str:
    name = f"bantam_{next(_numbers)}"
    execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    return other_database(postgres_url, name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Runs a test once on each store."""
    name = "sqlite_database_url" if request.param == "sqlite" else "postgres_database_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Without tables."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    else:
        url, name = request.getfixturevalue("postgres_url"), f"bantam_{next(_numbers)}"
        execute(url, f"CREATE DATABASE {name}")
        database = Database(other_database(url, name))
    yield database
    database.close()


def _settings(url: str, folder: Path) -> Settings:
    return Settings(
        data_dir=folder / "data",
        database_url=url,
        host="127.0.0.1",
        port=0,
        lease_s=2,
        heartbeat_s=0.3,
        worker_poll_s=0.05,
        scheduler_poll_s=0.1,
        events_poll_s=0.05,
        events_ping_s=0.2,
    )


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """On both stores."""
    return _settings(database_url, tmp_path)


@pytest.fixture
def sqlite_settings(sqlite_database_url: str, tmp_path: Path) -> Settings:
    return _settings(sqlite_database_url, tmp_path)


@pytest.fixture
def start_api() -> Iterator[Callable[[Settings], RunningApi]]:
    # Loaded by the tests that use it: the others in this folder do not need the application.
    kind: type[RunningApi] = importlib.import_module("tests.service.api").RunningApi
    running: list[RunningApi] = []

    def start(settings: Settings) -> RunningApi:
        running.append(kind(settings))
        return running[-1]

    yield start
    for api in running:
        api.close()


@pytest.fixture
def api(settings: Settings, start_api: Callable[[Settings], RunningApi]) -> RunningApi:
    """A real server on both stores."""
    return start_api(settings)


@pytest.fixture
def sqlite_api(sqlite_settings: Settings, start_api: Callable[[Settings], RunningApi]) -> RunningApi:
    return start_api(sqlite_settings)


@pytest.fixture(scope="session")
def shared_api(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """One server for all tests of refusals and of what never changes. No test may leave a job on it."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "data").mkdir()
    path = folder / "data" / "bantam.sqlite3"
    shutil.copy(sqlite_template, path)
    kind: type[RunningApi] = importlib.import_module("tests.service.api").RunningApi
    api = kind(_settings(f"sqlite:///{path}", folder))
    yield api
    api.close()
