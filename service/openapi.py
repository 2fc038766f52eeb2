"""The API's description. FastAPI derives what routes take and give; what guards and handlers answer is added here.

Every status that an operation can end with is listed, every refusal as a problem document under its own media type.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.problems import MEDIA_TYPE, ProblemDocument
from service.requests import HEADER
from service.scopes import SESSION_PATH, needed_scope

Json = dict[str, Any]
SCHEME: Final = "token"

_MEANING: Final = {
    400: "the body is damaged or broke off",
    401: "no valid token",
    403: "the token has not the scope or the project for this",
    404: "not in this project",
    408: "the body did not arrive in time",
    409: "the object's state, its use or a quota does not allow it",
    410: "its file is gone",
    413: "too large",
    415: "another media type is needed",
    421: "another host name is needed",
    422: "a field is wrong; `errors` names it",
    429: "a limit that passes by itself; come back after `Retry-After` seconds",
    503: "the database is away; come back after `Retry-After` seconds",
    507: "the disk is full",
}
_TEXT: Final[Json] = {"schema": {"type": "string"}}
_SECONDS: Final[Json] = {"schema": {"type": "string", "pattern": "^[0-9]+$"}}
_HEADERS: Final[dict[int, Json]] = {
    401: {"WWW-Authenticate": {**_TEXT, "required": True}},
    429: {"Retry-After": {**_SECONDS, "required": True}},
}
LOCATION: Final[Json] = {"Location": {"schema": {"type": "string"}, "required": True}}
ETAG: Final[Json] = {"ETag": {"schema": {"type": "string"}, "required": True}}


def refusals(*statuses: int) -> dict[int | str, Json]:
    """`responses` of a route that refuses in more ways than its method and parameters tell."""
    return {status: {"description": _MEANING[status]} for status in statuses}


def install_openapi(app: FastAPI) -> None:
    def document() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to change it


def _complete(document: Json) -> Json:
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of a 422
        schemas.pop(unused, None)
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= {**problem.pop("$defs"), "ProblemDocument": problem}
    document["components"]["securitySchemes"] = {
        SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "that in <data-dir>/token, or one of POST /v1/tokens",
        }
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete_operation(method.upper(), path, operation)
    return document


def _complete_operation(method: str, path: str, operation: Json) -> None:
    scope = needed_scope(method, path)
    operation["security"] = [] if scope is None else [{SCHEME: []}]
    if scope is not None:
        text = operation.get("description", "")
        operation["description"] = f"{text}\n\nNeeds the scope `{scope}`.".strip()
    responses = operation["responses"]
    for status in _implied(method, path, operation):
        responses.setdefault(str(status), {"description": _MEANING[status]})
    for status, response in responses.items():
        response.setdefault("headers", {})[HEADER] = _TEXT
        if int(status) >= HTTPStatus.BAD_REQUEST:
            response["description"] = _MEANING[int(status)]
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
            response["headers"] |= _HEADERS.get(int(status), {})
    operation["responses"] = dict(sorted(responses.items()))


def _implied(method: str, path: str, operation: Json) -> Iterator[int]:
    """Statuses that an operation can end with because of what it is."""
    if path not in ("/healthz", "/readyz"):
        yield 421
    if needed_scope(method, path) is not None:
        yield from (401, 403, 503)
    if "parameters" in operation or "requestBody" in operation:
        yield 422
    if method != "GET":
        yield from (408, 413, 415)  # a body is read wherever there may be one
    if "requestBody" in operation:
        yield 400
    if "{" in path:
        yield 404
        if method != "GET":
            yield 409
    if method == "POST" and path != SESSION_PATH:
        yield 409
