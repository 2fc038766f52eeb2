"""Every error of the API as an RFC 9457 problem document: what is wrong, where, and what to do about it.

`{"type", "title", "status", "detail", "errors": [{"field", "message"}]}`, media type application/problem+json; a limit
that was reached is named in `limit` as well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.refusals import BadCursor, Gone, InUse, KeyReused, LimitReached, Refusal, Taken, Unfit, Unknown, shown
from service.requests import route_pattern

logger = logging.getLogger("bantam.api")
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class FieldError:
    field: str
    message: str


class Limit(BaseModel):
    """setting: the server's variable. value: what the request would have made of it."""

    setting: str
    limit: int
    value: int


@dataclass(eq=False)
class Problem(Exception):
    """Raise it anywhere under a route. kind: last part of the type URI, a word a client can switch on."""

    status: int
    kind: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    limit: Limit | None = None


class ProblemField(BaseModel):
    field: str
    message: str


class ProblemDocument(BaseModel):
    """The body of every answer from 400 on."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemField]
    limit: Limit | None = None


def problem_response(problem: Problem) -> JSONResponse:
    try:
        title = HTTPStatus(problem.status).phrase
    except ValueError:
        title = "Error"
    body: dict[str, Any] = {
        "type": f"urn:bantam:problem:{problem.kind}",
        "title": title,
        "status": problem.status,
        "detail": problem.detail,
        "errors": [{"field": e.field, "message": e.message} for e in problem.errors],
    }
    if problem.limit is not None:
        body["limit"] = problem.limit.model_dump()
    return JSONResponse(body, problem.status, media_type=MEDIA_TYPE, headers=dict(problem.headers))


def invalid(errors: Iterable[FieldError]) -> Problem:
    """422 that names every field at fault."""
    found = tuple(errors)
    detail = "; ".join(f"{e.field}: {e.message}" for e in found)
    return Problem(422, "invalid-request", detail, found)


def database_away() -> Problem:
    detail = "the database does not answer; the server's log has the reason, try again in a few seconds"
    return Problem(503, "database-away", detail, headers={"Retry-After": "5"})


def install_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(DataError, _on_unstorable)
    app.add_exception_handler(IntegrityError, _on_conflict)
    app.add_exception_handler(OperationalError, _on_database_away)


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return problem_response(error)


async def _on_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return problem_response(_problem_of(error))


def _problem_of(refusal: Refusal) -> Problem:
    detail = str(refusal)
    match refusal:
        case Unknown():
            return Problem(404, "not-found", detail)
        case KeyReused():
            return invalid([FieldError("Idempotency-Key", detail)])
        case BadCursor():
            return invalid([FieldError("cursor", detail)])
        case LimitReached():
            status, kind = {"wait": (429, "too-many"), "full": (409, "quota"), "size": (413, "too-large")}[refusal.kind]
            headers = {} if refusal.retry_s is None else {"Retry-After": str(refusal.retry_s)}
            limit = Limit(setting=refusal.setting, limit=refusal.limit, value=refusal.value)
            return Problem(status, kind, detail, headers=headers, limit=limit)
        case InUse():
            return Problem(409, "in-use", detail)
        case Gone():
            return Problem(409, "gone", detail)
        case Unfit():
            return Problem(409, "unfit", detail)
        case Taken():
            return Problem(409, "exists", detail)
        case _:
            return Problem(409, "wrong-state", detail)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if any(d["type"] == "json_invalid" for d in details):
        reason = details[0].get("ctx", {}).get("error", "syntax error")
        return problem_response(Problem(400, "invalid-json", f"the body is not JSON: {reason}"))
    return problem_response(invalid(field_errors(details)))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(error.status_code, "refused")
    detail = str(error.detail)
    if error.status_code == 404 and detail == "Not Found":
        detail = f"{request.method} {request.url.path}: no such resource; see /docs for all of them"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # A route knows its own methods only; several of them share a path.
        shared = request.app.openapi()["paths"].get(route_pattern(request.scope), {})
        headers["Allow"] = ", ".join(sorted(method.upper() for method in shared)) or headers.get("Allow", "")
    return problem_response(Problem(error.status_code, kind, detail, headers=headers))


async def _on_unstorable(request: Request, error: Exception) -> JSONResponse:
    detail = "a value holds what the database cannot store, such as a NUL character; remove it"
    return problem_response(Problem(422, "invalid-request", detail))


async def _on_conflict(request: Request, error: Exception) -> JSONResponse:
    logger.warning("%s %s: %s", request.method, request.url.path, error)
    detail = "something that this request names was changed or deleted at the same moment; send it again"
    return problem_response(Problem(409, "conflict", detail))


async def _on_database_away(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s: %s", request.method, request.url.path, error)
    return problem_response(database_away())


class CrashGuard:
    """ASGI middleware: a defect is logged with the request's id and answered with 500; a client learns no internals."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http":
                raise
            logger.exception("%s %s: failed", scope["method"], scope["path"])
            if begun:
                raise  # the server breaks the connection off, so that nobody takes half an answer for a whole one
            detail = "the server failed on this request; its log has the reason, by the id in X-Request-Id"
            await problem_response(Problem(500, "internal", detail))(scope, receive, send)


def field_errors(details: Sequence[Any]) -> list[FieldError]:
    """pydantic's error list as dotted field names and messages that show the refused value; one entry per field.

    A union reports one error per member; members that the value plainly is not are noise, so the entry that goes
    deepest into the value wins, and messages about the same field are joined.
    """
    found: dict[str, list[str]] = {}
    for detail in details:
        name = _field_name(detail["loc"])
        message = _message(detail)
        if message not in found.setdefault(name, []):
            found[name].append(message)
    deepest = {n: m for n, m in found.items() if not any(other.startswith((n + ".", n + "[")) for other in found)}
    return [FieldError(name, " or ".join(messages)) for name, messages in deepest.items()]


def _field_name(location: Sequence[str | int]) -> str:
    """`data.inputs[0].column`. Union members show up as class names or tags; fields of this API are lower case."""
    parts = list(location)
    if parts and parts[0] in ("body", "query", "path", "header", "cookie"):
        parts = parts[1:] or [parts[0]]
    name = ""
    for part in parts:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part.replace("_", "").isalnum() and part == part.lower() and part not in _UNION_TAGS:
            name += f".{part}" if name else part
    return name or "body"


_UNION_TAGS = frozenset({"str", "int", "float", "bool"})


def _message(detail: Mapping[str, Any]) -> str:
    text = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    match detail["type"]:
        case "missing":
            return "missing; it is required"
        case "extra_forbidden":
            return "unknown field; remove it or correct its spelling (/docs lists all fields)"
        case "value_error":
            return text
        case "string_type" if isinstance(detail["input"], dict | list):
            return text
        case _:
            return f"{shown(detail['input'])}: {text[:1].lower() + text[1:]}"
