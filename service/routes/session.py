"""The browser's sign-in: the token, once typed in, travels as a cookie that scripts cannot read."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.access_views import SessionView
from service.auth import COOKIE
from service.deps import PrincipalDep, StateDep
from service.openapi import refusals
from service.problems import FieldError, Problem, invalid

router = APIRouter(tags=["session"])
_MAX_BODY = 4096
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": ["token"], "properties": {"token": {"type": "string"}}}
            }
        },
    }
}


@router.post("/session", status_code=204, openapi_extra=_FORM, responses=refusals(401))
async def sign_in(request: Request, state: StateDep) -> Response:
    """Open to all, so the body is read by hand: never more than 4 KiB of it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise Problem(413, "too-large", f"more than {_MAX_BODY} bytes; send only the token")
    try:
        document = json.loads(bytes(body))
    except ValueError as error:
        raise Problem(400, "invalid-json", 'the body is not JSON; send {"token": "…"}') from error
    token = document.get("token") if isinstance(document, dict) else None
    if not isinstance(token, str):
        raise invalid([FieldError("token", "missing; it lies in <data-dir>/token on the server")])
    token = token.strip()
    principal = await run_in_threadpool(state.authenticate, token)
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
