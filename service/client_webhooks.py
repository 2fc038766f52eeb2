"""Calls of the client about webhooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from service.client_access import Json, Sends, key_header, pages

WebhookEvent = Literal["finished", "failed", "regression"]
ALL_EVENTS: tuple[WebhookEvent, ...] = ("finished", "failed", "regression")


class WebhookCalls:
    """Part of `service.client.Client`. What a webhook sends is checked with `verify_webhook`."""

    def create_webhook(
        self: Sends,
        url: str,
        *,
        events: Sequence[WebhookEvent] = ALL_EVENTS,
        schedule: str | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Its secret is in `secret`, this once. schedule: only for jobs of this one."""
        body = {"url": url, "events": list(events), "schedule": schedule}
        return self._json("POST", "/v1/webhooks", json=body, headers=key_header(idempotency_key))

    def webhooks(self: Sends) -> Iterator[Json]:
        """Newest first, without secrets."""
        return pages(self, "/v1/webhooks", {})

    def change_webhook(self: Sends, webhook_id: str, **fields: Any) -> Json:
        """fields: of url, events, enabled."""
        return self._json("PATCH", f"/v1/webhooks/{webhook_id}", json=fields)

    def delete_webhook(self: Sends, webhook_id: str) -> None:
        """With its events, sent or not."""
        self._send("DELETE", f"/v1/webhooks/{webhook_id}")

    def test_webhook(self: Sends, webhook_id: str, *, idempotency_key: str | None = None) -> Json:
        """Queues an event of type `test`; the delivery."""
        return self._json("POST", f"/v1/webhooks/{webhook_id}/test", headers=key_header(idempotency_key))

    def webhook_deliveries(self: Sends, webhook_id: str, *, state: str | None = None) -> Iterator[Json]:
        """Newest first. state: of pending, delivered, dead; None for all."""
        query = {} if state is None else {"state": state}
        return pages(self, f"/v1/webhooks/{webhook_id}/deliveries", query)
