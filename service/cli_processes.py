"""Commands that become another process: serve, api, worker, scheduler, db upgrade, demo, export-study.

The command line stays light (no torch, no web framework, no SQL): it sets BANTAM_* variables and replaces itself with
the module that does the work, so that signals and the exit status are that module's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from service.cli_options import DEFAULT_DATA_DIR, DataDirOption, TokenOption, UrlOption, default_url, stored_token

HostOption = Annotated[str | None, typer.Option(help="Address to listen on. [BANTAM_HOST, 127.0.0.1]")]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on. [BANTAM_PORT, 8080]")]
StoreOption = Annotated[
    str | None, typer.Option("--database-url", help="Left out: SQLite in the data folder. [BANTAM_DATABASE_URL]")
]
FolderOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Token, database, files and cache. [BANTAM_DATA_DIR, bantam-data]")
]
database = typer.Typer(help="The service's database.", no_args_is_help=True)


def become(module: str, *arguments: str, **variables: object) -> None:
    """Replaces this process by `python -m module`. variables: BANTAM_* settings in lower case; None is left out."""
    given: Mapping[str, str] = {f"BANTAM_{k.upper()}": str(v) for k, v in variables.items() if v is not None}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], {**os.environ, **given})


def serve(
    host: HostOption = None,
    port: PortOption = None,
    data_dir: FolderOption = None,
    database_url: StoreOption = None,
    workers: Annotated[int | None, typer.Option(min=0, max=64, help="Worker processes. [BANTAM_WORKERS, 1]")] = None,
) -> None:
    """Run everything: API, worker and scheduler. Ctrl-C stops it cleanly."""
    become(
        "service.start", "serve", host=host, port=port, data_dir=data_dir, database_url=database_url, workers=workers
    )


def api(
    host: HostOption = None, port: PortOption = None, data_dir: FolderOption = None, database_url: StoreOption = None
) -> None:
    """Run the HTTP API alone; workers run elsewhere on the same database."""
    become("service.start", "api", host=host, port=port, data_dir=data_dir, database_url=database_url)


def worker(data_dir: FolderOption = None, database_url: StoreOption = None) -> None:
    """Run one worker: it takes jobs from the queue and searches."""
    become("service.worker", data_dir=data_dir, database_url=database_url)


def scheduler(data_dir: FolderOption = None, database_url: StoreOption = None) -> None:
    """Run the scheduler: it submits the jobs of due schedules."""
    become("service.scheduler", data_dir=data_dir, database_url=database_url)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only, remove nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
    data_dir: FolderOption = None,
    database_url: StoreOption = None,
) -> None:
    """Remove files that nothing needs any more; the scheduler does it by itself, bit by bit."""
    flags = [*(["--dry-run"] if dry_run else []), *(["--json"] if as_json else [])]
    become("service.gc", *flags, data_dir=data_dir, database_url=database_url)


@database.command("upgrade")
def upgrade(data_dir: FolderOption = None, database_url: StoreOption = None) -> None:
    """Bring the database's schema up to this release."""
    become("service.start", "migrate", data_dir=data_dir, database_url=database_url)


def demo(
    output: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo-output"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running at the end.")] = False,
) -> None:
    """See a whole search on handwritten digits: train, serve, upload, search, report."""
    become("service.demo", "--output", str(output), *(["--keep"] if keep else []))


def export_study(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, or 'last' for the newest.")],
    output: Annotated[Path, typer.Option(help="*.db for SQLite, anything else for an Optuna journal.")] = Path(
        "study.db"
    ),
    name: Annotated[str | None, typer.Option("--study-name", help="Left out: bantam-<job>.")] = None,
    url: UrlOption = None,
    token: TokenOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Write a job's trials as an Optuna study, for Optuna's own tools."""
    arguments = [job, "--output", str(output), *(["--study-name", name] if name else [])]
    become("service.export_study", *arguments, url=url or default_url(), token=token or stored_token(data_dir))
