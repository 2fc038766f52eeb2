"""Events for webhooks, written in the transaction that makes them true, so that none is lost and none is invented.

`finished`: a job succeeded or was cancelled. `failed`: a job failed, or a tick of a schedule got none. `regression`: a
scheduled job is worse than the schedule's last good one, beyond what noise explains (`service.comparison`).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, or_, select

from service.database import db_now, dump_json
from service.tables import webhook_deliveries, webhooks

Event = Literal["finished", "failed", "regression", "test"]
EVENTS: tuple[Event, ...] = ("finished", "failed", "regression")
_LONGEST_REASON = 2000


def note_job_end(connection: Connection, job: Row[Any]) -> None:
    """job: its whole row, ended."""
    compared = job.previous or {}
    events: list[Event] = ["failed" if job.state == "failed" else "finished"]
    if compared.get("regression"):
        events.append("regression")
    for event in events:
        _write(connection, event, job.project_id, job.schedule_id, {"job": _job(job)})


def note_refused_tick(connection: Connection, schedule: Row[Any], run_id: int, reason: str) -> None:
    """run_id: of the tick's row in the schedule's history."""
    about = {"id": schedule.id, "name": schedule.name, "run": run_id, "reason": reason[:_LONGEST_REASON]}
    _write(connection, "failed", schedule.project_id, schedule.id, {"job": None, "schedule": about})


def note_test(connection: Connection, webhook: Row[Any], delivery_id: str) -> None:
    _insert(connection, webhook, "test", delivery_id, {"job": None})


def new_delivery_id() -> str:
    """Sorts by the time at which it was made: of events of one moment, the first one made is sent first."""
    return f"e{time.time_ns():016x}{secrets.token_hex(8)}"


def _write(
    connection: Connection, event: Event, project_id: str, schedule_id: str | None, about: Mapping[str, Any]
) -> None:
    listening = select(webhooks).where(
        webhooks.c.project_id == project_id,
        webhooks.c.enabled.is_(True),
        or_(webhooks.c.schedule_id.is_(None), webhooks.c.schedule_id == schedule_id),
    )
    for webhook in connection.execute(listening).all():
        if event in webhook.events.split():
            _insert(connection, webhook, event, new_delivery_id(), about)


def _insert(
    connection: Connection, webhook: Row[Any], event: Event, delivery_id: str, about: Mapping[str, Any]
) -> None:
    now = connection.execute(select(db_now())).scalar_one()
    body = {
        "id": delivery_id,
        "type": event,
        "created_at": _time(now),
        "project": webhook.project_id,
        "webhook": webhook.id,
        **about,
    }
    values = {
        "id": delivery_id,
        "webhook_id": webhook.id,
        "event": event,
        "job_id": (about["job"] or {}).get("id"),
        "body": json.dumps(json.loads(dump_json(body)), separators=(",", ":")),
        "state": "pending",
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": now,
    }
    connection.execute(insert(webhook_deliveries).values(**values))


def _job(job: Row[Any]) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "schedule": job.schedule_id,
        "state": job.state,
        "outcome": job.outcome,
        "reason": None if job.reason is None else job.reason[:_LONGEST_REASON],
        "finished_at": None if job.finished_at is None else _time(job.finished_at),
        "best": job.best,
        "previous": job.previous,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
