"""What a coordinator has to say; the driver writes it to the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from search.ledger import LogLevel
from search.records import Baseline, Trial


@dataclass(frozen=True)
class Changed:
    """A trial is new or different."""

    trial: Trial


@dataclass(frozen=True)
class BaselineKnown:
    baseline: Baseline


@dataclass(frozen=True)
class FrontChanged:
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Logged:
    level: LogLevel
    message: str
    trial: int | None = None


Event = Changed | BaselineKnown | FrontChanged | Logged
