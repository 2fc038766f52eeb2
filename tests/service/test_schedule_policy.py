from __future__ import annotations

import pytest

from service.schedule_policy import LATE_S, MAX_CAUGHT_UP, MAX_WAITING, Missed, Overlap, plan, turn

HOURS = [3600.0 * n for n in range(1, 6)]
ON_TIME, TOO_LATE = HOURS[-1] + LATE_S, HOURS[-1] + LATE_S + 1


@pytest.mark.parametrize(
    ("missed", "now", "run"),
    [
        ("run_once", ON_TIME, HOURS[-1:]),
        ("run_once", TOO_LATE, HOURS[-1:]),
        ("skip", ON_TIME, HOURS[-1:]),
        ("skip", TOO_LATE, []),
        ("run_all", TOO_LATE, HOURS),
    ],
)
def test_what_is_made_up_for(missed: Missed, now: float, run: list[float]) -> None:
    planned = plan(HOURS, HOURS[0], missed, now)
    assert [p.tick for p in planned] == HOURS, "every tick is put down"
    assert [p.tick for p in planned if p.missed is None] == run
    assert all("missed" in p.missed for p in planned if p.missed is not None)


def test_a_single_tick_on_time_runs_whatever_the_policy() -> None:
    for missed in ("run_once", "skip", "run_all"):
        (only,) = plan([60.0], 60.0, missed, 61.0)
        assert only.missed is None


def test_run_all_is_bounded_and_says_so() -> None:
    many = [60.0 * n for n in range(1, 101)]
    planned = plan(many, -6000.0, "run_all", 6001.0)
    assert [p.tick for p in planned if p.missed is None] == many[-MAX_CAUGHT_UP:]
    assert "not listed" in (planned[0].missed or "")
    assert "1969-12-31 22:20 UTC" in (planned[0].missed or "")
    assert "not listed" not in (planned[1].missed or "")


BUSY = [("j1", "running"), ("j2", "queued")]


@pytest.mark.parametrize(
    ("overlap", "active", "waiting", "decision", "cancel"),
    [
        ("skip", [], 0, "submitted", ()),
        ("queue", [], 0, "submitted", ()),
        ("cancel_previous", [], 0, "submitted", ()),
        ("skip", BUSY, 0, "skipped", ()),
        ("queue", BUSY, 0, "waiting", ()),
        ("queue", [], 1, "waiting", ()),
        ("queue", BUSY, MAX_WAITING, "skipped", ()),
        ("cancel_previous", BUSY, 0, "submitted", ("j1", "j2")),
    ],
)
def test_whose_turn_it_is(
    overlap: Overlap, active: list[tuple[str, str]], waiting: int, decision: str, cancel: tuple[str, ...]
) -> None:
    found = turn(overlap, active, waiting, catching_up=False)
    assert (found.decision, found.cancel) == (decision, cancel)
    assert (found.reason is None) == (decision == "submitted" and not cancel)
    if active and decision != "submitted":
        assert "job j1 is running, job j2 is queued" in (found.reason or "")


@pytest.mark.parametrize("overlap", ["skip", "queue", "cancel_previous"])
def test_ticks_that_are_made_up_for_run_one_after_another(overlap: Overlap) -> None:
    assert turn(overlap, [("j1", "queued")], 0, catching_up=True).decision == "waiting"
