"""How a job's best got better over time: one row where a curve changes, read at a bounded number of points."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, func, insert, select

from service.tables import curve_points

Curve = Literal["best", "hypervolume"]


def add_point(connection: Connection, job_id: str, curve: Curve, elapsed_s: float, document: dict[str, Any]) -> None:
    """elapsed_s: seconds that coordinators have spent on the job. The caller's transaction holds the job's row."""
    row = {"job_id": job_id, "curve": curve, "ordinal": _count(connection, job_id, curve)}
    connection.execute(insert(curve_points).values(**row, elapsed_s=elapsed_s, document=document))


def read_curve(connection: Connection, job_id: str, curve: Curve, points: int) -> list[dict[str, Any]]:
    """At most `points` (2 or more) of the curve's changes in their order, the first and the last among them.

    Cost: `points` look-ups by primary key, however many changes there were.
    """
    ordinals = spread(_count(connection, job_id, curve), points)
    query = (
        select(curve_points.c.elapsed_s, curve_points.c.document)
        .where(curve_points.c.job_id == job_id, curve_points.c.curve == curve, curve_points.c.ordinal.in_(ordinals))
        .order_by(curve_points.c.ordinal)
    )
    return [{"elapsed_s": round(row.elapsed_s, 3), **row.document} for row in connection.execute(query)]


def last_point(connection: Connection, job_id: str, curve: Curve) -> dict[str, Any]:
    """Empty without one."""
    query = (
        select(curve_points.c.document)
        .where(curve_points.c.job_id == job_id, curve_points.c.curve == curve)
        .order_by(curve_points.c.ordinal.desc())
        .limit(1)
    )
    document: dict[str, Any] = connection.execute(query).scalar_one_or_none() or {}
    return document


def spread(count: int, most: int) -> list[int]:
    """At most `most` numbers below `count`, evenly spread, both ends among them.

    >>> spread(3, 10), spread(101, 3)
    ([0, 1, 2], [0, 50, 100])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _count(connection: Connection, job_id: str, curve: Curve) -> int:
    query = select(func.max(curve_points.c.ordinal)).where(
        curve_points.c.job_id == job_id, curve_points.c.curve == curve
    )
    last = connection.execute(query).scalar_one()
    return 0 if last is None else int(last) + 1
