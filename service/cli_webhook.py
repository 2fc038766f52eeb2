"""`bantam webhook`: where the service reports ends, failures and regressions."""

from __future__ import annotations

import itertools
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from service.cli_options import (
    DEFAULT_DATA_DIR,
    DataDirOption,
    JsonOption,
    TokenOption,
    UrlOption,
    console,
    errors,
    print_answer,
    print_json,
    print_rows,
    service_at,
    short_time,
)
from service.client_webhooks import ALL_EVENTS

app = typer.Typer(help="Addresses that are told of ends, failures and regressions of jobs.", no_args_is_help=True)
WebhookArgument = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id of the webhook.")]


class EventName(StrEnum):
    """Typer takes a list of these, not of literals."""

    FINISHED = "finished"
    FAILED = "failed"
    REGRESSION = "regression"


@app.command()
def create(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Like https://example.org/hook.")],
    event: Annotated[list[EventName] | None, typer.Option(help="May be given again; left out: all.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only jobs of this schedule.")] = None,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Make a webhook. Its secret is printed this once, alone on standard output."""
    with service_at(url, token, data_dir) as client:
        wanted = tuple(e for e in ALL_EVENTS if event is None or e in event)
        made = client.create_webhook(address, events=wanted, schedule=schedule)
    if as_json:
        print_json(made)
        return
    about = f"webhook {made['id']}: {', '.join(made['events'])} to {made['url']}. Keep its secret now:"
    errors.print(Text(about), soft_wrap=True)
    typer.echo(made["secret"])


@app.command("list")
def list_all(
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """List the webhooks, without their secrets."""
    with service_at(url, token, data_dir) as client:
        rows = list(client.webhooks())
    columns = {
        "id": lambda w: w["id"],
        "address": lambda w: w["url"],
        "events": lambda w: ", ".join(w["events"]),
        "schedule": lambda w: w["schedule"] or "all jobs",
        "state": lambda w: "enabled" if w["enabled"] else "disabled",
    }
    print_rows(
        rows, columns, "no webhooks; make one with: bantam webhook create https://example.org/hook", as_json=as_json
    )


@app.command()
def deliveries(
    webhook: WebhookArgument,
    state: Annotated[Literal["pending", "delivered", "dead"] | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show what became of a webhook's events, newest first."""
    with service_at(url, token, data_dir) as client:
        rows = list(itertools.islice(client.webhook_deliveries(webhook, state=state), limit))
    columns = {
        "time": lambda d: short_time(d["created_at"], seconds=True),
        "event": lambda d: d["event"],
        "job": lambda d: d["job"] or "",
        "state": lambda d: d["state"],
        "attempts": lambda d: d["attempts"],
        "next": lambda d: short_time(d["next_attempt_at"], seconds=True),
        "why": lambda d: d["reason"] or "",
    }
    print_rows(rows, columns, "no event yet", as_json=as_json)


@app.command("test")
def send_test(
    webhook: WebhookArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Send an event of type test."""
    with service_at(url, token, data_dir) as client:
        sent = client.test_webhook(webhook)
    text = f"event {sent['id']} is {sent['state']}; see: bantam webhook deliveries {webhook}"
    print_answer(sent, text, as_json=as_json)


@app.command()
def enable(
    webhook: WebhookArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Send to it again."""
    _switch(webhook, True, url, token, data_dir)


@app.command()
def disable(
    webhook: WebhookArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Send nothing to it and keep no events for it."""
    _switch(webhook, False, url, token, data_dir)


@app.command()
def delete(
    webhook: WebhookArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Delete a webhook and its events."""
    with service_at(url, token, data_dir) as client:
        client.delete_webhook(webhook)
    console.print(Text(f"webhook {webhook} is deleted"))


def _switch(webhook: str, enabled: bool, url: str | None, token: str | None, data_dir: Path) -> None:
    with service_at(url, token, data_dir) as client:
        client.change_webhook(webhook, enabled=enabled)
    console.print(Text(f"webhook {webhook} is {'enabled' if enabled else 'disabled'}"))
