"""`bantam schedule`: jobs that submit themselves by a cron expression."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from service.cli_options import (
    DEFAULT_DATA_DIR,
    REFUSED,
    DataDirOption,
    JsonOption,
    TokenOption,
    UrlOption,
    complain,
    console,
    errors,
    print_json,
    service_at,
)
from service.job_file import BadJobFile, read_job, upload_files

app = typer.Typer(help="Jobs that submit themselves by a cron expression.", no_args_is_help=True)
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
        due = str(row.get("next_run_at") or "")[:16].replace("T", " ") if row.get("enabled") else "disabled"
        table.add_row(row["id"], Text(row["name"]), Text(row["cron"]), row["timezone"], due, row.get("last_job") or "")
    console.print(table)


@app.command()
def create(
    name: Annotated[str, typer.Argument()],
    cron: Annotated[str, typer.Argument(help="Five fields, such as '0 2 * * *'.")],
    file: Annotated[Path, typer.Argument(metavar="JOB.json")],
    timezone: Annotated[str, typer.Option(help="IANA name, such as Europe/Berlin.")] = "UTC",
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Submit a job again and again; local files are uploaded once, now."""
    with service_at(url, token, data_dir) as client:
        try:
            job = upload_files(client, read_job(file), file.parent, lambda f, p: errors.print(f"uploading {f}: {p}"))
        except BadJobFile as error:
            complain(error)
            raise typer.Exit(REFUSED) from error
        made = client.create_schedule({"name": name, "cron": cron, "timezone": timezone, "job": job})
    if as_json:
        print_json(made)
    else:
        console.print(Text(f"schedule {made['id']} runs next at {made.get('next_run_at')}"))


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
    if as_json:
        print_json(job)
    else:
        console.print(Text(f"job {job['id']} is {job['state']}\nfollow it with: bantam watch {job['id']}"))
