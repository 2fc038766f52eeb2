"""`bantam schedule`: jobs that submit themselves by a cron expression."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from service import wording
from service.cli_options import (
    DEFAULT_DATA_DIR,
    DataDirOption,
    JsonOption,
    TokenOption,
    UrlOption,
    console,
    print_answer,
    print_json,
    service_at,
    short_time,
    submitted,
    uploaded,
)

app = typer.Typer(help="Jobs that submit themselves by a cron expression.", no_args_is_help=True)
MissedName = Literal["run_once", "skip", "run_all"]
OverlapName = Literal["skip", "queue", "cancel_previous"]
ScheduleArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Id of the schedule.")]


@app.command("list")
def list_all(
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """List the schedules."""
    with service_at(url, token, data_dir) as client:
        rows = client.schedules()
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print("no schedules yet; make one with: bantam schedule create NAME '0 2 * * *' job.json")
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("id", "name", "cron", "time zone", "next run", "last job"):
        table.add_column(name)
    for row in rows:
        due = short_time(row.get("next_run_at")) if row.get("enabled") else "disabled"
        table.add_row(row["id"], Text(row["name"]), Text(row["cron"]), row["timezone"], due, row.get("last_job") or "")
    console.print(table)


@app.command()
def create(
    name: Annotated[str, typer.Argument()],
    cron: Annotated[str, typer.Argument(help="Five fields, such as '0 2 * * *'.")],
    file: Annotated[Path, typer.Argument(metavar="JOB.json")],
    timezone: Annotated[str, typer.Option(help="IANA name, such as Europe/Berlin.")] = "UTC",
    missed: Annotated[MissedName, typer.Option(help="About ticks at which no scheduler ran.")] = "run_once",
    overlap: Annotated[OverlapName, typer.Option(help="About a tick that finds the job before still there.")] = "skip",
    warm_start: Annotated[bool, typer.Option(help="Start from what the last good job has found.")] = True,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Submit a job again and again; local files are uploaded once, now. NAME@latest is looked up at each run."""
    with service_at(url, token, data_dir) as client:
        job = uploaded(client, file)
        policy = {"missed": missed, "overlap": overlap, "warm_start": warm_start}
        made = client.create_schedule({"name": name, "cron": cron, "timezone": timezone, "job": job, **policy})
    print_answer(made, f"schedule {made['id']} runs next at {made.get('next_run_at')}", as_json=as_json)


@app.command()
def runs(
    schedule: ScheduleArgument,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show what became of a schedule's ticks, newest first."""
    with service_at(url, token, data_dir) as client:
        rows = list(itertools.islice(client.schedule_runs(schedule), limit))
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print("no tick yet")
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("tick", "what", "job", "state", "outcome", "metric", "why"):
        table.add_column(column, no_wrap=column != "why")
    for row in rows:
        tick = short_time(row["tick"]) or "by hand"
        value = wording.metric((row["best"] or {}).get("metric")) if row["job"] else ""
        words = (row["decision"], row["job"] or "", row["state"] or "", row["outcome"] or "", value)
        table.add_row(tick, *words, Text(row["reason"] or row["job_reason"] or ""))
    console.print(table)


@app.command()
def delete(
    schedule: ScheduleArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Delete a schedule; its jobs stay."""
    with service_at(url, token, data_dir) as client:
        client.delete_schedule(schedule)
    console.print(Text(f"schedule {schedule} is deleted"))


@app.command()
def run(
    schedule: ScheduleArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Submit a schedule's job now, beside its timetable."""
    with service_at(url, token, data_dir) as client:
        job = client.run_schedule(schedule)
    print_answer(job, submitted(job), as_json=as_json)
