"""The API against its own description: what schemathesis makes up must be answered as the OpenAPI document says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.api_fuzz import fuzz, light_intake, seed_rows, settings_for
from service.app import create_app
from service.auth import ensure_token
from service.problems import MEDIA_TYPE
from service.scopes import needed_scope
from tests.service.api import RunningApi


@pytest.fixture
def document(shared_api: RunningApi) -> dict[str, Any]:
    answer: dict[str, Any] = shared_api.open.get("/openapi.json").json()
    return answer


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(m.upper(), path, op) for path, ops in document["paths"].items() for m, op in ops.items()]


def test_every_refusal_is_described_as_a_problem_document(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == [MEDIA_TYPE], (method, path, status)
            assert response["description"], (method, path, status)
        if needed_scope(method, path) is not None:
            assert {"401", "403", "503"} <= set(operation["responses"]), (method, path)
            assert operation["security"] == [{"token": []}]
            assert f"Needs the scope `{needed_scope(method, path)}`" in operation["description"]
        else:
            assert operation["security"] == []
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_what_is_written_of_a_problem_is_what_is_sent(shared_api: RunningApi, document: dict[str, Any]) -> None:
    sent = shared_api.client.get("/v1/jobs/nope").json()
    schema = document["components"]["schemas"]["ProblemDocument"]
    assert set(schema["required"]) <= set(sent) <= set(schema["properties"])


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models", "/v1/schedules/s0", "/v1/session"])
def test_a_wrong_method_is_told_all_right_ones(shared_api: RunningApi, document: dict[str, Any], path: str) -> None:
    answer = shared_api.client.put(path)
    assert answer.status_code == 405
    described = document["paths"][path.replace("s0", "{schedule_id}")]
    assert set(answer.headers["Allow"].split(", ")) == {method.upper() for method in described}


@pytest.mark.parametrize("who", ["admin", "stranger"])
def test_made_up_requests_are_answered_as_described(sqlite_template: Path, tmp_path: Path, who: str) -> None:
    """A few hundred calls; `python -m benchmarks.api_fuzz` makes thousands, on both stores."""
    settings = settings_for(tmp_path)
    (tmp_path / "bantam.sqlite3").write_bytes(sqlite_template.read_bytes())
    seed_rows(settings)
    app = create_app(settings, light_intake())
    token = ensure_token(settings.token_file) if who == "admin" else None
    phases = ("fuzzing", "stateful") if who == "admin" else ("fuzzing",)
    found = fuzz(app, token, examples=6 if who == "admin" else 2, seed=1, phases=phases)
    app.state.bantam.database.close()
    assert found.errors == []
    assert found.failures == {}
    assert not [status for status in found.statuses if status >= 500]
    if who == "admin":
        assert found.calls > 250
        assert sum(found.statuses[status] for status in (200, 201, 202, 204)) > 50, "not only refusals"
    else:
        assert set(found.statuses) <= {200, 204, 401, 400, 405, 422}
        assert found.statuses[401] > 50
