"""Where the seconds of a job went, and whether any were spent on tuning what could not be an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from search.records import Stage, Trial

TUNING = "tune"


def spending(
    trials: Sequence[Trial], common: Iterable[Stage], *, slots: int, winner: Trial | None = None
) -> dict[str, Any]:
    """Seconds of the evaluators, added up over all slots.

    common: stages that belong to no trial. slots: works that ran at once. Keys:
    total_s: of all stages. tuning_s: of the stage that tunes. feasible_tuning_s: of it, on candidates that had been
    measured to be within the cost limits. feasible_tuning_share: of total_s. slot_share: feasible_tuning_s as a share
    of the seconds that the slots were there, idle ones included. tuned_over_budget: numbers of the trials that were
    tuned although their measured cost missed the budget. over_when_measured_longer: trials within the limits when they
    were tuned, and over them when they were confirmed. nearest_miss_tuned: the winner's number if it misses the limits
    and was tuned once the search was over, because nothing could meet them.
    """
    stages = [*common, *(s for t in trials for s in t.stages)]
    total = sum(s.seconds for s in stages)
    tuned = {t.number: sum(s.seconds for s in t.stages if s.name == TUNING) for t in trials}
    over = [t for t in trials if tuned[t.number] > 0 and _over_its_cost(t)]
    late = [t.number for t in over if any(s.name.startswith("confirm") for s in t.stages)]
    wrong = [t.number for t in over if t.number not in late]
    tuning = sum(tuned.values())
    feasible = tuning - sum(tuned[number] for number in wrong)
    there = slots * max((t.elapsed_s or 0.0 for t in trials), default=0.0)
    return {
        "total_s": round(total, 3),
        "tuning_s": round(tuning, 3),
        "feasible_tuning_s": round(feasible, 3),
        "feasible_tuning_share": _share(feasible, total),
        "slot_share": _share(feasible, there),
        "tuned_over_budget": wrong,
        "over_when_measured_longer": late,
        "nearest_miss_tuned": _nearest_miss(trials, winner),
    }


def _nearest_miss(trials: Sequence[Trial], winner: Trial | None) -> int | None:
    if winner is None or winner.fidelity is None or winner.fidelity.samples == 0 or not _over_its_cost(winner):
        return None
    searched = next((t for t in trials if t.number == winner.number), None)
    return winner.number if searched is None or searched.fidelity is None else None


def _over_its_cost(trial: Trial) -> bool:
    return any(v.field != "max_metric_drop" for v in trial.violations)


def _share(part: float, whole: float) -> float | None:
    return None if whole <= 0 else round(min(part / whole, 1.0), 4)
