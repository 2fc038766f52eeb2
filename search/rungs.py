"""How tuning is dealt out: many candidates a little, the best of them more, the last ones all that is left.

Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943; asynchronous: Li et al. 2020, arXiv:1810.05934).
Sizes follow from the seconds that are left and the measured tuning speed. Pure arithmetic: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARES = (0.30, 0.22, 0.48)  # of the tuning seconds: first rung, second, top
HALVING = 3  # one of three goes on to the second rung
FIRST_RUNG_CANDIDATES = 9
EPOCHS_CAP = (4.0, 12.0, 40.0)  # no rung sees the data more often than this in all
SMALLEST_RUNG = 2048  # samples; less says nothing about a candidate


@dataclass(frozen=True, kw_only=True)
class RungPlan:
    """samples: seen in all by a candidate at the end of rungs 1, 2, 3. candidates: how many reach each of them.

    starts: seconds (on the caller's clock) at which rung 3 begins at the latest; end: when tuning is over.
    first: number of its first candidate; earlier ones belong to an earlier round.
    """

    samples: tuple[int, int, int]
    candidates: tuple[int, int, int]
    top_starts: float
    end: float
    first: int = 0

    @property
    def top(self) -> int:
        return len(self.samples)


def plan_rungs(
    *, now: float, end: float, slots: int, speed: float, rows: int, max_candidates: int, since: int = 0
) -> RungPlan:
    """One round. now, end: seconds. speed: samples per second of one slot. rows: tuning rows. max_candidates: trials
    left. since: number of the round's first candidate.
    Where the caps on epochs leave seconds over, another round may follow.

    Cost: O(1).
    """
    seconds = max(end - now, 1.0)
    budget = [share * seconds * slots * speed for share in SHARES]
    first_count = max(1, min(FIRST_RUNG_CANDIDATES, max_candidates))
    cap = [max(epochs * rows, SMALLEST_RUNG) for epochs in EPOCHS_CAP]
    first = min(budget[0] / first_count, cap[0])
    if first < SMALLEST_RUNG:
        first = SMALLEST_RUNG
        first_count = max(1, int(budget[0] // first))
    else:  # seconds to spare: more candidates rather than longer first rungs
        first_count = max(first_count, min(max_candidates, int(budget[0] // first)))
    second_count = max(1, first_count // HALVING)
    second = first + min(budget[1] / second_count, cap[1])
    top_count = max(1, min(slots, first_count))
    top = second + min(budget[2] / top_count, cap[2])
    return RungPlan(
        samples=(int(first), int(second), int(top)),
        candidates=(first_count, second_count, top_count),
        top_starts=end - SHARES[2] * seconds,
        end=end,
        first=since,
    )
