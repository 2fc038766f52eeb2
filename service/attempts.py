"""The attempts at a job: which worker held it, from when to when, and why it ended. A short list in the job's row.

Every function takes the list as the row has it (None: empty) and returns a new one for the same transaction to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

KEPT = 20  # of the newest ones; a job that is paused every night for a year must not outgrow its row
_LONGEST_REASON = 500

Attempts = Sequence[dict[str, Any]]


def begun(attempts: Attempts | None, worker: str, now: float) -> list[dict[str, Any]]:
    """With a new one that is under way. now: seconds since the epoch by the database's clock."""
    new = {"worker": worker, "started_at": now, "ended_at": None, "reason": None}
    return [*(attempts or ()), new][-KEPT:]


def ended(attempts: Attempts | None, now: float, reason: str) -> list[dict[str, Any]]:
    """With the one that is under way ended; the same if there is none."""
    known = [*(attempts or ())]
    if known and known[-1]["ended_at"] is None:
        known[-1] = {**known[-1], "ended_at": now, "reason": reason[:_LONGEST_REASON]}
    return known
