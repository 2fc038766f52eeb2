"""`bantam serve`: API, worker and scheduler in one command; `bantam api`: the API alone."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from service.app import create_app
from service.migrate import upgrade
from service.processes import set_up_logging
from service.settings import Settings
from service.supervisor import Supervisor, python_module

logger = logging.getLogger("bantam.serve")
_DRAIN_S = 3  # for requests under way when the server stops


class CannotServe(Exception):
    """The server cannot start; the message says why and what to do."""


def serve(settings: Settings, *, announce: Callable[[str], None] = print) -> None:
    """Migrates, then runs until Ctrl-C or SIGTERM and returns once everything has stopped. Raises CannotServe.

    announce: gets one line when the port answers.
    """
    commands = {f"worker {n + 1}": python_module("service.worker") for n in range(settings.workers)}
    commands["scheduler"] = python_module("service.scheduler")
    _run(settings, Supervisor(commands, settings.environment(), shutdown_s=settings.shutdown_s), announce)


def serve_api(settings: Settings, *, announce: Callable[[str], None] = print) -> None:
    """The API without worker and scheduler; they run elsewhere on the same database and data folder."""
    _run(settings, None, announce)


def _run(settings: Settings, supervisor: Supervisor | None, announce: Callable[[str], None]) -> None:
    set_up_logging(settings)
    before = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _run_until_signal(settings, supervisor, announce)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    """A signal that comes before the server is up."""
    raise SystemExit(0)


def _run_until_signal(settings: Settings, supervisor: Supervisor | None, announce: Callable[[str], None]) -> None:
    with _listening(settings) as listener:
        _migrate(settings)
        app = create_app(settings)
        server = _Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=_DRAIN_S, ws="none"
            ),
            on_ready=lambda: announce(_greeting(settings, listener)),
        )

        def on_signal(number: int, frame: FrameType | None) -> None:
            if server.should_exit:  # the second one gives up waiting for open requests
                server.force_exit = True
                return
            server.should_exit = True
            app.state.bantam.stopping.set()
            if supervisor is not None:
                supervisor.ask_to_stop()

        signal.signal(signal.SIGINT, on_signal)
        signal.signal(signal.SIGTERM, on_signal)
        try:
            if supervisor is not None:
                supervisor.start()
            server.run(sockets=[listener])
        finally:
            if supervisor is not None:
                supervisor.join()


def _migrate(settings: Settings) -> None:
    try:
        upgrade(settings)
    except (OperationalError, OSError) as error:
        reason = error.orig if isinstance(error, OperationalError) else error
        shown = make_url(settings.database).render_as_string(hide_password=True)
        remedy = "check BANTAM_DATABASE_URL, and that the server runs or the folder can be written"
        raise CannotServe(f"cannot open the database {shown}: {reason}; {remedy}") from error
    except ModuleNotFoundError as error:
        raise CannotServe(f"{error}; PostgreSQL needs `pip install 'bantam[postgres]'`") from error


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again after it has stopped, and the exit status would not be 0."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()
            sys.stdout.flush()


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Binds the port before anything else is started, so that a taken port is one clear message."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY; without, every answer waits 40 ms for a delayed ACK.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise CannotServe(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                "stop what uses it, or choose another with BANTAM_PORT or BANTAM_HOST"
            ) from error
        yield listener


def _greeting(settings: Settings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"Bantam serves http://{shown}:{port} (token in {settings.token_file})"
