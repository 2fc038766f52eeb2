"""Writing trials of a leased job: two statements in one short transaction, whatever the number of trials.

Statements are made once, and documents become text before the transaction begins: what a writer does while it holds
the lock is what limits how many trials a second the store takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, case, select, update
from sqlalchemy.dialects import postgresql, sqlite

from search.records import Trial
from service.database import Encoded, db_now, dump_json
from service.tables import jobs, trials
from service.trial_summary import summary

_WRITTEN = ("rev", "state", "metric", "feasible", "document", "summary", "updated_at")

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


def _put(dialect: Any) -> Insert:
    row = {name: bindparam(name) for name in ("job_id", "number", "on_front", *_WRITTEN) if name != "updated_at"}
    statement = dialect.insert(trials).values(**row, updated_at=db_now())
    # The place on the front is not the trial's own: only `put_front` changes it.
    upsert: Insert = statement.on_conflict_do_update(
        index_elements=["job_id", "number"], set_={name: statement.excluded[name] for name in _WRITTEN}
    )
    return upsert


_put_trial = {"sqlite": _put(sqlite), "postgresql": _put(postgresql)}


class TrialWriter:
    """Calls belong into the caller's transaction and return False when the lease is over.

    Only the holder of the lease writes trials, so it knows by heart which state each is in and which are on the
    front, and no write has to count or look. After a failed transaction call `forget`.
    """

    def __init__(self, job_id: str, token: int) -> None:
        self._lease = {"job": job_id, "token": token}
        self._states: dict[int, str] | None = None
        self._counts: Counter[str] = Counter()
        self._front: set[int] = set()

    def forget(self) -> None:
        self._states = None

    def row(self, trial: Trial) -> dict[str, Any]:
        """To be made before the transaction begins."""
        document = trial.to_json()
        return {
            "job_id": self._lease["job"],
            "number": trial.number,
            "state": trial.state,
            "metric": trial.metric,
            "feasible": trial.feasible,
            "on_front": trial.on_front,
            "document": Encoded(dump_json(document)),
            "summary": Encoded(dump_json(summary(document))),
        }

    def put(self, connection: Connection, row: dict[str, Any]) -> bool:
        states = self._known(connection)
        number, state = row["number"], row["state"]
        if number in states:
            self._counts[states[number]] -= 1
        elif row["on_front"]:
            self._front.add(number)
        self._counts[state] += 1
        states[number] = state
        counts = {name: count for name, count in self._counts.items() if count}
        parameters = {**self._lease, "counts": counts, "runs": int(state == "running")}
        rev = connection.execute(_change_job, parameters).scalar_one_or_none()
        if rev is None:
            return False
        connection.execute(_put_trial[connection.dialect.name], {**row, "rev": rev})
        return True

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
                {"job": self._lease["job"], "of": number, "is_on": number in wanted, "at_rev": first + i}
                for i, number in enumerate(changed)
            ]
            connection.execute(_change_front, rows)
        self._front = wanted & states.keys()
        return True

    def _known(self, connection: Connection) -> dict[int, str]:
        """Reads the columns of all trials once per coordinator: 10,000 take some 20 ms."""
        if self._states is None:
            query = select(trials.c.number, trials.c.state, trials.c.on_front)
            rows = connection.execute(query.where(trials.c.job_id == self._lease["job"])).all()
            self._states = {row.number: row.state for row in rows}
            self._counts = Counter(self._states.values())
            self._front = {row.number for row in rows if row.on_front}
        return self._states
