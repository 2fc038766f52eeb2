"""Commands that speak to the service about jobs: submit, jobs, watch, best, cancel, pause, resume, retry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from service import wording
from service.cli_display import comparison_table, follow, jobs_table, print_outcome, state_text
from service.cli_options import (
    DEFAULT_DATA_DIR,
    REFUSED,
    DataDirOption,
    FeasibleOption,
    JobArgument,
    JsonOption,
    TokenOption,
    UrlOption,
    complain,
    console,
    errors,
    exit_status,
    print_answer,
    print_json,
    resolve,
    service_at,
    submitted,
    uploaded,
)
from service.client import Client
from service.client_flow import Json


def submit(
    file: Annotated[
        Path, typer.Argument(metavar="JOB.json", help="JobSpec as JSON or YAML; model and data may be paths.")
    ],
    watch_it: Annotated[bool, typer.Option("--watch", help="Stay and show the progress until the job ends.")] = False,
    key: Annotated[
        str | None, typer.Option("--idempotency-key", help="The same key never starts a second job.")
    ] = None,
    require_feasible: FeasibleOption = False,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Send a job; local model and data files are uploaded first."""
    with service_at(url, token, data_dir) as client:
        job = uploaded(client, file)
        made = client.submit(job, idempotency_key=key)
        if not watch_it:
            print_answer(made, submitted(made), as_json=as_json)
            return
        errors.print(Text(f"job {made['id']}"))
        _watch(client, str(made["id"]), as_json, require_feasible)


def jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with service_at(url, token, data_dir) as client:
        rows = client.jobs(state=state, limit=limit)
    if as_json:
        print_json(rows)
    elif rows:
        console.print(jobs_table(rows, console.width))
    else:
        console.print("no jobs yet; send one with: bantam submit job.json")


def watch(
    job: JobArgument = "last",
    require_feasible: FeasibleOption = False,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show a job's progress until it ends. Ctrl-C stops watching, not the job."""
    with service_at(url, token, data_dir) as client:
        _watch(client, resolve(client, job), as_json, require_feasible)


def best(
    job: JobArgument = "last",
    download: Annotated[Path | None, typer.Option(help="Write the winner's file here.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Write the uncompressed export here.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the HTML report here.")] = None,
    require_feasible: FeasibleOption = False,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show the best candidate of a job; fetch its file and report."""
    with service_at(url, token, data_dir) as client:
        job_id = resolve(client, job)
        found = client.job(job_id)
        if not found.get("best"):
            complain(f"job {job_id} is {found['state']} and has no measured candidate yet\n  -> bantam watch {job_id}")
            raise typer.Exit(REFUSED)
        trial = client.trial(job_id, int(found["best"]["trial"]))
        findings = client.report(job_id) if found["state"] == "succeeded" else None
        written = _fetch(client, job_id, download, baseline, report)
    if as_json:
        print_json({"job": found, "trial": trial, "files": written})
    else:
        console.print(Text(found.get("name") or job_id, style="bold"), state_text(found))
        console.print(comparison_table(found, findings))
        console.print(Text(f"recipe: {wording.recipe(trial.get('recipe'))}"), soft_wrap=True)
        for row in found["best"].get("violations") or ():
            console.print(Text(wording.violation(row), style="yellow"), soft_wrap=True)
        for path, note in written.items():
            console.print(Text(f"wrote {path} {note}".rstrip()), soft_wrap=True)
    if require_feasible and not found["best"].get("feasible"):
        raise typer.Exit(1)


def cancel(
    job: JobArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """End a job; finished trials stay."""
    _steer(Client.cancel, job, url, token, data_dir, as_json)


def pause(
    job: JobArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Stop a job for now; `bantam resume` goes on with it."""
    _steer(Client.pause, job, url, token, data_dir, as_json)


def resume(
    job: JobArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Go on with a paused job."""
    _steer(Client.resume, job, url, token, data_dir, as_json)


def retry(
    job: JobArgument,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Queue a failed or cancelled job again; it goes on from its finished trials."""
    _steer(Client.retry, job, url, token, data_dir, as_json)


def _steer(
    wish: Callable[[Client, str], Json], job: str, url: str | None, token: str | None, data_dir: Path, as_json: bool
) -> None:
    with service_at(url, token, data_dir) as client:
        changed = wish(client, resolve(client, job))
    asked = changed.get("directive")
    soon = f", will {asked}" if changed["state"] == "running" and asked not in (None, "run") else ""
    print_answer(changed, f"job {changed['id']} is {changed['state']}{soon}", as_json=as_json)


def _watch(client: Client, job_id: str, as_json: bool, require_feasible: bool) -> None:
    try:
        job = follow(client, job_id, errors if as_json else console)
        report = client.report(job_id) if job["state"] == "succeeded" else None
    except KeyboardInterrupt as error:
        errors.print(Text(f"stopped watching; the job goes on. Cancel it with: bantam cancel {job_id}"))
        raise typer.Exit(130) from error
    if as_json:
        print_json(job)
    else:
        print_outcome(job, console, report)
        if job.get("outcome"):
            console.print(Text(f"\nits files: bantam best {job_id} --download winner.onnx --report report.html"))
    status = exit_status(job, require_feasible=require_feasible)
    if status:
        raise typer.Exit(status)


def _fetch(
    client: Client, job_id: str, download: Path | None, baseline: Path | None, report: Path | None
) -> dict[str, str]:
    written = {}
    if download is not None:
        written[str(download)] = f"sha256 {client.download_artifact(job_id, download)}"
    if baseline is not None:
        written[str(baseline)] = f"sha256 {client.download_artifact(job_id, baseline, which='baseline')}"
    if report is not None:
        report.write_text(client.report_html(job_id), encoding="utf-8")
        written[str(report)] = ""
    return written
