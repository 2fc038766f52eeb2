"""Writing trials of a leased job: two statements in one short transaction, whatever the number of trials.

Statements are made once, and documents become text before the transaction begins: what a writer does while it holds
the lock is what limits how many trials a second the store takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, case, select, update
from sqlalchemy.dialects import postgresql, sqlite

from search.records import Trial
from service.curves import add_point, last_point
from service.database import Encoded, db_now, dump_json
from service.tables import jobs, trials
from service.trial_summary import summary

_KEY = ["job_id", "number"]
_WRITTEN = ("rev", "state", "metric", "feasible", "document", "summary", "updated_at")
_COLUMNS = ("job_id", "number", "on_front", *_WRITTEN)

_change_job = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.lease_token == bindparam("token"))
    .values(
        rev=jobs.c.rev + 1,
        trial_counts=bindparam("counts"),
        # A trial that has ended shows that the job does not kill its workers.
        lease_losses=case((bindparam("runs") == 1, jobs.c.lease_losses), else_=0),
    )
    .returning(jobs.c.rev)
)
_raise_rev = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.lease_token == bindparam("token"))
    .values(rev=jobs.c.rev + bindparam("by"))
    .returning(jobs.c.rev)
)
_change_front = (
    update(trials)
    .where(trials.c.job_id == bindparam("job"), trials.c.number == bindparam("of"))
    .values(on_front=bindparam("is_on"), rev=bindparam("at_rev"), updated_at=db_now())
)


def _put() -> Insert:
    """SQLite: after `_change_job`, in the same transaction."""
    row: dict[str, Any] = {name: bindparam(name) for name in _COLUMNS if name != "updated_at"}
    statement = sqlite.insert(trials).values(**row, updated_at=db_now())
    return statement.on_conflict_do_update(index_elements=_KEY, set_=_overwritten(statement))


def _put_at_once() -> Insert:
    """PostgreSQL: both in one statement, which spares three of the four ways to the server and back."""
    job = _change_job.cte("job")
    columns = [trials.c[name] for name in _COLUMNS]
    made = {"rev": job.c.rev, "updated_at": db_now()}
    row: list[Any] = [made.get(c.name, bindparam(f"new_{c.name}", type_=c.type)) for c in columns]
    statement = postgresql.insert(trials).from_select([c.name for c in columns], select(*row).select_from(job))
    upsert = statement.on_conflict_do_update(index_elements=_KEY, set_=_overwritten(statement))
    return upsert.returning(trials.c.rev)


def _overwritten(statement: Any) -> dict[str, Any]:
    """The place on the front is not the trial's own: only `put_front` changes it."""
    return {name: statement.excluded[name] for name in _WRITTEN}


_put_on_sqlite = _put()
_put_on_postgresql = _put_at_once()


@dataclass(frozen=True)
class TrialRow:
    """A trial ready to be written."""

    values: dict[str, Any]
    elapsed_s: float | None
    hypervolume: float | None


class TrialWriter:
    """Calls belong into the caller's transaction and return False when the lease is over.

    Only the holder of the lease writes trials, so it knows by heart which state each is in and which are on the
    front, and no write has to count or look. After a failed transaction call `forget`.
    """

    def __init__(self, job_id: str, token: int) -> None:
        self._job_id = job_id
        self._lease = {"job": job_id, "token": token}
        self._states: dict[int, str] | None = None
        self._counts: Counter[str] = Counter()
        self._front: set[int] = set()
        self._hypervolume: float | None = None

    def forget(self) -> None:
        self._states = None

    def row(self, trial: Trial) -> TrialRow:
        """To be made before the transaction begins."""
        document = trial.to_json()
        values = {
            "job_id": self._job_id,
            "number": trial.number,
            "state": trial.state,
            "metric": trial.metric,
            "feasible": trial.feasible,
            "on_front": trial.on_front,
            "document": Encoded(dump_json(document)),
            "summary": Encoded(dump_json(summary(document))),
        }
        return TrialRow(values, trial.elapsed_s, trial.hypervolume)

    def is_one_statement(self, row: TrialRow) -> bool:
        """Whether `put` of this row needs no transaction around it on PostgreSQL."""
        return self._states is not None and not self._moves(row)

    def put(self, connection: Connection, row: TrialRow) -> bool:
        states = self._known(connection)
        number, state = row.values["number"], row.values["state"]
        if number in states:
            self._counts[states[number]] -= 1
        elif row.values["on_front"]:
            self._front.add(number)
        self._counts[state] += 1
        states[number] = state
        counts = {name: count for name, count in self._counts.items() if count}
        change = {**self._lease, "counts": counts, "runs": int(state == "running")}
        if connection.dialect.name == "postgresql":
            new = {f"new_{name}": value for name, value in row.values.items()}
            rev = connection.execute(_put_on_postgresql, {**change, **new}).scalar_one_or_none()
        else:
            rev = connection.execute(_change_job, change).scalar_one_or_none()
            if rev is not None:
                connection.execute(_put_on_sqlite, {**row.values, "rev": rev})
        if rev is not None and self._moves(row):
            point = {"hypervolume": row.hypervolume, "trial": number}
            add_point(connection, self._job_id, "hypervolume", row.elapsed_s or 0.0, point)
            self._hypervolume = row.hypervolume
        return rev is not None

    def _moves(self, row: TrialRow) -> bool:
        return row.hypervolume is not None and row.hypervolume != self._hypervolume

    def put_front(self, connection: Connection, numbers: Sequence[int]) -> bool:
        """Touches the rows whose place changes, and no other; each gets a revision of its own."""
        states, wanted = self._known(connection), set(numbers)
        changed = sorted((wanted ^ self._front) & states.keys())
        last = connection.execute(_raise_rev, {**self._lease, "by": len(changed)}).scalar_one_or_none()
        if last is None:
            return False
        if changed:
            first = last - len(changed) + 1
            rows = [
                {"job": self._job_id, "of": number, "is_on": number in wanted, "at_rev": first + i}
                for i, number in enumerate(changed)
            ]
            connection.execute(_change_front, rows)
        self._front = wanted & states.keys()
        return True

    def _known(self, connection: Connection) -> dict[int, str]:
        """Reads the columns of all trials once per coordinator: 10,000 take some 20 ms."""
        if self._states is None:
            query = select(trials.c.number, trials.c.state, trials.c.on_front)
            rows = connection.execute(query.where(trials.c.job_id == self._job_id)).all()
            self._states = {row.number: row.state for row in rows}
            self._counts = Counter(self._states.values())
            self._front = {row.number for row in rows if row.on_front}
            self._hypervolume = last_point(connection, self._job_id, "hypervolume").get("hypervolume")
        return self._states
