"""Tokens: make, list, revoke."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.access_views import MadeToken, NewToken, TokenList, TokenView
from service.deps import CursorDep, KeyDep, PrincipalDep, StateDep, TokensDep
from service.openapi import LOCATION
from service.problems import FieldError, invalid
from service.refusals import Unknown

router = APIRouter(prefix="/tokens", tags=["access"])


@router.post("", status_code=201, responses={201: {"headers": LOCATION}})
def create_token(
    new: NewToken, response: Response, tokens: TokensDep, principal: PrincipalDep, key: KeyDep
) -> MadeToken:
    """The only answer that shows the token. An admin of the default project makes tokens for any project."""
    project = new.project or principal.project_id
    once = key.with_body(new.model_dump_json())
    try:
        if project != principal.project_id and not principal.runs_installation:
            raise Unknown("project", project)
        row, text = tokens.create(project, name=new.name, scopes=new.scopes, expires_in_s=new.expires_in_s, once=once)
    except Unknown as error:
        raise invalid([FieldError("project", str(error))]) from error
    response.headers["Location"] = f"/v1/tokens/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return MadeToken.shown_once(row, text)


@router.get("")
def list_tokens(
    tokens: TokensDep, limit: Annotated[int, Query(ge=1, le=500)] = 100, cursor: CursorDep = None
) -> TokenList:
    """Newest first, without secrets; those of all projects for an admin of the default one."""
    page = tokens.page(limit=limit, cursor=cursor)
    return TokenList(items=[TokenView.of(row) for row in page.rows], next_cursor=page.next_cursor)


@router.get("/{token_id}")
def get_token(token_id: str, tokens: TokensDep) -> TokenView:
    return TokenView.of(tokens.get(token_id))


@router.delete("/{token_id}", status_code=204)
def revoke_token(token_id: str, tokens: TokensDep, state: StateDep) -> Response:
    """From the next request on it opens nothing; with several API processes, within two seconds at the others."""
    tokens.revoke(token_id)
    state.authenticate.forget()
    return Response(status_code=204)
