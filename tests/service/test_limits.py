from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from service.database import Database
from service.leases import Leases
from service.limits import Limits
from service.refusals import LimitReached
from service.settings import Settings
from service.tables import DEFAULT_PROJECT
from tests.service.api import DATASET_BYTES, MODEL_BYTES, RunningApi
from tests.service.rows import LIMITS, add_job, jobs_of, make_spec

Start = Callable[[Settings], RunningApi]


def limited(settings: Settings, **change: Any) -> Settings:
    return settings.model_copy(update=change)


def assert_names(response: httpx.Response, status: int, setting: str, limit: int, value: int) -> None:
    assert response.status_code == status, response.text
    problem = response.json()
    assert problem["limit"] == {"setting": setting, "limit": limit, "value": value}
    assert f"{setting}={limit}" in problem["detail"]
    assert "; " in problem["detail"], "and what helps"
    assert ("Retry-After" in response.headers) == (status == 429)


def test_a_full_queue_asks_to_wait(sqlite_settings: Settings, start_api: Start) -> None:
    api = start_api(limited(sqlite_settings, max_queued_jobs=2))
    first = api.submit()
    api.submit()
    refused = api.client.post("/v1/jobs", json=api.spec())
    assert_names(refused, 429, "BANTAM_MAX_QUEUED_JOBS", 2, 3)
    body = {"name": "n", "cron": "0 3 * * *", "job": api.spec()}
    schedule = api.client.post("/v1/schedules", json=body).headers["Location"]
    assert api.client.post(f"{schedule}/run").status_code == 429
    theirs = api.with_token("submit", project="theirs")
    assert theirs.post("/v1/jobs", json=api.spec_in("theirs")).status_code == 202, "each project has its own queue"
    api.client.post(f"/v1/jobs/{first}/cancel")
    assert api.client.post("/v1/jobs", json=api.spec()).status_code == 202


def test_a_limit_holds_against_requests_at_the_same_moment(database: Database) -> None:
    spec = make_spec(database)
    limits = Limits(**{**vars(LIMITS), "queued_jobs": 3})

    def submit(_: int) -> bool:
        try:
            jobs_of(database).create(spec, limits)
        except LimitReached:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, range(8))) == 3


@pytest.mark.parametrize(("kind", "content"), [("models", MODEL_BYTES), ("datasets", DATASET_BYTES)])
def test_a_full_project_asks_for_room(sqlite_settings: Settings, start_api: Start, kind: str, content: bytes) -> None:
    api = start_api(limited(sqlite_settings, max_models=1, max_datasets=1))
    kept = api.upload(kind, content).json()["id"]
    assert_names(api.upload(kind, content + b"!"), 409, f"BANTAM_MAX_{kind.upper()}", 1, 2)
    assert api.upload(kind, content).status_code == 200, "what is here already needs no room"
    assert api.client.delete(f"/v1/{kind}/{kept}").status_code == 204
    assert api.upload(kind, content + b"!").status_code == 201


def test_stored_bytes_are_counted_over_models_and_datasets(sqlite_settings: Settings, start_api: Start) -> None:
    api = start_api(limited(sqlite_settings, max_stored_bytes=100))
    assert api.upload("models", b"m" * 60).status_code == 201
    assert_names(api.upload("datasets", b"d" * 41), 409, "BANTAM_MAX_STORED_BYTES", 100, 101)
    assert api.upload("datasets", b"d" * 40).status_code == 201
    assert api.upload("datasets", b"d" * 101).status_code == 413, "could never fit"


def test_schedules_are_counted(sqlite_settings: Settings, start_api: Start) -> None:
    api = start_api(limited(sqlite_settings, max_schedules=1))
    body = {"name": "n", "cron": "0 3 * * *", "job": api.spec()}
    assert api.client.post("/v1/schedules", json=body).status_code == 201
    assert_names(api.client.post("/v1/schedules", json=body), 409, "BANTAM_MAX_SCHEDULES", 1, 2)


def test_higher_priority_is_taken_first_then_the_oldest(database: Database) -> None:
    wanted = {name: add_job(database, name, priority=p) for name, p in (("a", 0), ("b", 5), ("c", -1), ("d", 5))}
    names = {job_id: name for name, job_id in wanted.items()}
    taken = [Leases(database).claim("w", 10) for _ in range(4)]
    assert [names[lease.job_id] for lease in taken if lease] == ["b", "d", "a", "c"]


def test_the_priority_is_shown_and_bounded(shared_api: RunningApi) -> None:
    response = shared_api.client.post("/v1/jobs", json=shared_api.spec(priority=1001))
    assert [e["field"] for e in response.json()["errors"]] == ["priority"]


def test_a_project_at_its_limit_waits_while_others_are_served(database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO projects (id, name, created_at) VALUES ('theirs', '', 0)")
    ours = [add_job(database, priority=9) for _ in range(3)]
    theirs = add_job(database, project="theirs")
    leases = Leases(database)

    def claim() -> str | None:
        lease = leases.claim("w", 10, max_running=2)
        return None if lease is None else lease.job_id

    assert [claim() for _ in range(4)] == [ours[0], ours[1], theirs, None]
    jobs_of(database).steer(ours[2], "cancel")
    assert leases.claim("w", 10) is None


def test_claims_at_the_same_moment_do_not_pass_the_limit(database: Database) -> None:
    for _ in range(8):
        add_job(database)
    leases = Leases(database)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda n: leases.claim(f"w{n}", 60, max_running=3), range(8)))
    assert sum(lease is not None for lease in taken) == 3


@contextmanager
def raw(api: RunningApi, path: str, head: str) -> Iterator[socket.socket]:
    """A connection that has sent the head of a POST."""
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        lines = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.token}\r\n{head}\r\n"
        connection.sendall(lines.encode())
        yield connection


FORM = "Content-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\n'


def status(connection: socket.socket) -> int:
    return int(connection.recv(1000).split()[1])


@pytest.mark.parametrize("path", ["/v1/models", "/v1/datasets", "/v1/jobs", "/v1/schedules", "/v1/tokens"])
def test_a_huge_declared_size_is_refused_before_a_byte_of_it_is_sent(shared_api: RunningApi, path: str) -> None:
    with raw(shared_api, path, f"{FORM}Content-Length: {10**14}\r\n") as connection:
        assert status(connection) == 413
    with raw(shared_api, path, f"{FORM}Content-Length: {'9' * 400}\r\n") as connection:
        assert status(connection) in (400, 413)
    assert not list(shared_api.settings.uploads_dir.glob("*"))


def test_ten_gigabytes_of_a_model_are_refused(shared_api: RunningApi) -> None:
    with raw(shared_api, "/v1/models", f"{FORM}Content-Length: {10 * 10**9}\r\n") as connection:
        connection.sendall(PART)
        assert status(connection) == 413


def answer(connection: socket.socket) -> str:
    """All of it; the server closes the connection, for the body was not read."""
    received = b""
    while piece := connection.recv(10_000):
        received += piece
    return received.decode()


def test_silent_bodies_are_given_up(sqlite_settings: Settings, start_api: Start) -> None:
    api = start_api(limited(sqlite_settings, upload_idle_s=0.3, body_s=0.3))
    with raw(api, "/v1/models", f"{FORM}Content-Length: 1000\r\n") as connection:
        connection.sendall(PART)
        refused = answer(connection)
        assert refused.startswith("HTTP/1.1 408")
        assert "nothing arrived for 0.3 s" in refused
    with raw(api, "/v1/jobs", "Content-Type: application/json\r\nContent-Length: 1000\r\n") as connection:
        connection.sendall(b"{")
        assert answer(connection).startswith("HTTP/1.1 408")
    assert not list(api.settings.uploads_dir.glob("*"))


def test_a_body_that_trickles_in_is_given_up(sqlite_settings: Settings, start_api: Start) -> None:
    api = start_api(limited(sqlite_settings, upload_s=0.5))
    with raw(api, "/v1/models", f"{FORM}Content-Length: 1000000\r\n") as connection:
        connection.sendall(PART)
        began = time.monotonic()
        while not select.select([connection], [], [], 0.02)[0]:
            connection.sendall(b"x")
            assert time.monotonic() - began < 20
        assert "longer than 0.5 s" in answer(connection)
    assert not list(api.settings.uploads_dir.glob("*"))
    assert api.upload("models", MODEL_BYTES).status_code == 201


def test_a_body_without_a_declared_size_is_counted(shared_api: RunningApi) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 100_000

    headers = {"Content-Type": "application/json"}
    response = shared_api.client.post("/v1/jobs", content=endless(), headers=headers)
    assert response.status_code == 413
    assert "BANTAM_MAX_BODY_BYTES" in response.json()["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_json_is_refused_with_the_remedy(shared_api: RunningApi, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    body = json.dumps(shared_api.spec())
    for path in ("/v1/jobs", "/v1/schedules", "/v1/tokens", "/v1/session"):
        response = shared_api.client.post(path, content=body, headers=headers)
        assert response.status_code == 415, path
        assert "Content-Type: application/json" in response.json()["detail"]
    fine = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert shared_api.client.post("/v1/tokens", json={"name": ""}, headers=fine).status_code == 422


def test_what_lies_outside_the_file_counts_too(sqlite_settings: Settings, start_api: Start) -> None:
    api = start_api(limited(sqlite_settings, max_model_bytes=10_000))
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    def form() -> Iterator[bytes]:
        yield PART + b"small\r\n--b--\r\n"
        for _ in range(50):
            yield b"\r\n" * 5_000

    assert api.client.post("/v1/models", content=form(), headers=headers).status_code == 413
    assert not list(api.settings.uploads_dir.glob("*"))


def test_uploads_at_a_time_are_counted_and_let_go(sqlite_settings: Settings, start_api: Start) -> None:
    api = start_api(limited(sqlite_settings, max_uploads=2))
    theirs = api.with_token("submit", project="theirs")
    head = f"{FORM}Content-Length: 1000\r\n"
    with raw(api, "/v1/models", head) as one, raw(api, "/v1/datasets", head) as two:
        for connection in (one, two):
            connection.sendall(PART)
        deadline = time.monotonic() + 10
        while len(list(api.settings.uploads_dir.glob("*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert_names(api.upload("models", MODEL_BYTES), 429, "BANTAM_MAX_UPLOADS", 2, 3)
        assert api.upload("models", MODEL_BYTES, client=theirs).status_code == 201
    deadline = time.monotonic() + 10
    while (taken := api.upload("models", MODEL_BYTES)).status_code == 429:
        assert time.monotonic() < deadline
    assert taken.status_code == 201
    assert api.state.uploads._taken == {}


def test_limits_come_from_the_settings() -> None:
    settings = Settings(
        max_models=1, max_datasets=2, max_stored_bytes=3, max_webhooks=1, max_schedules=4, max_queued_jobs=5
    )
    assert Limits.of(settings) == Limits(
        models=1, datasets=2, stored_bytes=3, webhooks=1, schedules=4, queued_jobs=5, running_jobs=None
    )
    assert DEFAULT_PROJECT == "default"


@pytest.mark.parametrize(
    "body", ["[" * 500_000, r'{"token": "\ud800"}', '{"token": 1e999}', "NaN", "\ufeff{}", '{"a": 1']
)
@pytest.mark.parametrize("path", ["/v1/session", "/v1/tokens", "/v1/jobs"])
def test_odd_json_is_refused(shared_api: RunningApi, path: str, body: str) -> None:
    response = shared_api.client.post(path, content=body.encode(), headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 401, 413, 422), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
