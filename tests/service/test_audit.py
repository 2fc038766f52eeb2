from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError

from service.audit import Audit
from service.blobs import BlobStore
from service.database import db_now
from service.idempotency import Once, done_before
from service.scheduler import clean_up
from service.settings import Settings
from service.tables import audit_log, idempotency_keys
from tests.service.api import MODEL_BYTES, RunningApi


def entries(api: RunningApi, **query: Any) -> list[dict[str, Any]]:
    """Oldest first, without the ones that the test's own tokens and projects left."""
    items = api.client.get("/v1/audit", params=query).json()["items"]
    return [e for e in items[::-1] if e["route"] not in ("/v1/tokens", "/v1/projects")]


def test_every_change_is_noted_with_who_what_when_and_how_it_ended(api: RunningApi) -> None:
    client = api.with_token("submit", name="nightly")
    (token,) = api.client.get("/v1/tokens").json()["items"]
    made = client.post("/v1/jobs", json=api.spec(), headers={"X-Request-Id": "build-17"})
    assert made.headers["X-Request-Id"] == "build-17"
    job = made.headers["Location"]
    client.post(f"{job}/cancel")
    client.post(f"{job}/resume")
    client.delete("/v1/tokens/t0")
    client.delete(job)
    client.get(job)

    rows = entries(api)
    assert [(r["method"], r["route"], r["object"], r["status"], r["outcome"]) for r in rows] == [
        ("POST", "/v1/jobs", job, 202, "done"),
        ("POST", "/v1/jobs/{job_id}/cancel", f"{job}/cancel", 202, "done"),
        ("POST", "/v1/jobs/{job_id}/resume", f"{job}/resume", 409, "refused"),
        ("DELETE", "", "/v1/tokens/t0", 403, "refused"),
        ("DELETE", "/v1/jobs/{job_id}", job, 204, "done"),
    ]
    assert {(r["token"], r["token_name"], r["project"]) for r in rows} == {(token["id"], "nightly", "default")}
    assert rows[0]["request_id"] == "build-17"
    assert len({r["request_id"] for r in rows}) == len(rows)
    assert rows[0]["client"] == "127.0.0.1"
    assert abs(datetime.fromisoformat(rows[0]["at"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert [e["status"] for e in entries(api, object=job)] == [202, 204]
    assert len(entries(api, token=token["id"])) == 5
    assert entries(api, token="root") == []


def test_an_upload_and_a_sign_in_are_noted_and_a_stranger_is_not(sqlite_api: RunningApi) -> None:
    sqlite_api.open.post("/v1/jobs", json={})
    sqlite_api.open.post("/v1/session", json={"token": "wrong"})
    sqlite_api.open.post("/v1/session", json={"token": sqlite_api.token})
    model = sqlite_api.upload("models", MODEL_BYTES).json()["id"]
    noted = [(r["token"], r["method"], r["object"], r["status"]) for r in entries(sqlite_api)]
    assert noted == [("root", "POST", "/v1/session", 204), ("root", "POST", f"/v1/models/{model}", 201)]


def test_a_made_token_is_noted_without_its_secret(sqlite_api: RunningApi) -> None:
    text = sqlite_api.client.post("/v1/tokens", json={"name": "ci"}).json()["token"]
    answer = sqlite_api.client.get("/v1/audit")
    (row,) = answer.json()["items"]
    assert row["object"].startswith("/v1/tokens/t")
    assert text.rpartition("_")[2] not in answer.text


def test_the_log_is_read_page_by_page(sqlite_api: RunningApi) -> None:
    job = f"/v1/jobs/{sqlite_api.submit()}"
    for _ in range(4):
        sqlite_api.client.post(f"{job}/cancel")
    seen: list[int] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor is not None:
        query: dict[str, Any] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = sqlite_api.client.get("/v1/audit", params=query).json()
        seen += [row["id"] for row in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert (len(seen), pages) == (5, 3)
    assert seen == sorted(seen, reverse=True)
    refused = sqlite_api.client.get("/v1/audit", params={"cursor": "x"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "cursor")


def test_an_admin_of_a_project_reads_its_own_rows_only(sqlite_api: RunningApi) -> None:
    theirs = sqlite_api.with_token("admin", project="theirs")
    theirs.post("/v1/tokens", json={"name": "ci"})
    sqlite_api.submit()
    for query in ({}, {"project": "default"}, {"token": "root"}):
        rows = theirs.get("/v1/audit", params=query).json()["items"]
        assert {r["project"] for r in rows} <= {"theirs"}
    assert len(theirs.get("/v1/audit").json()["items"]) == 1
    assert len(sqlite_api.client.get("/v1/audit", params={"project": "theirs"}).json()["items"]) == 1


def test_a_request_is_answered_even_if_it_cannot_be_noted(
    sqlite_settings: Settings, start_api: Callable[[Settings], RunningApi], monkeypatch: Any
) -> None:
    def away(self: Audit, row: dict[str, Any]) -> None:
        raise OperationalError("INSERT", {}, Exception("disk I/O error"))

    api = start_api(sqlite_settings)
    monkeypatch.setattr(Audit, "note", away)
    assert api.client.get(f"/v1/jobs/{api.submit()}").status_code == 200


def test_an_odd_request_id_is_replaced(shared_api: RunningApi) -> None:
    for odd in ("a b", "x" * 101, "<script>", ""):
        answer = shared_api.open.get("/healthz", headers={"X-Request-Id": odd})
        assert answer.headers["X-Request-Id"] not in ("", odd)


def test_what_is_old_is_forgotten(database: Any, settings: Settings) -> None:
    row = {"project_id": "default", "token_id": "t", "token_name": "n", "method": "POST", "route": "", "object": "/"}
    for _ in range(3):
        Audit(database).note({**row, "status": 200, "request_id": "r"})
    with database.write() as connection:
        for key in ("old", "new"):
            assert done_before(connection, Once("default", key, "x"), "j1") is None
        first = select(func.min(audit_log.c.id)).scalar_subquery()
        connection.execute(update(audit_log).where(audit_log.c.id == first).values(at=db_now() - 366 * 86400))
        is_old = idempotency_keys.c.key == "old"
        connection.execute(update(idempotency_keys).where(is_old).values(created_at=db_now() - 31 * 86400))
    clean_up(database, BlobStore(settings.blobs_dir), settings, "00")
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(audit_log)).scalar_one() == 2
        assert list(connection.scalars(select(idempotency_keys.c.key))) == ["new"]
