"""Every error of the API as an RFC 9457 problem document: what is wrong, where, and what to do about it.

`{"type", "title", "status", "detail", "errors": [{"field", "message"}]}`, media type application/problem+json.
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
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException

logger = logging.getLogger("bantam.api")
MEDIA_TYPE = "application/problem+json"
_LONGEST_VALUE = 120


@dataclass(frozen=True)
class FieldError:
    field: str
    message: str


@dataclass(eq=False)
class Problem(Exception):
    """Raise it anywhere under a route. kind: last part of the type URI, a word a client can switch on."""

    status: int
    kind: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


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


def problem_response(problem: Problem) -> JSONResponse:
    try:
        title = HTTPStatus(problem.status).phrase
    except ValueError:
        title = "Error"
    body = {
        "type": f"urn:bantam:problem:{problem.kind}",
        "title": title,
        "status": problem.status,
        "detail": problem.detail,
        "errors": [{"field": e.field, "message": e.message} for e in problem.errors],
    }
    return JSONResponse(body, problem.status, media_type=MEDIA_TYPE, headers=dict(problem.headers))


def invalid(errors: Iterable[FieldError]) -> Problem:
    """422 that names every field at fault."""
    found = tuple(errors)
    detail = "; ".join(f"{e.field}: {e.message}" for e in found)
    return Problem(422, "invalid-request", detail, found)


def not_found(what: str, identifier: object, remedy: str) -> Problem:
    return Problem(404, "not-found", f"{what} {_shown(identifier)} does not exist; {remedy}")


def install_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(DataError, _on_unstorable)
    app.add_exception_handler(Exception, _on_crash)


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return problem_response(error)


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
    return problem_response(Problem(error.status_code, kind, detail, headers=error.headers or {}))


async def _on_unstorable(request: Request, error: Exception) -> JSONResponse:
    detail = "a value holds what the database cannot store, such as a NUL character; remove it"
    return problem_response(Problem(422, "invalid-request", detail))


async def _on_crash(request: Request, error: Exception) -> JSONResponse:
    # The server's own middleware logs the traceback; a client learns no internals.
    return problem_response(Problem(500, "internal", "the server failed on this request; its log has the reason"))


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
            return f"{_shown(detail['input'])}: {text[:1].lower() + text[1:]}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"
