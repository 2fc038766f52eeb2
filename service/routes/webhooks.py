"""Webhooks: make, list, change, delete, test; what became of their events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from service.addresses import LONGEST_URL, AddressRefused, checked_url
from service.deps import CursorDep, KeyDep, State, StateDep, WebhooksDep
from service.openapi import LOCATION
from service.outbox import EVENTS, Event
from service.problems import FieldError, invalid
from service.refusals import Unknown
from service.views import PageView, moment

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
Url = Annotated[str, Field(min_length=1, max_length=LONGEST_URL, description="like https://example.org/hook")]
Listened = Annotated[list[Literal["finished", "failed", "regression"]], Field(min_length=1, max_length=len(EVENTS))]
DeliveryState = Literal["pending", "delivered", "dead"]


class NewWebhook(BaseModel):
    """events: `finished` (succeeded or cancelled), `failed` (or a tick that got no job), `regression` (worse than the
    schedule's last good job). schedule: left out for all jobs of the project.
    """

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Listened = ["finished", "failed", "regression"]
    schedule: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    enabled: bool = True


class WebhookChange(BaseModel):
    """Fields left out keep their value."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    events: Listened | None = None
    enabled: bool | None = None


class WebhookView(BaseModel):
    id: str
    url: str
    events: list[Event]
    schedule: str | None
    enabled: bool
    created_at: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> WebhookView:
        return cls(
            id=row.id,
            url=row.url,
            events=row.events.split(),
            schedule=row.schedule_id,
            enabled=row.enabled,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
        )


class MadeWebhook(WebhookView):
    secret: str | None = Field(description="shown this once; null when an Idempotency-Key is used again")


class WebhookList(PageView):
    items: list[WebhookView]


class DeliveryView(BaseModel):
    """An event for one webhook. id: also sent as `webhook-id`; the same in every attempt. status, reason: of the last
    attempt; dead ones are not tried again.
    """

    id: str
    event: Event
    job: str | None
    state: DeliveryState
    attempts: int
    status: int | None
    reason: str | None
    created_at: datetime
    next_attempt_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, row: Row[Any]) -> DeliveryView:
        return cls(
            id=row.id,
            event=row.event,
            job=row.job_id,
            state=row.state,
            attempts=row.attempts,
            status=row.status,
            reason=row.reason,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
            next_attempt_at=moment(row.next_attempt_at),
            ended_at=moment(row.ended_at),
        )


class DeliveryList(PageView):
    items: list[DeliveryView]


@router.post("", status_code=201, responses={201: {"headers": LOCATION}})
def create_webhook(
    new: NewWebhook, response: Response, state: StateDep, webhooks: WebhooksDep, key: KeyDep
) -> MadeWebhook:
    """The only answer that shows the secret with which each request will be signed."""
    try:
        row, secret = webhooks.create(
            url=_checked(new.url, state),
            events=new.events,
            schedule=new.schedule,
            enabled=new.enabled,
            once=key.with_body(new.model_dump_json()),
        )
    except Unknown as error:
        raise invalid([FieldError("schedule", str(error))]) from error
    response.headers["Location"] = f"/v1/webhooks/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return MadeWebhook(**WebhookView.of(row).model_dump(), secret=secret)


@router.get("")
def list_webhooks(
    webhooks: WebhooksDep, limit: Annotated[int, Query(ge=1, le=500)] = 100, cursor: CursorDep = None
) -> WebhookList:
    """Newest first, without secrets."""
    page = webhooks.page(limit=limit, cursor=cursor)
    return WebhookList(items=[WebhookView.of(row) for row in page.rows], next_cursor=page.next_cursor)


@router.get("/{webhook_id}")
def get_webhook(webhook_id: str, webhooks: WebhooksDep) -> WebhookView:
    return WebhookView.of(webhooks.get(webhook_id))


@router.patch("/{webhook_id}")
def change_webhook(webhook_id: str, wanted: WebhookChange, state: StateDep, webhooks: WebhooksDep) -> WebhookView:
    """Events that wait go to the new URL. Nothing is sent, and no event is kept, while it is disabled."""
    fields = wanted.model_dump(exclude_none=True)
    if wanted.url is not None:
        fields["url"] = _checked(wanted.url, state)
    return WebhookView.of(webhooks.change(webhook_id, fields))


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(webhook_id: str, webhooks: WebhooksDep) -> Response:
    """With its events, sent or not."""
    webhooks.delete(webhook_id)
    return Response(status_code=204)


@router.post("/{webhook_id}/test", status_code=202)
def test_webhook(webhook_id: str, webhooks: WebhooksDep, key: KeyDep) -> DeliveryView:
    """Sends an event of type `test`, like any other; look at the deliveries for what became of it."""
    return DeliveryView.of(webhooks.test(webhook_id, once=key.with_body()))


@router.get("/{webhook_id}/deliveries")
def list_deliveries(
    webhook_id: str,
    webhooks: WebhooksDep,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: CursorDep = None,
) -> DeliveryList:
    """Newest first."""
    page = webhooks.deliveries(webhook_id, state=state, limit=limit, cursor=cursor)
    return DeliveryList(items=[DeliveryView.of(row) for row in page.rows], next_cursor=page.next_cursor)


def _checked(url: str, state: State) -> str:
    try:
        return str(checked_url(url, allow_private=state.settings.webhook_allow_private))
    except AddressRefused as refusal:
        raise invalid([FieldError("url", f"{url[:120]!r}: {refusal}")]) from refusal
