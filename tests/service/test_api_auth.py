from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.auth import COOKIE, ensure_token
from tests.service.api import RunningApi


def test_the_token_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "data" / "token"
    token = ensure_token(path)
    assert len(token) >= 32
    assert ensure_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    ensure_token(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["token"]


def test_an_empty_token_file_opens_no_door(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch()
    with pytest.raises(ValueError, match="empty; delete it"):
        ensure_token(path)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic {token}"},
        {"Authorization": "{token}"},
        {"Cookie": f"{COOKIE}=wrong"},
    ],
)
def test_without_the_token_nothing_is_answered(shared_api: RunningApi, headers: dict[str, str]) -> None:
    filled = {k: v.format(token=shared_api.token) for k, v in headers.items()}
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/models"), ("GET", "/metrics"), ("GET", "/v1/unknown")):
        response = shared_api.open.request(method, path, headers=filled)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json", "/"])
def test_probes_docs_and_the_page_are_open(shared_api: RunningApi, path: str) -> None:
    assert shared_api.open.get(path).status_code == 200


def test_a_path_trick_does_not_get_round_the_guard(shared_api: RunningApi) -> None:
    for path in (
        "//v1/jobs",
        "/v1/../v1/jobs",
        "/%761/jobs",
        "/v1%2Fjobs",
        "/static/../../token",
        "/static/%2e%2e/app.py",
    ):
        response = shared_api.open.get(httpx.URL(shared_api.url).copy_with(raw_path=path.encode()))
        assert response.status_code in (401, 404), path


def test_the_browser_signs_in_with_a_cookie(sqlite_api: RunningApi) -> None:
    refused = sqlite_api.open.post("/v1/session", json={"token": "wrong"})
    assert refused.status_code == 401
    response = sqlite_api.open.post("/v1/session", json={"token": sqlite_api.token})
    assert response.status_code == 204
    cookie = response.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert sqlite_api.open.get("/v1/jobs").status_code == 200
    assert sqlite_api.open.delete("/v1/session").status_code == 204
    assert sqlite_api.open.get("/v1/jobs").status_code == 401


def test_the_open_sign_in_reads_little(shared_api: RunningApi) -> None:
    json = {"Content-Type": "application/json"}
    assert shared_api.open.post("/v1/session", content=b"x" * 5000, headers=json).status_code == 413
    assert shared_api.open.post("/v1/session", content=b"{", headers=json).status_code == 400
    assert shared_api.open.post("/v1/session", json=[1]).status_code == 422


def test_an_upload_without_the_token_is_refused_before_its_body_is_sent(sqlite_api: RunningApi) -> None:
    host, port = sqlite_api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 401")
    assert not sqlite_api.settings.uploads_dir.exists()


def test_the_api_loads_neither_torch_nor_ray_nor_a_runtime(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from service.app import create_app; from service.serve import serve;"
        "from service.settings import Settings; create_app(Settings(data_dir=Path(sys.argv[1])));"
        "heavy = {'torch', 'ray', 'optuna', 'onnxruntime', 'onnx', 'sklearn', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_cookie_changes_nothing_for_a_page_of_another_origin(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    cookie = {"Cookie": f"{COOKIE}={sqlite_api.token}"}
    cancel = f"/v1/jobs/{job_id}/cancel"
    for origin in ({}, {"Origin": "http://127.0.0.1:1"}, {"Origin": "null"}, {"Origin": "http://evil.example"}):
        response = sqlite_api.open.post(cancel, headers={**cookie, **origin})
        assert response.status_code == 403, origin
    assert sqlite_api.client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"
    assert sqlite_api.open.post(cancel, headers={**cookie, "Origin": sqlite_api.url}).status_code == 202
