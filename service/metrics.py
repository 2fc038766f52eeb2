"""Prometheus metrics of one API process. Counts of rows are read from the database when they are asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.database import Database
from service.requests import route_pattern
from service.tables import jobs, trials, workers


class Metrics:
    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.uploads = Counter(
            "bantam_uploads", "Uploads by kind and result", ["kind", "result"], registry=self.registry
        )
        self.upload_bytes = Counter("bantam_upload_bytes", "Bytes received", ["kind"], registry=self.registry)
        self.latency = Histogram(
            "bantam_request_seconds", "Time to answer", ["method", "route", "status"], registry=self.registry
        )
        self.registry.register(_Rows(database))


class _Rows(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # registering must not need a database that is up

    def collect(self) -> Iterable[GaugeMetricFamily]:
        with self._database.read() as connection:
            by_state = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
            of_trials = connection.execute(select(trials.c.state, func.count()).group_by(trials.c.state)).all()
            newest = func.coalesce(func.max(workers.c.heartbeat_at), 0)
            last = connection.execute(select(func.count(), newest).select_from(workers)).one()
        yield _family("bantam_jobs", "Jobs by state", by_state)
        yield _family("bantam_trials", "Trials by state", of_trials)
        yield GaugeMetricFamily("bantam_workers", "Workers that have not signed off", value=last[0])
        yield GaugeMetricFamily("bantam_worker_heartbeat_timestamp_seconds", "Latest sign of life", value=last[1])


def _family(name: str, text: str, rows: Iterable[Iterable[object]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["state"])
    for state, count in rows:
        family.add_metric([str(state)], float(str(count)))
    return family


class RequestTimer:
    """ASGI middleware: observes each request under its route's pattern, so that ids make no new series."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Time to the first byte: an event stream stays open for hours.
                labels = (scope["method"], route_pattern(scope), str(status))
                self._metrics.latency.labels(*labels).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, observed)
