"""The `bantam` command. Each command lives in the `cli_*` module of its kind; importing them loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer

from service import cli_access, cli_check, cli_compress, cli_jobs, cli_pack, cli_processes, cli_schedule, cli_webhook

app = typer.Typer(
    name="bantam",
    help="Fits a trained PyTorch model into a latency, size and accuracy budget, and proves it by measurement.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RUN: Sequence[Callable[..., None]] = (
    cli_processes.demo,
    cli_processes.serve,
    cli_processes.api,
    cli_processes.worker,
    cli_processes.scheduler,
    cli_processes.gc,
)
_JOBS: Sequence[Callable[..., None]] = (
    cli_check.check,
    cli_compress.compress,
    cli_pack.pack,
    cli_pack.unpack,
    cli_jobs.submit,
    cli_jobs.jobs,
    cli_jobs.watch,
    cli_jobs.best,
    cli_jobs.cancel,
    cli_jobs.pause,
    cli_jobs.resume,
    cli_jobs.retry,
    cli_access.delete,
    cli_processes.export_study,
)
for _command in _RUN:
    app.command(rich_help_panel="Run")(_command)
for _command in _JOBS:
    app.command(rich_help_panel="Jobs")(_command)
app.command(rich_help_panel="Access")(cli_access.audit)
app.add_typer(cli_access.tokens, name="token", rich_help_panel="Access")
app.add_typer(cli_access.projects, name="project", rich_help_panel="Access")
app.add_typer(cli_processes.database, name="db", rich_help_panel="Run")
app.add_typer(cli_schedule.app, name="schedule", rich_help_panel="Jobs")
app.add_typer(cli_webhook.app, name="webhook", rich_help_panel="Jobs")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
