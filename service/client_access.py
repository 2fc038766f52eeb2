"""Calls of the client about tokens, projects, the audit log and deletion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

Json = dict[str, Any]
Scope = Literal["read", "submit", "admin"]
DAY_S = 86400


class Sends(Protocol):
    def _json(self, method: str, path: str, **options: Any) -> Json: ...

    def _send(self, method: str, path: str, **options: Any) -> Any: ...


class AccessCalls:
    """Part of `service.client.Client`."""

    def session(self: Sends) -> Json:
        """Whose token this client has and what it may do."""
        return self._json("GET", "/v1/session")

    def create_token(
        self: Sends,
        name: str,
        *,
        scopes: Sequence[Scope] = ("read",),
        project: str | None = None,
        expires_in_s: int | None = 90 * DAY_S,
        idempotency_key: str | None = None,
    ) -> Json:
        """Its text is in `token`, this once. project: None for this client's own; expires_in_s: None for never."""
        body = {"name": name, "scopes": list(scopes), "project": project, "expires_in_s": expires_in_s}
        return self._json("POST", "/v1/tokens", json=body, headers=key_header(idempotency_key))

    def tokens(self: Sends) -> Iterator[Json]:
        """Newest first, without secrets."""
        return pages(self, "/v1/tokens", {})

    def revoke_token(self: Sends, token_id: str) -> None:
        self._send("DELETE", f"/v1/tokens/{token_id}")

    def create_project(self: Sends, project: str, *, name: str = "", idempotency_key: str | None = None) -> Json:
        """project: its id, a word such as `vision`."""
        body = {"id": project, "name": name}
        return self._json("POST", "/v1/projects", json=body, headers=key_header(idempotency_key))

    def projects(self: Sends) -> Iterator[Json]:
        """Newest first."""
        return pages(self, "/v1/projects", {})

    def delete_project(self: Sends, project: str) -> None:
        """It must be empty."""
        self._send("DELETE", f"/v1/projects/{project}")

    def audit(
        self: Sends, *, token: str | None = None, object: str | None = None, project: str | None = None
    ) -> Iterator[Json]:
        """Rows of the audit log, newest first, fetched as they are asked for. object: a path such as /v1/jobs/j0123."""
        wanted = {"token": token, "object": object, "project": project}
        return pages(self, "/v1/audit", {name: value for name, value in wanted.items() if value is not None})

    def delete_model(self: Sends, model_id: str) -> None:
        """Refused while an unfinished job or a schedule needs it."""
        self._send("DELETE", f"/v1/models/{model_id}")

    def delete_dataset(self: Sends, dataset_id: str) -> None:
        """Refused while an unfinished job or a schedule needs it."""
        self._send("DELETE", f"/v1/datasets/{dataset_id}")

    def delete_job(self: Sends, job_id: str) -> None:
        """With its trials, log and files. Refused until it has ended."""
        self._send("DELETE", f"/v1/jobs/{job_id}")


def key_header(idempotency_key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": idempotency_key} if idempotency_key else {}


def pages(client: Sends, path: str, query: dict[str, str]) -> Iterator[Json]:
    cursor: str | None = None
    while True:
        page = client._json("GET", path, params={**query, "limit": 200, **({"cursor": cursor} if cursor else {})})
        yield from page["items"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return
