"""What is wrong with a job, by field: the form in which checks report to whoever submitted it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """field: path into the job specification, e.g. 'data.inputs[0]'. message: value, limit and remedy."""

    field: str
    message: str
