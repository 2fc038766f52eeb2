"""Calls of the client about webhooks. What a webhook sends is checked with `verify_webhook`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from service.client_calls import delete, post
from service.client_flow import Flow, Items, Json, Send, document, pages

WebhookEvent = Literal["finished", "failed", "regression"]
ALL_EVENTS: tuple[WebhookEvent, ...] = ("finished", "failed", "regression")


def create_webhook(
    url: str,
    *,
    events: Sequence[WebhookEvent] = ALL_EVENTS,
    schedule: str | None = None,
    idempotency_key: str | None = None,
) -> Flow[Json]:
    """Its secret is in `secret`, this once. schedule: only for jobs of this one."""
    body = {"url": url, "events": list(events), "schedule": schedule}
    return (yield from post("/v1/webhooks", body, key=idempotency_key))


def webhooks() -> Items[Json]:
    """Newest first, without secrets."""
    yield from pages("/v1/webhooks")


def change_webhook(webhook_id: str, **fields: Any) -> Flow[Json]:
    """fields: of url, events, enabled."""
    return (yield from document(Send("PATCH", f"/v1/webhooks/{webhook_id}", {"json": fields})))


def delete_webhook(webhook_id: str) -> Flow[None]:
    """With its events, sent or not."""
    yield from delete(f"/v1/webhooks/{webhook_id}")


def send_test(webhook_id: str, *, idempotency_key: str | None = None) -> Flow[Json]:
    """Queues an event of type `test`; the delivery."""
    return (yield from post(f"/v1/webhooks/{webhook_id}/test", key=idempotency_key))


def webhook_deliveries(webhook_id: str, *, state: str | None = None) -> Items[Json]:
    """Newest first. state: of pending, delivered, dead; None for all."""
    yield from pages(f"/v1/webhooks/{webhook_id}/deliveries", state=state)
