"""A last candidate made of the best ones: the mean of their weights, where they are copies of one architecture.

Tuned trials with the same channels and other tuning are such copies. Greedy soup, Wortsman et al. 2022,
arXiv:2203.05482, algorithm 1, judged on the validation split; costs no training and, at run time, nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from compressors.recipe import Recipe
from search.coordinator import Coordinator
from search.records import Fidelity, Trial
from search.spec import JobSpec
from search.trial_results import after_score
from search.work import Failed, Scored, SoupWork

MEMBERS = 4
SECONDS = 20.0  # that must be left: the members are scored once or twice each


def candidates(spec: JobSpec, coordinator: Coordinator) -> list[Trial]:
    """The best feasible trial and the next best ones that differ from it in their tuning only; fewer than two: none."""
    best = [t for t in coordinator.book.ranked(spec.objective) if t.fidelity is not None and t.fidelity.rung > 0]
    if not best:
        return []
    first = Recipe.from_json(best[0].recipe or {}).around_tuning()[0]
    same = [t for t in best if Recipe.from_json(t.recipe or {}).around_tuning()[0] == first][:MEMBERS]
    return same if len(same) > 1 else []


def add_soup(
    spec: JobSpec, coordinator: Coordinator, evaluate: Callable[[SoupWork], object], remaining: float
) -> Trial | None:
    """The soup as a trial of its own, if there are copies to average and seconds left; it wins only by its metric."""
    members = candidates(spec, coordinator)
    if not members or remaining < SECONDS:
        return None
    book = coordinator.book
    work = SoupWork(
        trial=book.next_number, members=tuple((t.number, Recipe.from_json(t.recipe or {})) for t in members)
    )
    found = evaluate(work)
    if isinstance(found, Failed):
        book.log("warning", f"averaging trials {[t.number for t in members]}: {found.reason}")
        return None
    assert isinstance(found, Scored) and coordinator.profile is not None and members[0].fidelity is not None
    like = members[0]
    trial = Trial(
        number=work.trial,
        state="completed",
        origin="soup",
        recipe=like.recipe,
        latency=like.latency,
        macs=like.macs,
        parameters=like.parameters,
        fidelity=Fidelity(rung=members[0].fidelity.rung, samples=found.samples),
    )
    trial = after_score(trial, found, spec.budget, coordinator.profile.baseline, done=True)
    book.end(trial)
    return trial
