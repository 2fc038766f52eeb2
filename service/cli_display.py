"""A job on a terminal: live while it runs, and the table of baseline against best at its end (rich)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service import wording
from service.cli_options import short_time
from service.client import Client
from service.client_calls import FINAL_STATES

Json = dict[str, Any]
STAGES = ("profile", "cheap", "sensitivity", "search", "confirm")
POLL_S = 0.5
SHOWN_TRIALS = 8
_STYLES = {"completed": "green", "running": "blue", "gated": "dim", "stopped": "dim", "failed": "red"}


def follow(client: Client, job_id: str, console: Console, *, poll_s: float = POLL_S) -> Json:
    """Shows the job until it has ended and returns it: a live picture on a terminal, one line per news elsewhere."""
    trials: dict[int, Json] = {}
    rev, said = 0, ""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            job = client.job(job_id)
            delta = client.trials(job_id, after_rev=rev, limit=1000)
            rev = delta.next
            trials.update((int(t["number"]), t) for t in delta.items)
            if console.is_terminal:
                live.update(picture(job, trials), refresh=True)
            elif (line := progress_line(job)) != said:
                console.print(Text(line), soft_wrap=True)
                said = line
            if job["state"] in FINAL_STATES:
                return job
            time.sleep(poll_s)


def picture(job: Json, trials: dict[int, Json]) -> RenderableType:
    progress = job.get("progress") or {}
    share = _share(job)
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(job.get("name") or job["id"], style="bold"), ProgressBar(total=1.0, completed=share, width=32), _left(job)
    )
    stage = str(progress.get("stage", ""))
    steps = Text("  ").join(
        Text(name, style="bold blue" if name == stage else "dim" if _at(name) > _at(stage) else "green")
        for name in STAGES
    )
    latest = sorted(trials.values(), key=lambda t: -int(t["rev"]))[:SHOWN_TRIALS]
    parts: list[RenderableType] = [head, steps, Text()]
    budget = budget_table(job)
    if budget.row_count:
        parts += [budget, Text()]
    if latest:
        parts.append(trials_table(sorted(latest, key=lambda t: -int(t["number"]))))
    return Group(*parts)


def progress_line(job: Json) -> str:
    """`search: 12 of 40 trials, best is trial 8: top-1 accuracy 0.8754, latency 0.408×, size 0.237×`."""
    progress, best = job.get("progress") or {}, job.get("best")
    text = (
        f"{progress.get('stage') or job['state']}: {progress.get('finished', 0)} of {progress.get('planned', 0)} trials"
    )
    if best:
        text += (
            f", best is trial {best['trial']}: {wording.metric_name(job)} {wording.metric(best['metric'])}, "
            f"latency {wording.ratio(best['latency_ratio'])}, size {wording.ratio(best['size_ratio'])}"
        )
    return text


def budget_table(job: Json) -> Table:
    table = Table.grid(padding=(0, 2))
    for line in wording.budget_lines((job.get("spec") or {}).get("budget"), job.get("baseline"), job.get("best")):
        style = {"within": "green", "over": "yellow", "unknown": "dim"}[line.state]
        bar = ProgressBar(total=line.limit or 1.0, completed=min(line.value or 0.0, line.limit), width=24)
        bar.complete_style = bar.finished_style = style
        table.add_row(
            line.label, bar, Text(line.value_text, style=style), Text(f"limit {line.limit_text}", style="dim")
        )
    return table


def trials_table(trials: Sequence[Json]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("trial", "state", "metric", "latency", "size"):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    table.add_column("recipe", overflow="ellipsis", no_wrap=True, ratio=1)
    for trial in trials:
        style = _STYLES.get(str(trial["state"]), "")
        table.add_row(
            str(trial["number"]),
            Text(str(trial["state"]), style=style),
            wording.metric(trial.get("metric")),
            wording.ratio((trial.get("latency") or {}).get("ratio")),
            wording.ratio(trial.get("size_ratio")),
            Text(trial.get("reason") or wording.recipe(trial.get("recipe"))),
        )
    return table


def jobs_table(jobs: Sequence[Json], width: int = 120) -> Table:
    """width: of the terminal; a narrow one gets no times, so that ids stay whole."""
    wide = width >= 100
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    longest = max((len(str(job["id"])) for job in jobs), default=0)
    table.add_column("id", no_wrap=True, min_width=longest)  # whole: it is there to be copied
    table.add_column("name", no_wrap=True, overflow="ellipsis", min_width=8)
    table.add_column("state", no_wrap=True, min_width=10)
    for name in ("trials", "metric", "latency", "size"):
        table.add_column(name, justify="right", no_wrap=True, min_width=6)
    if wide:
        table.add_column("created", no_wrap=True)
    for job in jobs:
        best, progress = job.get("best") or {}, job.get("progress") or {}
        table.add_row(
            str(job["id"]),
            Text(str(job.get("name") or "")),
            state_text(job),
            f"{progress.get('finished', 0)}/{progress.get('planned', 0)}",
            wording.metric(best.get("metric")),
            wording.ratio(best.get("latency_ratio")),
            wording.ratio(best.get("size_ratio")),
            *([short_time(job.get("created_at"))] if wide else []),
        )
    return table


def state_text(job: Json) -> Text:
    if job["state"] == "succeeded":
        met = job.get("outcome") == "feasible"
        return Text("budget met" if met else "nearest miss", style="green" if met else "yellow")
    return Text(str(job["state"]), style={"failed": "red", "running": "blue"}.get(str(job["state"]), "dim"))


def comparison_table(job: Json, report: Json | None = None) -> Table:
    """Baseline against the best candidate. report: of a succeeded job; it knows the baseline's metric on test."""
    before, best = job.get("baseline") or {}, job.get("best") or {}
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("")
    for column in ("uncompressed", f"trial {best.get('trial', '?')}", "change"):
        table.add_column(column, justify="right")
    name = wording.metric_name(job)
    change = "" if not before or not best else f"{best['metric'] - before['metric']:+.4f}"
    table.add_row(
        f"{name}, validation", wording.metric(before.get("metric")), wording.metric(best.get("metric")), change
    )
    if best.get("test_metric") is not None:
        test = ((report or {}).get("test") or {}).get("baseline_metric")
        change = "" if test is None else f"{best['test_metric'] - test:+.4f}"
        table.add_row(f"{name}, test", wording.metric(test), wording.metric(best["test_metric"]), change)
    table.add_row(
        "latency, p50",
        wording.milliseconds(before.get("latency_ms")),
        wording.milliseconds(best.get("latency_ms")),
        wording.ratio(best.get("latency_ratio")),
    )
    table.add_row(
        "size",
        wording.file_size(before.get("size_bytes")),
        wording.file_size(best.get("size_bytes")),
        wording.ratio(best.get("size_ratio")),
    )
    return table


def print_outcome(job: Json, console: Console, report: Json | None = None) -> None:
    """How a job ended, in the words and numbers that matter."""
    console.print(Text(job.get("name") or job["id"], style="bold"), state_text(job))
    if job.get("reason"):
        console.print(Text(str(job["reason"])), soft_wrap=True)
    if job.get("best"):
        console.print()
        console.print(comparison_table(job, report))
        for row in job["best"].get("violations") or ():
            console.print(Text(wording.violation(row), style="yellow"))


def _share(job: Json) -> float:
    progress = job.get("progress") or {}
    elapsed, left = progress.get("elapsed_s") or 0.0, progress.get("eta_s")
    if job["state"] == "succeeded":
        return 1.0
    if left is not None and elapsed + left > 0:
        return float(elapsed / (elapsed + left))
    planned = progress.get("planned") or 0
    return min(1.0, float(progress.get("finished", 0) / planned)) if planned else 0.0


def _left(job: Json) -> Text:
    progress = job.get("progress") or {}
    text = f"{progress.get('finished', 0)} of {progress.get('planned', 0)} trials"
    if progress.get("eta_s") is not None:
        text += f", {wording.seconds(progress['eta_s'])} left"
    return Text(text, style="dim")


def _at(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else -1
