"""The browser's sign-in: the token, once typed in, travels as a cookie that scripts cannot read."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.access_views import SessionView
from service.auth import COOKIE
from service.deps import PrincipalDep, StateDep
from service.openapi import refusals
from service.problems import Problem

router = APIRouter(tags=["session"])


class SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=1000, description="the first one lies in <data-dir>/token on the server")


@router.post("/session", status_code=204, responses=refusals(401))
def sign_in(given: SignIn, request: Request, state: StateDep) -> Response:
    """The token comes back as a cookie that scripts cannot read."""
    token = given.token.strip()
    principal = state.authenticate(token)
    if principal is None:
        detail = "no token of this server; the first one lies in <data-dir>/token there"
        raise Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="bantam"'})
    request.state.principal = principal  # for the audit log
    response = Response(status_code=204)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/", secure=request.url.scheme == "https")
    return response


@router.get("/session")
def get_session(principal: PrincipalDep) -> SessionView:
    """Whose token this is and what it may do."""
    return SessionView.of(principal)


@router.delete("/session", status_code=204)
async def sign_out() -> Response:
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response
