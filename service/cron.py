"""When a cron expression comes true in a time zone. Pure functions of their arguments; moments are epoch seconds, UTC.

Two rules for clocks that are put forward or back, told apart by the hour field:

- It names hours (`30 2 * * *`, `*/10 1-5 * * *`): the wall clock counts. A local time that comes twice is used the
  first time only; one that is skipped is made up for at the first moment after the gap, and several that fall into one
  gap are one tick.
- It begins with `*` (`0 * * * *`, `*/15 */2 * * *`): elapsed time counts. The hour that is repeated has its ticks like
  every other hour that passes, the one that is skipped has none.

These are the rules of Debian's cron, but for expressions such as `*/10 2 * * *`, which name an hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_EXAMPLE = "write five fields like `0 3 * * *` (daily at 03:00)"
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_LONGEST_GAP = timedelta(hours=25)  # Samoa skipped a day in 2011


class BadCron(ValueError):
    """The cron expression cannot be read, or never comes true."""


def next_run(cron: str, timezone: str, after: float) -> float:
    """The first tick after `after`. Raises BadCron."""
    return next(ticks(cron, timezone, after))


def ticks(cron: str, timezone: str, after: float) -> Iterator[float]:
    """All ticks after `after`, in order, each once. Raises BadCron; also when it never comes true any more."""
    fields = cron.split()
    if len(fields) != 5:
        raise BadCron(f"{cron!r}: it has {len(fields)} fields; {_EXAMPLE}")
    zone = ZoneInfo(timezone)
    start = datetime.fromtimestamp(after, UTC).replace(tzinfo=None, microsecond=0)
    walk = _by_elapsed_time if fields[1].startswith("*") else _by_wall_clock
    try:
        for moment in walk(cron, zone, start):
            yield moment.replace(tzinfo=UTC).timestamp()
    except CronSimError as error:
        raise BadCron(f"{cron!r}: {error}; {_EXAMPLE}") from error
    raise BadCron(f"{cron!r}: it never comes true; {_EXAMPLE}")


def last_ticks(cron: str, timezone: str, *, first: float, until: float, most: int) -> list[float]:
    """The last `most` ticks in [first, until]; looks at little more than those, however long ago `first` is."""
    window = 3600.0
    while True:
        start = max(first, until - window)
        found = []
        for tick in ticks(cron, timezone, start - 1):
            if tick > until:
                break
            if tick >= start:
                found.append(tick)
        if len(found) >= most or start == first:
            return found[-most:]
        window *= 2


# Below, times without a zone: moments are UTC, `local` is what a clock on the wall shows.


def _by_wall_clock(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    changed_lately = _offset(zone, after - _LONGEST_GAP) != _offset(zone, after)
    last = after
    for local in CronSim(cron, after + _offset(zone, after) - (_LONGEST_GAP if changed_lately else timedelta())):
        moment = _first_moment(zone, local)
        if moment > last:
            yield moment
            last = moment


def _first_moment(zone: ZoneInfo, local: datetime) -> datetime:
    """The first time that a clock on the wall shows `local`, or the end of the gap that swallows it."""
    while True:
        moment = local.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None)
        if moment + _offset(zone, moment) == local:
            return moment
        local += _MINUTE


def _by_elapsed_time(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    begin, offset = after, _offset(zone, after)
    clock = CronSim(cron, begin + offset)
    while (local := next(clock, None)) is not None:
        moment = local - offset
        change = _next_change(zone, begin, moment)
        if change is None:
            yield moment
            begin = moment
        else:
            begin, offset = change, _offset(zone, change)
            clock = CronSim(cron, begin + offset - _SECOND)


def _next_change(zone: ZoneInfo, begin: datetime, until: datetime) -> datetime | None:
    """The first moment in (begin, until] with another offset than `begin`, to the second."""
    offset, low = _offset(zone, begin), begin
    while low < until:
        high = min(low + _DAY, until)
        if _offset(zone, high) != offset:
            while high - low > _SECOND:
                middle = low + timedelta(seconds=(high - low).total_seconds() // 2)
                low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
            return high
        low = high
    return None


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return offset
