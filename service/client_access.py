"""Calls of the client about tokens, projects, the audit log, and models and datasets that are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from service.client_calls import delete, post
from service.client_flow import Flow, Items, Json, get, items_of, pages

Scope = Literal["read", "submit", "admin"]
DAY_S = 86400


def session() -> Flow[Json]:
    """Whose token this client has and what it may do."""
    return (yield from get("/v1/session"))


def create_token(
    name: str,
    *,
    scopes: Sequence[Scope] = ("read",),
    project: str | None = None,
    expires_in_s: int | None = 90 * DAY_S,
    idempotency_key: str | None = None,
) -> Flow[Json]:
    """Its text is in `token`, this once. project: None for this client's own; expires_in_s: None for never."""
    body = {"name": name, "scopes": list(scopes), "project": project, "expires_in_s": expires_in_s}
    return (yield from post("/v1/tokens", body, key=idempotency_key))


def tokens() -> Items[Json]:
    """Newest first, without secrets."""
    yield from pages("/v1/tokens")


def revoke_token(token_id: str) -> Flow[None]:
    yield from delete(f"/v1/tokens/{token_id}")


def create_project(project: str, *, name: str = "", idempotency_key: str | None = None) -> Flow[Json]:
    """project: its id, a word such as `vision`."""
    return (yield from post("/v1/projects", {"id": project, "name": name}, key=idempotency_key))


def projects() -> Items[Json]:
    """Newest first."""
    yield from pages("/v1/projects")


def delete_project(project: str) -> Flow[None]:
    """It must be empty."""
    yield from delete(f"/v1/projects/{project}")


def audit(*, token: str | None = None, object: str | None = None, project: str | None = None) -> Items[Json]:
    """Rows of the audit log, newest first, fetched as they are asked for. object: a path such as /v1/jobs/j0123."""
    yield from pages("/v1/audit", token=token, object=object, project=project)


def models(*, name: str | None = None) -> Flow[tuple[Json, ...]]:
    """Newest first. name: only its versions, the latest first; a job may say `name@latest`."""
    return items_of((yield from get("/v1/models", name=name)))


def datasets(*, name: str | None = None) -> Flow[tuple[Json, ...]]:
    """Like models."""
    return items_of((yield from get("/v1/datasets", name=name)))


def delete_model(model_id: str) -> Flow[None]:
    """Refused while an unfinished job or a schedule needs it."""
    yield from delete(f"/v1/models/{model_id}")


def delete_dataset(dataset_id: str) -> Flow[None]:
    """Refused while an unfinished job or a schedule needs it."""
    yield from delete(f"/v1/datasets/{dataset_id}")
