"""What becomes of the ticks of a schedule, decided without a database. Moments are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Missed = Literal["run_once", "skip", "run_all"]
Overlap = Literal["skip", "queue", "cancel_previous"]
Decision = Literal["submitted", "waiting", "skipped", "missed", "refused"]
LATE_S = 60.0  # a tick that is seen later than this was missed: no scheduler ran, or the database was away
MAX_CAUGHT_UP = 24  # jobs that `run_all` makes up for
MAX_WAITING = 24  # ticks of one schedule that `queue` keeps
MAX_LISTED = 100  # missed ticks that are put down one by one


@dataclass(frozen=True)
class DueTick:
    """missed: why it gets no job; None if it is to run."""

    tick: float
    missed: str | None


def plan(due: Sequence[float], first: float, missed: Missed, now: float) -> list[DueTick]:
    """What to do about the ticks that have come, oldest first.

    due: the last MAX_LISTED of them. first: the oldest of all; `due` begins with it unless there were more.
    """
    last = due[-1]
    late = now - last > LATE_S
    if missed == "run_all":
        run = set(due[-MAX_CAUGHT_UP:])
        reason = f"missed; run_all makes up for the last {MAX_CAUGHT_UP}"
    elif missed == "skip" and late:
        run = set()
        reason = "missed: no scheduler ran at that time, and missed ticks are skipped"
    else:
        run = {last}
        stands_in = "a later tick was on time" if missed == "skip" else f"the run of {_time(last)} stands for it"
        reason = f"missed: no scheduler ran at that time; {stands_in}"
    planned = [DueTick(tick, None if tick in run else reason) for tick in due]
    if due[0] > first and planned[0].missed is not None:
        unlisted = f"{planned[0].missed}. So were those from {_time(first)} on, which are not listed"
        planned[0] = DueTick(due[0], unlisted)
    return planned


@dataclass(frozen=True)
class Turn:
    """What a tick does: `submitted` now (after the jobs in `cancel` are cancelled), `waiting`, or `skipped`."""

    decision: Decision
    reason: str | None = None
    cancel: tuple[str, ...] = ()


def turn(overlap: Overlap, active: Sequence[tuple[str, str]], waiting: int, *, catching_up: bool) -> Turn:
    """active: (id, state) of the schedule's jobs that have not ended. waiting: ticks before this one that wait.

    catching_up: an earlier tick of the same round has been submitted; ticks made up for run one after another,
    whatever `overlap` says.
    """
    if not active and not waiting:
        return Turn("submitted")
    names = ", ".join(f"job {job_id} is {state}" for job_id, state in active) or f"{waiting} ticks wait before it"
    if overlap == "queue" or catching_up:
        if waiting >= MAX_WAITING:
            return Turn("skipped", f"{names}, and {MAX_WAITING} ticks wait already")
        return Turn("waiting", f"waits for its turn: {names}")
    if overlap == "skip":
        return Turn("skipped", f"overlap: {names}")
    cancel = tuple(job_id for job_id, _ in active)
    return Turn("submitted", f"cancelled {', '.join(cancel)}" if cancel else None, cancel)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
