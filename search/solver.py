"""Shares a budget out between layers: which channel counts do least harm and still fit.

Greedy on the ratio of harm done to cost saved (the marginal analysis of Fox 1966 for separable problems). Channel
counts multiply where two groups meet in one layer, so that costs are not separable; each step is therefore priced
exactly in the current state, and a closing pass gives back what the last step took too much of.
Cost: O(steps x options) comparisons and O(steps x groups that share a layer) layer prices; steps <= sum of options.
"""

from __future__ import annotations

from dataclasses import dataclass

from search.cost_prediction import KERNEL_BLOCK, CostModel, ShapeCosts
from search.feasibility import Limits
from search.profile import Profile
from search.sensitivity import Sensitivity

SMALLEST_SHARE = 1 / 8  # of a group's channels; below it networks do not recover and kernels do not get faster


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """How compression is shared out, with few knobs around what sensitivity says.

    sharpness: power applied to sensitivity; 0 ignores it, 1 takes it at its word.
    depth_bias: > 0 spares late layers, < 0 early ones (log scale, end to end).
    stream_bias: > 0 spares groups that shape many layers (residual streams), < 0 prunes them first (log scale).
    channel_multiple: counts are multiples of it, where the group is large enough.
    """

    sharpness: float = 1.0
    depth_bias: float = 0.0
    stream_bias: float = 0.0
    channel_multiple: int = 8


@dataclass(frozen=True)
class Solution:
    """keep: channels per group. fits: whether the predicted cost meets the limits."""

    keep: dict[str, int]
    latency_ratio: float
    size_ratio: float
    fits: bool


def options(size: int, multiple: int) -> tuple[int, ...]:
    """Channel counts a group may take, largest first; always its full size and at least one smaller count."""
    smallest = max(1, round(size * SMALLEST_SHARE))
    step = multiple if size >= 2 * multiple else max(1, size // 4)
    counts = {c for c in range(step, size, step) if c >= smallest}
    return tuple(sorted(counts | {size}, reverse=True))


def floors(profile: Profile) -> tuple[dict[str, int], ...]:
    """Shapes that mark what a budget can reach: every group at its smallest count, and every group at one block of
    the vector kernels. The first is the smallest file; the second is often faster, since kernels fall back to slower
    code below a block."""
    smallest = {g.name: options(g.size, max(1, round(g.size * SMALLEST_SHARE)))[-1] for g in profile.groups}
    block = {g.name: min(g.size, KERNEL_BLOCK) for g in profile.groups}
    return (smallest,) if block == smallest or block == profile.sizes else (smallest, block)


class Solver:
    """aligned: whether the exporter pads channels, see `cost_prediction.layer_cost`."""

    def __init__(self, profile: Profile, sensitivity: Sensitivity, *, aligned: bool) -> None:
        self._groups = {g.name: g for g in profile.groups}
        self._sensitivity = sensitivity
        self.costs = ShapeCosts(profile.shapes, profile.sizes, aligned=aligned)

    def solve(self, limits: Limits, cost: CostModel, how: Allocation) -> Solution:
        state = _State(self, limits, cost, how)
        while not state.fits():
            step = state.best_step()
            if step is None:
                break
            state.take(*step)
        if state.fits():
            state.give_back()
        return state.solution()

    def harm(self, name: str, count: int, how: Allocation) -> float:
        """What the knobs make of the measured sensitivity of one group at one channel count."""
        group = self._groups[name]
        loss = self._sensitivity.pruning_loss(name, count / group.size)
        if count == group.size:
            return 0.0
        bias = how.depth_bias * (group.position - 0.5) + how.stream_bias * (1.0 if group.layers > 4 else 0.0)
        return float((loss + 1e-4 * (1 - count / group.size)) ** max(how.sharpness, 1e-3) * 2.718281828**bias)


_Step = tuple[int, float, float, float]  # channel count, change in work, in parameters, in harm


class _State:
    """Channel counts on their way down, with every cost kept up to date."""

    def __init__(self, solver: Solver, limits: Limits, cost: CostModel, how: Allocation) -> None:
        self._solver, self._limits, self._cost, self._how = solver, limits, cost, how
        self.keep = dict(solver.costs.sizes)
        self._options = {n: options(s, how.channel_multiple) for n, s in self.keep.items()}
        self._work, self._parameters = solver.costs.total(self.keep)
        self._steps: dict[str, list[_Step]] = {}

    def fits(self) -> bool:
        return self._excess(self._work, self._parameters) <= 0

    def best_step(self) -> tuple[str, int] | None:
        """The (group, count) with the least harm per relative cost saved; counts further down are tried too."""
        best: tuple[float, str, int] | None = None
        now = self._excess(self._work, self._parameters)
        for name in self.keep:
            for lower, work, parameters, harm in self._steps_of(name):
                saved = now - self._excess(self._work + work, self._parameters + parameters)
                if saved <= 1e-12:
                    continue
                price = harm / saved
                if best is None or (price, name, -lower) < (best[0], best[1], -best[2]):
                    best = (price, name, lower)
        return None if best is None else (best[1], best[2])

    def _steps_of(self, name: str) -> list[_Step]:
        """Priced once, and again only after a group that shares a layer with it has changed."""
        if name not in self._steps:
            harm_now = self._solver.harm(name, self.keep[name], self._how)
            self._steps[name] = [
                (lower, *self._change(name, lower), self._solver.harm(name, lower, self._how) - harm_now)
                for lower in self._options[name]
                if lower < self.keep[name]
            ]
        return self._steps[name]

    def take(self, name: str, count: int) -> None:
        work, parameters = self._change(name, count)
        self._work += work
        self._parameters += parameters
        self.keep[name] = count
        for neighbour in self._solver.costs.neighbours[name]:
            self._steps.pop(neighbour, None)

    def give_back(self) -> None:
        """Raises counts again where the limits leave room, the most harmful cut first."""
        for name in sorted(self.keep, key=lambda n: (-self._solver.harm(n, self.keep[n], self._how), n)):
            for count in self._options[name]:
                if count <= self.keep[name]:
                    break
                work, parameters = self._change(name, count)
                if self._excess(self._work + work, self._parameters + parameters) <= 0:
                    self.take(name, count)
                    break

    def solution(self) -> Solution:
        return Solution(
            dict(self.keep),
            self._cost.latency_ratio(self._work),
            self._cost.size_ratio(self._parameters),
            self.fits(),
        )

    def _change(self, name: str, count: int) -> tuple[float, float]:
        """Difference in (work, parameters) if `name` had `count` channels."""
        changed = {**self.keep, name: count}
        work = parameters = 0.0
        for index in self._solver.costs.layers_of[name]:
            before, after = self._solver.costs.layer(index, self.keep), self._solver.costs.layer(index, changed)
            work += after[0] - before[0]
            parameters += after[1] - before[1]
        return work, parameters

    def _excess(self, work: float, parameters: float) -> float:
        """Sum of what is still over each limit, relative to the limit."""
        excess = 0.0
        if self._limits.latency_ratio is not None:
            excess += max(0.0, self._cost.latency_ratio(work) / self._limits.latency_ratio - 1)
        if self._limits.size_ratio is not None:
            excess += max(0.0, self._cost.size_ratio(parameters) / self._limits.size_ratio - 1)
        return excess
