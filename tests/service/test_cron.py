"""Ticks against a second, slow way to find them: every minute around a change of the clocks is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, product, takewhile
from zoneinfo import ZoneInfo

import pytest

from service.cron import BadCron, last_ticks, next_run, ticks

MINUTE = timedelta(minutes=1)
# (zone, a day on which its clocks change): an hour forward and back, half an hour, two hours, at midnight, a whole day.
CHANGES = (
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Europe/Dublin", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Santiago", "2025-09-07"),
    ("America/Santiago", "2025-04-05"),
    ("America/Havana", "2025-03-09"),
    ("America/Havana", "2025-11-02"),
    ("Asia/Beirut", "2024-03-31"),
    ("Antarctica/Troll", "2024-03-31"),
    ("Antarctica/Troll", "2024-10-27"),
    ("Pacific/Apia", "2011-12-30"),
    ("Asia/Kathmandu", "2026-03-29"),
    ("UTC", "2026-03-29"),
)
MINUTES = {"30": {30}, "0,30": {0, 30}, "*/15": {0, 15, 30, 45}}
HOURS = {
    "*": set(range(24)),
    "*/2": set(range(0, 24, 2)),
    "*/23": {0, 23},
    "1": {1},
    "2": {2},
    "23,0,1": {23, 0, 1},
}


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Minute:
    """local: what the clock shows. reached: local times that it shows or has passed now for the first time."""

    moment: float
    local: datetime
    reached: list[datetime]


def every_minute(zone: str, start: datetime, stop: datetime) -> list[Minute]:
    """Of (start, stop]."""
    found = []
    now = start - timedelta(days=2)
    latest = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    while (now := now + MINUTE) <= stop:
        local = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        reached = [latest + n * MINUTE for n in range(1, (local - latest) // MINUTE + 1)]
        latest = max(latest, local)
        if now > start:
            found.append(Minute(now.timestamp(), local, reached))
    return found


def expected(minute: str, hour: str, minutes: Sequence[Minute]) -> list[float]:
    """Ticks of an expression that names every day."""

    def fits(local: datetime) -> bool:
        return local.minute in MINUTES[minute] and local.hour in HOURS[hour]

    return [m.moment for m in minutes if any(map(fits, [m.local] if hour.startswith("*") else m.reached))]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_ticks_around_a_change_of_the_clocks(zone: str, day: str) -> None:
    middle = datetime.fromisoformat(day).replace(tzinfo=UTC)
    start, stop = middle - timedelta(days=1), middle + timedelta(hours=36)
    minutes = every_minute(zone, start, stop)
    for minute, hour in product(MINUTES, HOURS):
        wanted = expected(minute, hour, minutes)
        cron = f"{minute} {hour} * * *"
        found = list(takewhile(lambda t: t <= stop.timestamp(), ticks(cron, zone, start.timestamp())))
        assert found == wanted, (cron, zone)
        for begin in range(int(start.timestamp()), int(wanted[-1]), 7 * 780):  # the same wherever one starts to look
            assert next_run(cron, zone, begin) == next(t for t in wanted if t > begin), (cron, zone, begin)


@pytest.mark.parametrize(
    ("cron", "zone", "after", "due"),
    [
        ("0 3 * * *", "UTC", "2026-03-01 00:00", "2026-03-01 03:00"),
        ("0 3 * * *", "UTC", "2026-03-01 03:00", "2026-03-02 03:00"),
        ("0 3 * * *", "Europe/Berlin", "2026-01-10 00:00", "2026-01-10 02:00"),
        ("0 3 * * *", "Europe/Berlin", "2026-07-10 00:00", "2026-07-10 01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 01:00"),  # 02:30 does not exist: 03:00 CEST
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 00:30", "2026-10-26 01:30"),  # 02:30 comes twice, ticks once
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:15", "2026-10-26 01:30"),  # asked within the second 02:00-03:00
        ("*/15 * * * *", "Asia/Kolkata", "2026-03-01 00:07", "2026-03-01 00:15"),
        ("0 0 29 2 *", "UTC", "2026-03-01 00:00", "2028-02-29 00:00"),
        ("30 * 4 4 *", "America/Santiago", "2026-04-05 02:30", "2026-04-05 03:30"),  # the day's last hour comes twice
    ],
)
def test_the_next_tick_follows_the_local_clock(cron: str, zone: str, after: str, due: str) -> None:
    assert next_run(cron, zone, epoch(after)) == epoch(due)


@pytest.mark.parametrize("cron", ["* * *", "61 * * * *", "0 0 30 2 *", "daily", "* * * * * *", ""])
def test_a_bad_expression_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(BadCron, match="0 3"):
        next_run(cron, "UTC", 0)


def test_the_last_ticks_of_a_long_time_cost_no_more_than_those() -> None:
    until = epoch("2026-03-01 00:00")
    minutes = last_ticks("* * * * *", "Europe/Berlin", first=0, until=until, most=100)
    assert minutes == [until - 60 * n for n in reversed(range(100))]
    assert last_ticks("0 3 * * *", "UTC", first=epoch("2026-02-27 03:00"), until=until, most=100) == [
        epoch("2026-02-27 03:00"),
        epoch("2026-02-28 03:00"),
    ]
    assert last_ticks("0 3 * * *", "UTC", first=until, until=until, most=100) == []


def test_days_of_the_week() -> None:
    found = list(islice(ticks("0 3 * * 1-5", "UTC", epoch("2026-03-06 00:00")), 3))
    assert found == [epoch(f"2026-03-{day} 03:00") for day in ("06", "09", "10")]
