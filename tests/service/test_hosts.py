from __future__ import annotations

from collections.abc import Callable

import pytest

from service.hosts import host_name
from service.settings import Settings
from tests.service.api import RunningApi


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:8080", "localhost"),
        ("LOCALHOST", "localhost"),
        ("[::1]:8080", "::1"),
        ("[::1", "::1"),
        ("example.org.:80", "example.org"),
        ("127.0.0.1", "127.0.0.1"),
        ("", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name


def test_a_strange_host_is_refused_with_the_remedy(shared_api: RunningApi) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "evil@localhost"):
        for path in ("/", "/v1/jobs", "/openapi.json", "/static/js/app.js"):
            response = shared_api.client.get(path, headers={"Host": host})
            assert response.status_code == 421, (host, path)
        assert "BANTAM_ALLOWED_HOSTS" in response.json()["detail"]
    for host in ("localhost", "127.0.0.1:1", "[::1]:8080", "LocalHost."):
        assert shared_api.client.get("/v1/jobs", headers={"Host": host}).status_code == 200
    assert shared_api.open.get("/healthz", headers={"Host": "10.0.0.7:8080"}).status_code == 200


def test_allowed_hosts_are_a_setting(sqlite_settings: Settings, start_api: Callable[[Settings], RunningApi]) -> None:
    names = "bantam.example.org, *.internal"
    api = start_api(sqlite_settings.model_copy(update={"allowed_hosts": names}))
    for host, status in (
        ("bantam.example.org", 200),
        ("a.b.internal:80", 200),
        ("internal", 421),
        ("x.example.org", 421),
    ):
        assert api.client.get("/v1/jobs", headers={"Host": host}).status_code == status, host


def test_the_bound_name_counts_and_a_wildcard_address_does_not() -> None:
    assert "box.lan" in Settings(host="box.lan").host_names
    assert "0.0.0.0" not in Settings(host="0.0.0.0").host_names
    assert "" not in Settings(allowed_hosts=" , ").host_names


def test_no_other_origin_is_let_in(shared_api: RunningApi) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for response in (
        shared_api.open.options("/v1/jobs", headers=headers),
        shared_api.client.options("/v1/jobs", headers=headers),
        shared_api.client.get("/v1/jobs", headers={"Origin": "http://evil.example"}),
    ):
        assert not [name for name in response.headers if name.lower().startswith("access-control")]
