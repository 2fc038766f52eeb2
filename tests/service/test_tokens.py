from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from service.database import db_now
from service.scopes import needed_scope, with_implied
from service.settings import Settings
from service.tables import tokens
from tests.service.api import RunningApi


def secret_of(api: RunningApi, token_id: str) -> str:
    with api.database.read() as connection:
        return str(connection.execute(select(tokens.c.digest).where(tokens.c.id == token_id)).scalar_one())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_token_is_shown_once_and_stored_as_a_hash(api: RunningApi) -> None:
    made = api.client.post("/v1/tokens", json={"name": "ci", "scopes": ["submit"], "expires_in_s": 3600})
    assert made.status_code == 201, made.text
    body = made.json()
    text = body.pop("token")
    assert made.headers["Cache-Control"] == "no-store"
    assert text.startswith(f"bantam_{body['id']}_")
    assert (body["name"], body["scopes"], body["project"]) == ("ci", ["read", "submit"], "default")
    lasts = datetime.fromisoformat(body["expires_at"]) - datetime.fromisoformat(body["created_at"])
    assert 3590 < lasts.total_seconds() < 3610

    listed = api.client.get("/v1/tokens")
    assert listed.json() == {"items": [body], "next_cursor": None}
    assert api.client.get(made.headers["Location"]).json() == body
    secret = text.removeprefix(f"bantam_{body['id']}_")
    assert secret not in listed.text
    assert secret_of(api, body["id"]) == hashlib.sha256(secret.encode()).hexdigest()

    assert api.open.get("/v1/jobs", headers=bearer(text)).status_code == 200
    for wrong in (text[:-1], text + "x", f"bantam_{body['id']}_", f"bantam_t0_{secret}", secret, text.upper()):
        assert api.open.get("/v1/jobs", headers=bearer(wrong)).status_code == 401, wrong


def test_a_revoked_token_opens_nothing_from_the_next_request_on(api: RunningApi) -> None:
    client = api.with_token("read")
    assert client.get("/v1/jobs").status_code == 200
    (token,) = api.client.get("/v1/tokens").json()["items"]
    url = f"/v1/tokens/{token['id']}"
    assert api.client.delete(url).status_code == 204
    assert client.get("/v1/jobs").status_code == 401
    assert api.client.delete(url).status_code == 404
    assert api.client.get("/v1/tokens").json()["items"] == []


def test_a_token_ends_by_the_databases_clock(api: RunningApi) -> None:
    client = api.with_token("read", expires_in_s=100)
    assert client.get("/v1/jobs").status_code == 200
    with api.database.write() as connection:
        connection.execute(update(tokens).values(expires_at=db_now() - 0.01))
    api.state.authenticate.forget()
    assert client.get("/v1/jobs").status_code == 401
    with api.database.write() as connection:
        connection.execute(update(tokens).values(expires_at=None))
    assert client.get("/v1/jobs").status_code == 200


def test_the_use_of_a_token_is_noted_once_a_minute(api: RunningApi) -> None:
    client = api.with_token("read")

    def noted() -> float | None:
        with api.database.read() as connection:
            value: float | None = connection.execute(select(tokens.c.last_used_at)).scalar_one()
            return value

    assert noted() is None
    client.get("/v1/jobs")
    first = noted()
    assert first is not None
    client.get("/v1/jobs")
    assert noted() == first
    with api.database.write() as connection:
        connection.execute(update(tokens).values(last_used_at=db_now() - 61))
        api.state.authenticate.forget()
    client.get("/v1/jobs")
    assert (noted() or 0) >= first


def test_each_scope_includes_the_ones_below() -> None:
    assert with_implied(["read"]) == ("read",)
    assert with_implied(["submit"]) == ("read", "submit")
    assert with_implied(["admin", "read"]) == ("read", "submit", "admin")


def test_a_missing_scope_is_named(shared_api: RunningApi) -> None:
    calls = {
        "read": [("GET", "/v1/jobs"), ("GET", "/v1/session"), ("GET", "/metrics")],
        "submit": [("POST", "/v1/jobs"), ("DELETE", "/v1/models/m0"), ("PATCH", "/v1/schedules/s0")],
        "admin": [("GET", "/v1/tokens"), ("GET", "/v1/audit"), ("POST", "/v1/projects")],
    }
    for held in ("read", "submit", "admin"):
        client = shared_api.with_token(held)
        for needed, requests in calls.items():
            allowed = needed in with_implied([held])
            for method, path in requests:
                response = client.request(method, path)
                assert (response.status_code != 403) == allowed, (held, method, path)
                if not allowed:
                    assert response.headers["Content-Type"] == "application/problem+json"
                    assert response.json()["type"] == "urn:bantam:problem:missing-scope"
                    assert f"needs the scope `{needed}`" in response.json()["detail"]
                    assert f'scope="{needed}"' in response.headers["WWW-Authenticate"]


def test_no_route_under_v1_is_open(shared_api: RunningApi) -> None:
    """What is open to all, and what only an admin may, by name: a new route must be put here on purpose."""
    wanted: dict[str | None, set[str]] = {None: set(), "admin": set()}
    for path, operations in shared_api.open.get("/openapi.json").json()["paths"].items():
        for method in operations:
            needed = needed_scope(method.upper(), path)
            if needed in wanted:
                wanted[needed].add(f"{method.upper()} {path}")
            elif method == "get":
                assert needed == "read"
            else:
                assert needed == "submit", path
    assert wanted[None] == {"POST /v1/session", "DELETE /v1/session", "GET /healthz", "GET /readyz"}
    assert wanted["admin"] == {
        *(f"{method} /v1/tokens" for method in ("GET", "POST")),
        *(f"{method} /v1/tokens/{{token_id}}" for method in ("GET", "DELETE")),
        *(f"{method} /v1/projects" for method in ("GET", "POST")),
        *(f"{method} /v1/projects/{{project_id}}" for method in ("GET", "DELETE")),
        *(f"{method} /v1/webhooks" for method in ("GET", "POST")),
        *(f"{method} /v1/webhooks/{{webhook_id}}" for method in ("GET", "PATCH", "DELETE")),
        "POST /v1/webhooks/{webhook_id}/test",
        "GET /v1/webhooks/{webhook_id}/deliveries",
        "GET /v1/audit",
    }


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes[0]"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"project": "Not A Slug"}, "project"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_a_bad_token_is_refused_by_field(shared_api: RunningApi, change: dict[str, object], field: str) -> None:
    response = shared_api.client.post("/v1/tokens", json={"name": "ci", **change})
    assert response.status_code == 422
    assert [e["field"] for e in response.json()["errors"]] == [field]


def test_a_token_of_no_project_cannot_be_made(shared_api: RunningApi) -> None:
    response = shared_api.client.post("/v1/tokens", json={"name": "ci", "project": "nowhere"})
    assert response.status_code == 422
    assert "project 'nowhere' does not exist" in response.json()["errors"][0]["message"]


def test_any_token_signs_a_browser_in_and_says_whose_it_is(sqlite_api: RunningApi) -> None:
    token = sqlite_api.with_token("read", project="vision").headers["Authorization"].removeprefix("Bearer ")
    browser = httpx.Client(base_url=sqlite_api.url)
    assert browser.post("/v1/session", json={"token": token}).status_code == 204
    session = browser.get("/v1/session").json()
    assert (session["project"], session["scopes"], session["name"]) == ("vision", ["read"], "test")
    origin = {"Origin": sqlite_api.url}
    assert browser.post("/v1/jobs", json={}, headers=origin).status_code == 403
    browser.close()
    assert sqlite_api.client.get("/v1/session").json()["id"] == "root"
    assert sqlite_api.open.get("/v1/session").status_code == 401


def test_the_token_of_an_older_data_folder_still_opens(
    sqlite_settings: Settings, start_api: Callable[[Settings], RunningApi]
) -> None:
    sqlite_settings.token_file.write_text("k3vKx0-_plain-words-from-an-older-release\n")
    api = start_api(sqlite_settings)
    assert api.token == "k3vKx0-_plain-words-from-an-older-release"
    assert api.client.get("/v1/projects").json()["items"][0]["id"] == "default"


def test_an_event_stream_ends_soon_after_its_token(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    client = sqlite_api.with_token("read")
    began = time.monotonic()
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        lines = stream.iter_lines()
        while not next(lines).startswith("event: job"):
            pass
        (token,) = sqlite_api.client.get("/v1/tokens").json()["items"]
        sqlite_api.client.delete(f"/v1/tokens/{token['id']}")
        for _ in lines:
            assert time.monotonic() - began < 15
    assert client.get("/v1/jobs").status_code == 401


def test_the_token_file_is_in_the_form_of_all_tokens(tmp_path: Path, sqlite_api: RunningApi) -> None:
    assert sqlite_api.token.startswith("bantam_root_")
