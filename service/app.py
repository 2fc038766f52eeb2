"""The HTTP application. Imports neither torch nor ray nor a runtime: it starts in well under two seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from service import plotly_asset
from service.audit import Audit, AuditTrail
from service.auth import Authenticator, ScopeGuard, TokenGuard, ensure_token
from service.bodies import BodyGuard
from service.database import Database
from service.deps import State
from service.hosts import HostGuard
from service.intake import Intake, real_intake
from service.limits import Limits, UploadSlots
from service.metrics import Metrics, RequestTimer
from service.openapi import install_openapi
from service.problems import CrashGuard, install_problem_handlers
from service.remote_blobs import open_blobs
from service.requests import AccessLog, RequestIds
from service.routes import (
    audit,
    catalog,
    datasets,
    events,
    jobs,
    models,
    probes,
    projects,
    schedules,
    session,
    tokens,
    trials,
    webhooks,
)
from service.settings import Settings
from service.tokens import Tokens
from service.uploads import remove_stale_uploads

STATIC = Path(__file__).parent / "static"


def create_app(settings: Settings, intake: Intake | None = None) -> FastAPI:
    """The app on an already migrated database. intake: for tests; left out, uploads are read for real."""
    remove_stale_uploads(settings.uploads_dir)
    database = Database(settings.database)
    authenticate = Authenticator(ensure_token(settings.token_file), Tokens(database))
    state = State(
        settings=settings,
        database=database,
        blobs=open_blobs(settings),
        intake=intake or real_intake(settings),
        metrics=Metrics(database),
        authenticate=authenticate,
        limits=Limits.of(settings),
        uploads=UploadSlots(settings.max_uploads),
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
    )
    app.state.bantam = state
    install_problem_handlers(app)
    _install_guards(app, state)

    v1 = APIRouter(prefix="/v1")
    for resource in (
        session,
        models,
        datasets,
        jobs,
        trials,
        events,
        schedules,
        webhooks,
        catalog,
        tokens,
        projects,
        audit,
    ):
        v1.include_router(resource.router)
    app.include_router(v1)
    app.include_router(probes.router)
    _install_pages(app)
    install_openapi(app)
    return app


def _install_guards(app: FastAPI, state: State) -> None:
    """A request passes them from the last one added to the first; bodies are read behind all the others."""
    app.add_middleware(BodyGuard, limit=state.settings.max_body_bytes, timeout_s=state.settings.body_s)
    app.add_middleware(ScopeGuard)
    app.add_middleware(AuditTrail, audit=Audit(state.database))
    app.add_middleware(TokenGuard, authenticate=state.authenticate)
    app.add_middleware(HostGuard, allowed=state.settings.host_names)
    app.add_middleware(CrashGuard)
    app.add_middleware(AccessLog)
    app.add_middleware(RequestTimer, metrics=state.metrics)
    app.add_middleware(RequestIds)


def _install_pages(app: FastAPI) -> None:
    app.include_router(plotly_asset.router)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        headers = {"Content-Security-Policy": plotly_asset.PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
        return FileResponse(STATIC / "index.html", headers=headers)

    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False), name="static")
