"""The browser's sign-in: the token, once typed in, travels as a cookie that scripts cannot read."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request, Response

from service.auth import COOKIE, is_token
from service.deps import StateDep
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


@router.post("/session", status_code=204, openapi_extra=_FORM)
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
    if not is_token(token.strip(), state.token):
        raise Problem(401, "unauthorized", "not the token of this server; it lies in <data-dir>/token there")
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE, state.token, httponly=True, samesite="strict", path="/", secure=request.url.scheme == "https"
    )
    return response


@router.delete("/session", status_code=204)
async def sign_out() -> Response:
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response
