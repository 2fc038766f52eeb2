from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from search.records import Best, JobState
from service.blobs import BlobStore
from service.client import Client, verify_webhook
from service.database import Database, db_now
from service.firing import fire_due
from service.leases import Lease, Leases
from service.ledger import SqlLedger
from service.limits import Limits
from service.processes import PARENT_VARIABLE
from service.settings import Settings
from service.supervisor import python_module
from service.tables import DEFAULT_PROJECT, jobs, webhook_deliveries, webhooks
from service.webhook_delivery import Courier, claim, forget_deliveries, note, pause_after
from service.webhook_sender import Answer
from service.webhooks import Webhooks
from tests.service import sample_job
from tests.service.api import RunningApi
from tests.service.receiver import Receiver
from tests.service.rows import LIMITS, add_job, jobs_of
from tests.service.test_schedules import at, make

EVENTS = ("finished", "failed", "regression")


def hooks(database: Database, project: str = DEFAULT_PROJECT) -> Webhooks:
    return Webhooks(database, project, LIMITS)


def add_hook(database: Database, url: str = "https://example.org/hook", **change: Any) -> tuple[str, str]:
    """Id and secret."""
    fields: dict[str, Any] = {"events": EVENTS, "schedule": None, "enabled": True, "once": None, **change}
    row, secret = hooks(database).create(url=url, **fields)
    assert secret is not None
    return row.id, secret


def sending(settings: Settings, **change: Any) -> Settings:
    fields = {"webhook_allow_private": True, "webhook_retry_s": 0.01, "webhook_timeout_s": 2, **change}
    return settings.model_copy(update=fields)


def events(database: Database, webhook_id: str) -> list[Any]:
    """Rows of its deliveries, oldest first."""
    return list(reversed(hooks(database).deliveries(webhook_id, state=None, limit=500, cursor=None).rows))


def bodies(database: Database, webhook_id: str) -> list[dict[str, Any]]:
    return [json.loads(row.body) for row in events(database, webhook_id)]


def finish(database: Database, settings: Settings, state: JobState = "succeeded", best: Best | None = None) -> str:
    """Runs the oldest queued job to its end."""
    lease = Leases(database).claim("w", 60)
    assert isinstance(lease, Lease)
    ledger = SqlLedger(database, BlobStore(settings.blobs_dir), lease)
    if best is not None:
        ledger.put_best(best)
    ledger.finish(state, outcome="feasible" if state == "succeeded" else None, reason="because", report=None)
    return lease.job_id


def send_all(database: Database, settings: Settings, rounds: int = 20) -> int:
    courier, sent = Courier(database, settings), 0
    for _ in range(rounds):
        sent += courier.send_due()
        time.sleep(0.02)
    return sent


def test_the_end_of_a_job_is_told_and_signed(database: Database, settings: Settings) -> None:
    with Receiver() as receiver:
        webhook_id, secret = add_hook(database, receiver.url)
        job_id = add_job(database, "edge")
        assert finish(database, settings) == job_id
        assert send_all(database, sending(settings), 3) == 1
    (request,) = receiver.received
    event = verify_webhook(secret, request.headers, request.body)
    assert (event["type"], event["project"], event["webhook"]) == ("finished", "default", webhook_id)
    assert {k: event["job"][k] for k in ("id", "name", "state", "outcome", "reason", "schedule")} == {
        "id": job_id,
        "name": "edge",
        "state": "succeeded",
        "outcome": "feasible",
        "reason": "because",
        "schedule": None,
    }
    (row,) = events(database, webhook_id)
    assert (row.id, row.state, row.status, row.attempts) == (event["id"], "delivered", 204, 1)
    assert row.next_attempt_at is row.claimed_until is None


def test_each_way_to_end_has_its_event(database: Database, settings: Settings) -> None:
    webhook_id, _ = add_hook(database)
    add_job(database)
    finish(database, settings, "failed")
    jobs_of(database).steer(add_job(database), "cancel")
    add_job(database)
    finish(database, settings, "paused")
    assert [(b["type"], b["job"]["state"]) for b in bodies(database, webhook_id)] == [
        ("failed", "failed"),
        ("finished", "cancelled"),
    ]


def test_a_job_that_kills_its_workers_is_told_too(database: Database) -> None:
    webhook_id, _ = add_hook(database, events=("failed",))
    job_id = add_job(database)
    assert Leases(database).claim("w", 60) is not None
    with database.write() as connection:
        change = {"lease_expires_at": db_now() - 1, "lease_losses": jobs.c.max_attempts}
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(**change))
    assert Leases(database).settle_abandoned() == [job_id]
    assert [b["job"]["id"] for b in bodies(database, webhook_id)] == [job_id]


def test_a_tick_without_a_job_is_a_failure(database: Database) -> None:
    made = make(database)
    everything, _ = add_hook(database)
    this_one, _ = add_hook(database, schedule=made.id)
    other, _ = add_hook(database, schedule=make(database, now="2026-03-05 00:00").id)
    add_job(database)
    assert fire_due(database, Limits.of(Settings(max_queued_jobs=1)), at("2026-03-01 03:00")) == []
    for webhook_id in (everything, this_one):
        (body,) = bodies(database, webhook_id)
        assert (body["type"], body["job"], body["schedule"]["id"]) == ("failed", None, made.id)
        assert "BANTAM_MAX_QUEUED_JOBS" in body["schedule"]["reason"]
    assert bodies(database, other) == []


def test_a_webhook_hears_only_what_it_asked_for(database: Database, settings: Settings) -> None:
    only_failed, _ = add_hook(database, events=("failed",))
    disabled, _ = add_hook(database, enabled=False)
    of_a_schedule, _ = add_hook(database, schedule=make(database).id)
    add_job(database)
    finish(database, settings)
    assert [events(database, h) for h in (only_failed, disabled, of_a_schedule)] == [[], [], []]


def test_a_worse_night_is_a_regression(database: Database, settings: Settings) -> None:
    made = make(database)
    webhook_id, _ = add_hook(database, schedule=made.id)
    good = sample_job.best(sample_job.trials())
    for night, size in (("01", 1.0), ("02", 1.001), ("03", 1.5)):
        (job_id,) = fire_due(database, LIMITS, at(f"2026-03-{night} 03:00"))
        best = replace(good, size_bytes=int(good.size_bytes * size))
        assert finish(database, settings, best=best) == job_id
    assert [b["type"] for b in bodies(database, webhook_id)] == ["finished", "finished", "finished", "regression"]
    *_, last = bodies(database, webhook_id)
    assert last["job"]["previous"]["worse"] == ["size_bytes"]
    assert jobs_of(database).get(job_id).previous == last["job"]["previous"]


def test_a_failure_is_tried_again_with_growing_pauses(database: Database, settings: Settings) -> None:
    with Receiver(answer=lambda number: 200 if number == 2 else 503) as receiver:
        webhook_id, secret = add_hook(database, receiver.url)
        add_job(database)
        finish(database, settings)
        patient = sending(settings, webhook_retry_s=50)
        assert send_all(database, patient, 3) == 1
        (row,) = events(database, webhook_id)
        assert (row.state, row.attempts, row.status, row.reason) == ("pending", 1, 503, "answered 503")
        assert 45 < row.next_attempt_at - database.clock() <= 50
        with database.write() as connection:
            connection.execute(update(webhook_deliveries).values(next_attempt_at=db_now()))
        assert send_all(database, sending(settings)) == 2
    (row,) = events(database, webhook_id)
    assert (row.state, row.attempts, row.status, row.reason) == ("delivered", 3, 200, None)
    seen = [verify_webhook(secret, r.headers, r.body) for r in receiver.received]
    assert len(seen) == 3 and seen[0] == seen[1] == seen[2]
    assert [pause_after(n, 10) for n in (1, 2, 3, 8)] == [10, 40, 160, 21600]


def test_an_event_is_given_up_with_its_reason(database: Database, settings: Settings) -> None:
    with Receiver(answer=lambda number: 500) as receiver:
        webhook_id, _ = add_hook(database, receiver.url)
        gone, _ = add_hook(database, receiver.url + "/gone")
        add_job(database)
        finish(database, settings)
        send_all(database, sending(settings, webhook_attempts=3))
    for key in (webhook_id, gone):
        (row,) = hooks(database).deliveries(key, state="dead", limit=10, cursor=None).rows
        assert (row.attempts, row.reason, row.next_attempt_at) == (3, "answered 500", None)
    assert len(receiver.received) == 6


def test_a_receiver_that_is_gone_for_good_is_not_tried_again(database: Database, settings: Settings) -> None:
    with Receiver(answer=lambda number: 410) as receiver:
        webhook_id, _ = add_hook(database, receiver.url)
        add_job(database)
        finish(database, settings)
        send_all(database, sending(settings), 5)
    assert [(row.state, row.attempts) for row in events(database, webhook_id)] == [("dead", 1)]


def test_private_addresses_are_not_called_unless_allowed(database: Database, settings: Settings) -> None:
    with Receiver() as receiver:
        webhook_id, _ = add_hook(database, receiver.url)
        add_job(database)
        finish(database, settings)
        send_all(database, sending(settings, webhook_allow_private=False, webhook_attempts=2), 5)
        (row,) = events(database, webhook_id)
        assert (row.state, row.status) == ("dead", None)
        assert "BANTAM_WEBHOOK_ALLOW_PRIVATE" in row.reason
        assert receiver.received == []


def test_a_hanging_receiver_does_not_keep_others_waiting(database: Database, settings: Settings) -> None:
    with Receiver(answer=lambda number: None) as hanging, Receiver() as quick:
        add_hook(database, hanging.url)
        add_hook(database, quick.url)
        for _ in range(4):
            add_job(database)
            finish(database, settings)
        send_all(database, sending(settings, webhook_timeout_s=0.3, webhook_retry_s=100), 4)
        assert len(quick.received) == 4
        assert len(hanging.received) == 4


def test_a_claim_that_ran_out_is_taken_over_and_its_late_note_changes_nothing(database: Database) -> None:
    webhook_id, _ = add_hook(database)
    hooks(database).test(webhook_id, once=None)
    (first,) = claim(database, lease_s=60)
    assert claim(database, lease_s=60) == []
    with database.write() as connection:
        connection.execute(update(webhook_deliveries).values(claimed_until=db_now() - 1))
    (second,) = claim(database, lease_s=60)
    assert (second.id, second.body, second.attempt) == (first.id, first.body, 2)
    note(database, first, Answer(500, "answered 500"), Settings())
    assert events(database, webhook_id)[0].claimed_until is not None
    note(database, second, Answer(200, None), Settings())
    assert events(database, webhook_id)[0].state == "delivered"
    note(database, first, Answer(500, "answered 500"), Settings())
    assert events(database, webhook_id)[0].state == "delivered"


def test_events_of_one_webhook_go_one_after_another_in_their_order(database: Database) -> None:
    webhook_id, _ = add_hook(database)
    made = [hooks(database).test(webhook_id, once=None).id for _ in range(3)]
    taken = []
    for _ in range(3):
        (claimed,) = claim(database, lease_s=60)
        assert claim(database, lease_s=60) == [], "one is under way"
        note(database, claimed, Answer(200, None), Settings())
        taken.append(claimed.id)
    assert taken == made


def test_what_has_ended_is_forgotten_and_what_waits_is_kept(database: Database) -> None:
    webhook_id, _ = add_hook(database)
    done, _ = hooks(database).test(webhook_id, once=None).id, hooks(database).test(webhook_id, once=None).id
    (claimed,) = claim(database, lease_s=60)
    assert claimed.id == done
    note(database, claimed, Answer(200, None), Settings())
    with database.write() as connection:
        connection.execute(update(webhook_deliveries).values(created_at=0))
        connection.execute(update(webhook_deliveries).where(webhook_deliveries.c.id == done).values(ended_at=1))
    assert forget_deliveries(database, 3600) == 1
    assert [row.state for row in events(database, webhook_id)] == ["pending"]


def test_several_scheduler_processes_send_each_event_once(database: Database, settings: Settings) -> None:
    with Receiver() as receiver:
        ids = [add_hook(database, f"{receiver.url}/{n}")[0] for n in range(5)]
        made = {hooks(database).test(webhook_id, once=None).id for webhook_id in ids for _ in range(6)}
        environment = {**os.environ, **sending(settings).environment(), PARENT_VARIABLE: str(os.getpid())}
        running = [subprocess.Popen(python_module("service.scheduler"), env=environment) for _ in range(3)]
        deadline = time.monotonic() + 60
        while _pending(database) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in running:
            process.terminate()
        # One that is still starting when the others have sent everything dies of the signal.
        assert {process.wait(30) for process in running} <= {0, -signal.SIGTERM}
        assert Counter(json.loads(r.body)["id"] for r in receiver.received) == dict.fromkeys(made, 1)
    with database.read() as connection:
        assert {row.attempts for row in connection.execute(select(webhook_deliveries))} == {1}


def _pending(database: Database) -> bool:
    query = select(webhook_deliveries.c.id).where(webhook_deliveries.c.state == "pending").limit(1)
    with database.read() as connection:
        return connection.execute(query).one_or_none() is not None


# -- over HTTP ---------------------------------------------------------------------------------------------------------

Start = Callable[[Settings], RunningApi]
BODY = {"url": "https://example.org/hook", "events": ["failed"]}


def test_webhooks_over_http(sqlite_api: RunningApi) -> None:
    client = sqlite_api.client
    answer = client.post("/v1/webhooks", json=BODY, headers={"Idempotency-Key": "once"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["secret"].startswith("whsec_")
    again = client.post("/v1/webhooks", json=BODY, headers={"Idempotency-Key": "once"}).json()
    assert again == {**made, "secret": None}
    url, shown = answer.headers["Location"], {k: v for k, v in made.items() if k != "secret"}
    assert client.get(url).json() == shown
    assert client.get("/v1/webhooks").json() == {"items": [shown], "next_cursor": None}

    sent = client.post(f"{url}/test", headers={"Idempotency-Key": "test"})
    assert sent.status_code == 202
    assert client.post(f"{url}/test", headers={"Idempotency-Key": "test"}).json() == sent.json()
    assert client.get(f"{url}/deliveries").json() == {"items": [sent.json()], "next_cursor": None}
    assert client.get(f"{url}/deliveries", params={"state": "dead"}).json()["items"] == []
    assert (sent.json()["event"], sent.json()["state"], sent.json()["attempts"]) == ("test", "pending", 0)

    changed = client.patch(url, json={"enabled": False, "events": ["regression", "finished"]}).json()
    assert (changed["enabled"], changed["events"], changed["url"]) == (False, ["finished", "regression"], made["url"])
    assert client.post(f"{url}/test").status_code == 409
    assert client.delete(url).status_code == 204
    for call in (client.get(url), client.delete(url), client.post(f"{url}/test"), client.get(f"{url}/deliveries")):
        assert call.status_code == 404
    assert client.patch(url, json={"enabled": True}).status_code == 404
    rows = client.get("/v1/audit").json()["items"]
    assert {f"/v1/webhooks/{made['id']}"} < {row["object"] for row in rows}
    assert made["secret"] not in json.dumps(rows)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://127.0.0.1:9/"}, "url"),
        ({"url": "not a url"}, "url"),
        ({"url": "https://example.org/" + "x" * 2000}, "url"),
        ({"events": []}, "events"),
        ({"events": ["test"]}, "events[0]"),
        ({"schedule": "s0"}, "schedule"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_a_bad_webhook_is_refused_by_field(shared_api: RunningApi, change: dict[str, Any], field: str) -> None:
    answer = shared_api.client.post("/v1/webhooks", json={**BODY, **change})
    assert answer.status_code == 422
    assert [e["field"] for e in answer.json()["errors"]] == [field]


def test_webhooks_are_an_admin_matter_of_one_project(sqlite_api: RunningApi) -> None:
    url = sqlite_api.client.post("/v1/webhooks", json=BODY).headers["Location"]
    assert sqlite_api.with_token("submit").post("/v1/webhooks", json=BODY).status_code == 403
    assert sqlite_api.with_token("submit").get("/v1/webhooks").status_code == 403
    other = sqlite_api.with_token("admin", project="vision")
    assert other.get("/v1/webhooks").json()["items"] == []
    assert [other.get(url).status_code, other.delete(url).status_code] == [404, 404]
    schedule = {"name": "n", "cron": "0 3 * * *", "job": sqlite_api.spec()}
    made = sqlite_api.client.post("/v1/schedules", json=schedule).json()
    assert other.post("/v1/webhooks", json={**BODY, "schedule": made["id"]}).status_code == 422
    mine = sqlite_api.client.post("/v1/webhooks", json={**BODY, "schedule": made["id"]})
    assert mine.status_code == 201
    assert sqlite_api.client.delete(f"/v1/schedules/{made['id']}").status_code == 204
    assert sqlite_api.client.get(mine.headers["Location"]).status_code == 404, "it goes with its schedule"


def test_webhooks_are_counted(sqlite_settings: Settings, start_api: Start) -> None:
    api = start_api(sqlite_settings.model_copy(update={"max_webhooks": 1}))
    assert api.client.post("/v1/webhooks", json=BODY).status_code == 201
    refused = api.client.post("/v1/webhooks", json=BODY)
    assert (refused.status_code, refused.json()["limit"]["setting"]) == (409, "BANTAM_MAX_WEBHOOKS")


def test_the_client_has_all_calls(sqlite_api: RunningApi) -> None:
    with Client(sqlite_api.url, sqlite_api.token) as client:
        made = client.create_webhook("https://example.org/hook", events=["finished"])
        assert [w["id"] for w in client.webhooks()] == [made["id"]]
        assert client.change_webhook(made["id"], enabled=True)["enabled"] is True
        sent = client.test_webhook(made["id"])
        assert [d["id"] for d in client.webhook_deliveries(made["id"], state="pending")] == [sent["id"]]
        client.delete_webhook(made["id"])
        assert list(client.webhooks()) == []
    with sqlite_api.database.read() as connection:
        assert connection.execute(select(webhooks)).all() == connection.execute(select(webhook_deliveries)).all() == []
