"""What the commands share: how to find the service, how to print, and what an exit status means.

0 done · 1 the job failed or (with --require-feasible) missed its budget · 2 refused or wrongly called · 3 no answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.client import DEFAULT_URL, Client
from service.client_errors import ClientError, ServiceUnreachable
from service.client_flow import Json
from service.job_file import BadJobFile, read_job, upload_files

FAILED: Final = 1
REFUSED: Final = 2
UNREACHABLE: Final = 3
DEFAULT_DATA_DIR: Final = Path("bantam-data")

console = Console()
errors = Console(stderr=True)

UrlOption = Annotated[str | None, typer.Option("--url", envvar="BANTAM_URL", help="Address of the service.")]
TokenOption = Annotated[
    str | None, typer.Option("--token", envvar="BANTAM_TOKEN", help="Left out: read from <data-dir>/token.")
]
DataDirOption = Annotated[
    Path, typer.Option("--data-dir", envvar="BANTAM_DATA_DIR", help="The service's data folder on this machine.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
FeasibleOption = Annotated[
    bool, typer.Option("--require-feasible", help="Exit with 1 if the job ends without meeting its budget.")
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, or 'last' for the newest.")]


@dataclass(frozen=True)
class Address:
    """Where the service is and what opens it."""

    url: str | None
    token: str | None
    data_dir: Path

    def client(self) -> Client:
        return Client(self.url or default_url(), self.token or stored_token(self.data_dir))


def default_url() -> str:
    """The address that `bantam serve` takes with the same environment."""
    port = os.environ.get("BANTAM_PORT")
    return f"http://127.0.0.1:{port}" if port else DEFAULT_URL


def stored_token(data_dir: Path) -> str | None:
    """The token that the service wrote; None when this machine or this user cannot read it."""
    try:
        return (data_dir / "token").read_text().strip() or None
    except OSError:
        return None


@contextmanager
def service_at(url: str | None, token: str | None, data_dir: Path) -> Iterator[Client]:
    """A client whose errors end the command with their next step and the right exit status."""
    try:
        with Address(url, token, data_dir).client() as client:
            yield client
    except ServiceUnreachable as error:
        complain(error)
        raise typer.Exit(UNREACHABLE) from error
    except ClientError as error:
        complain(error)
        raise typer.Exit(REFUSED) from error


def complain(error: object) -> None:
    """Plain text: what the service says is never read as markup."""
    errors.print("error:", style="bold red", end=" ")
    errors.print(str(error), markup=False, highlight=False, soft_wrap=True)


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2))


def print_answer(document: Any, text: str, *, as_json: bool) -> None:
    """What a call made or changed: the document, or what it means in words."""
    if as_json:
        print_json(document)
    else:
        console.print(Text(text), soft_wrap=True)


def print_rows(rows: list[Json], columns: dict[str, Callable[[Json], str]], when_empty: str, *, as_json: bool) -> None:
    """A list: the documents, or a table with a column per name."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print(when_empty)
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=name in ("id", "time"), overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(shown(row))) for shown in columns.values()))
    console.print(table)


def short_time(value: str | None, *, seconds: bool = False) -> str:
    """`2026-01-05 10:00`, in UTC."""
    return str(value or "")[: 19 if seconds else 16].replace("T", " ")


def uploaded(client: Client, file: Path) -> Json:
    """The job in a file, with ids in the place of local files, which are uploaded. Exits with 2 for a bad file."""
    try:
        return upload_files(client, read_job(file), file.parent, lambda f, p: errors.print(f"uploading {f}: {p}"))
    except BadJobFile as error:
        complain(error)
        raise typer.Exit(REFUSED) from error


def submitted(job: Json) -> str:
    """What to say of a job that was queued just now."""
    return f"job {job['id']} is {job['state']}\nfollow it with: bantam watch {job['id']}"


def resolve(client: Client, job: str) -> str:
    """The id; 'last' is the newest job. Exits with 2 when there is none."""
    if job != "last":
        return job
    newest = client.jobs(limit=1)
    if not newest:
        complain("there is no job yet\n  -> send one with `bantam submit job.json`")
        raise typer.Exit(REFUSED)
    return str(newest[0]["id"])


def exit_status(job: dict[str, Any], *, require_feasible: bool) -> int:
    if job.get("state") != "succeeded":
        return FAILED
    return FAILED if require_feasible and job.get("outcome") != "feasible" else 0
