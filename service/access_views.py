"""What the API answers with about tokens, projects and the audit log, and what it takes to make them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Row

from service.scopes import Scope
from service.tables import DEFAULT_PROJECT
from service.tokens import Principal, scopes_of
from service.views import PageView, moment

DAY = 86400
ProjectId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class NewToken(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Label
    scopes: list[Scope] = Field(["read"], min_length=1, max_length=3, description="admin > submit > read")
    project: ProjectId | None = Field(None, description="left out: that of the token that asks")
    expires_in_s: int | None = Field(90 * DAY, ge=1, le=3650 * DAY, description="null: never")


class TokenView(BaseModel):
    id: str
    name: str
    scopes: list[Scope]
    project: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="to the minute")

    @classmethod
    def of(cls, row: Row[Any]) -> TokenView:
        return cls(
            id=row.id,
            name=row.name,
            scopes=list(scopes_of(row)),
            project=row.project_id,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
            expires_at=moment(row.expires_at),
            last_used_at=moment(row.last_used_at),
        )


class MadeToken(TokenView):
    token: str | None = Field(description="shown this once; null when an Idempotency-Key is used again")

    @classmethod
    def shown_once(cls, row: Row[Any], text: str | None) -> MadeToken:
        return cls(**TokenView.of(row).model_dump(), token=text)


class TokenList(PageView):
    items: list[TokenView]


class SessionView(BaseModel):
    """The token that asks. id: `root` for the one in the data folder."""

    id: str
    name: str
    scopes: list[Scope]
    project: str
    expires_at: datetime | None

    @classmethod
    def of(cls, principal: Principal) -> SessionView:
        return cls(
            id=principal.token_id,
            name=principal.name,
            scopes=list(principal.scopes),
            project=principal.project_id,
            expires_at=moment(principal.expires_at),
        )


class NewProject(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: ProjectId = Field(description=f"part of no path of files; {DEFAULT_PROJECT!r} is there from the start")
    name: Annotated[str, StringConstraints(max_length=200)] = ""


class ProjectView(BaseModel):
    id: str
    name: str
    created_at: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> ProjectView:
        return cls(id=row.id, name=row.name, created_at=datetime.fromtimestamp(row.created_at, UTC))


class ProjectList(PageView):
    items: list[ProjectView]


class AuditView(BaseModel):
    """object: path of what was made or changed. client: network address, of the proxy if there is one."""

    id: int
    at: datetime
    token: str
    token_name: str
    project: str
    client: str | None
    method: str
    route: str
    object: str
    status: int
    outcome: Literal["done", "refused", "failed"]
    request_id: str

    @classmethod
    def of(cls, row: Row[Any]) -> AuditView:
        return cls(
            id=row.id,
            at=datetime.fromtimestamp(row.at, UTC),
            token=row.token_id,
            token_name=row.token_name,
            project=row.project_id,
            client=row.client,
            method=row.method,
            route=row.route,
            object=row.object,
            status=row.status,
            outcome="done" if row.status < 400 else "refused" if row.status < 500 else "failed",
            request_id=row.request_id,
        )


class AuditList(PageView):
    items: list[AuditView]
