"""Probes and metrics: is it up, can it work, how is it doing."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from service import migrate
from service.deps import StateDep
from service.openapi import refusals
from service.problems import Problem

router = APIRouter(tags=["probes"])
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


class Health(BaseModel):
    status: str


@router.get("/healthz")
async def healthz() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", responses=refusals(503))
def readyz(state: StateDep) -> Health:
    """The database answers and has this release's schema."""
    try:
        with state.database.read() as connection:
            found = migrate.current(connection)
    except SQLAlchemyError as error:
        raise Problem(503, "not-ready", "the database does not answer; see the server's log") from error
    if found != migrate.head():
        detail = f"the database has schema {found}, this release needs {migrate.head()}; run `bantam db upgrade`"
        raise Problem(503, "not-ready", detail)
    return Health(status="ready")


@router.get("/metrics", response_class=Response, responses=_TEXT)
def metrics(state: StateDep) -> Response:
    """Prometheus text format; needs the token, which Prometheus can send."""
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
