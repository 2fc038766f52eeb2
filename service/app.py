"""The HTTP application. Imports neither torch nor ray nor a runtime: it starts in well under two seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles

from service import plotly_asset
from service.auth import TokenGuard, ensure_token
from service.database import Database
from service.deps import State
from service.intake import Intake, real_intake
from service.metrics import Metrics, RequestTimer
from service.problems import ProblemDocument, install_problem_handlers
from service.routes import catalog, datasets, events, jobs, models, probes, schedules, session, trials
from service.settings import Settings
from service.uploads import remove_stale_uploads

STATIC = Path(__file__).parent / "static"


def create_app(settings: Settings, intake: Intake | None = None) -> FastAPI:
    """The app on an already migrated database. intake: for tests; left out, uploads are read for real."""
    remove_stale_uploads(settings.uploads_dir)
    database = Database(settings.database)
    state = State(
        settings=settings,
        database=database,
        intake=intake or real_intake(settings),
        metrics=Metrics(database),
        token=ensure_token(settings.token_file),
        readers=CapacityLimiter(settings.intake_parallel),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        state.stopping.set()
        database.close()

    app = FastAPI(
        title="Bantam",
        version=version("bantam"),
        summary="Fits a trained PyTorch model into a latency, size and accuracy budget.",
        lifespan=lifespan,
        responses={"4XX": {"model": ProblemDocument, "description": "problem document (RFC 9457)"}},
    )
    app.state.bantam = state
    install_problem_handlers(app)
    app.add_middleware(TokenGuard, token=state.token)
    app.add_middleware(RequestTimer, metrics=state.metrics)

    v1 = APIRouter(prefix="/v1", dependencies=[Depends(_documented_token)])
    for resource in (models, datasets, jobs, trials, events, schedules, catalog):
        v1.include_router(resource.router)
    app.include_router(session.router, prefix="/v1")
    app.include_router(v1)
    app.include_router(probes.router)
    _install_pages(app)
    return app


_bearer = HTTPBearer(auto_error=False, description="the token in <data-dir>/token")


def _documented_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Puts the token into /docs. The check itself is TokenGuard's, before a body is read."""


def _install_pages(app: FastAPI) -> None:
    app.include_router(plotly_asset.router)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        headers = {"Content-Security-Policy": plotly_asset.PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
        return FileResponse(STATIC / "index.html", headers=headers)

    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False), name="static")
