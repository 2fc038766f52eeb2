"""Shares a budget out between layers: channels kept, weight bits and whole blocks, the least harm that still fits.

Greedy on the ratio of harm done to cost saved (the marginal analysis of Fox 1966 for separable problems). Channel
counts multiply where two groups meet in one layer, so that costs are not separable, which an integer programme would
need; each step is therefore priced exactly in the current state, and a closing pass gives back what the last step took
too much of. A greedy path passes every budget on its way down, so one run gives the whole predicted front.
Cost: O(steps x options) comparisons and O(steps x decisions that share a layer) layer prices; steps <= sum of options.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from search.cost_prediction import KERNEL_BLOCK, CostModel, PlanCosts
from search.feasibility import Limits
from search.layer_plan import FULL_BITS, Decision, Kind, LayerPlan, full_plan
from search.profile import Profile
from search.sensitivity import Sensitivity

SMALLEST_SHARE = 1 / 8  # of a group's channels; below it networks do not recover and kernels do not get faster
BITS = (8, 6, 5, 4, 3, 2)
TINY = 1e-12
NEVER_FREE = 1e-4  # harm of a cut that measured none, so that nothing is cut for nothing
OUT_OF_REACH = Limits(1e-6, 1e-6)

Subject = tuple[Kind, str]


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """How compression is shared out, with few knobs around what sensitivity says.

    sharpness: power applied to sensitivity; 0 ignores it, 1 takes it at its word.
    depth_bias: > 0 spares late layers, < 0 early ones (log scale, end to end).
    stream_bias: > 0 spares groups that shape many layers (residual streams), < 0 prunes them first (log scale).
    fewest_bits: that a layer's weights may have. Tuning before rounding repairs channels, not bits.
    bits_bias, block_bias: > 0 spares bits, blocks; < 0 takes them before channels (log scale): tuning repairs these
    three to different degrees, which a sensitivity without tuning cannot know.
    channel_multiple: counts are multiples of it, where the group is large enough.
    """

    sharpness: float = 1.0
    depth_bias: float = 0.0
    stream_bias: float = 0.0
    fewest_bits: int = 2
    bits_bias: float = 0.0
    block_bias: float = 0.0
    channel_multiple: int = 8


@dataclass(frozen=True)
class Scope:
    """What the solver may decide: channels, bits, blocks."""

    keep: bool = True
    bits: bool = False
    drop: bool = False

    def __bool__(self) -> bool:
        return self.keep or self.bits or self.drop


@dataclass(frozen=True)
class Solution:
    """harm: predicted, in the allocation's own scale. fits: whether the predicted cost meets the limits."""

    plan: LayerPlan
    latency_ratio: float
    size_ratio: float
    harm: float
    fits: bool


def options(size: int, multiple: int) -> tuple[int, ...]:
    """Channel counts a group may take, largest first; always its full size and at least one smaller count."""
    smallest = max(1, round(size * SMALLEST_SHARE))
    step = multiple if size >= 2 * multiple else max(1, size // 4)
    counts = {c for c in range(step, size, step) if c >= smallest}
    return tuple(sorted(counts | {size}, reverse=True))


def values(profile: Profile, subject: Subject, multiple: int) -> tuple[int, ...]:
    """What a decision may be, mildest first."""
    kind, name = subject
    if kind == "keep":
        return options(profile.sizes[name], multiple)
    return BITS if kind == "bits" else (0, 1)


def floors(profile: Profile, scope: Scope) -> tuple[LayerPlan, ...]:
    """Plans that mark what a budget can reach: every group at its smallest count; every group at one block of the
    vector kernels, often faster, since kernels fall back to slower code below a block; and all that can go together."""
    sizes = profile.sizes
    smallest, block = sizes, sizes
    if scope.keep:
        smallest = {n: options(s, max(1, round(s * SMALLEST_SHARE)))[-1] for n, s in sizes.items()}
        block = {n: min(s, KERNEL_BLOCK) for n, s in sizes.items()}
    found = [LayerPlan(smallest), LayerPlan(block)] if scope.keep else []
    if scope.bits or scope.drop:
        bits = dict.fromkeys(profile.integer_layers, BITS[-1]) if scope.bits else {}
        found.append(LayerPlan(smallest, bits, frozenset(profile.blocks) if scope.drop else frozenset()))
    full = full_plan(profile)
    return tuple(plan for i, plan in enumerate(found) if plan != full and plan not in found[:i])


class Solver:
    """integers: see `PlanCosts`. scope: what it may decide; the rest stays as it is in the uncompressed model."""

    def __init__(self, profile: Profile, sensitivity: Sensitivity, *, integers: bool, scope: Scope) -> None:
        self.profile = profile
        self._groups = {g.name: g for g in profile.groups}
        self._sensitivity = sensitivity
        self._scope = scope
        self.costs = PlanCosts(profile, integers=integers)
        self.subjects: tuple[Subject, ...] = (
            *(("keep", n) for n in profile.sizes if scope.keep),
            *(("bits", n) for n in profile.integer_layers if scope.bits and integers),
            *(("drop", n) for n in profile.blocks if scope.drop),
        )
        layers = {s: frozenset(self.costs.touching[s]) for s in self.subjects}
        self.neighbours: dict[Subject, tuple[Subject, ...]] = _overlaps(layers)
        self.within: dict[str, tuple[Subject, ...]] = {}  # what goes along with a block
        for kind, block in self.subjects:
            if kind == "drop":
                here = layers[kind, block]
                self.within[block] = tuple(s for s in self.neighbours[kind, block] if layers[s] <= here)

    def solve(
        self,
        limits: Limits,
        cost: CostModel,
        how: Allocation,
        *,
        start: LayerPlan | None = None,
        pinned: Collection[Subject] = (),
    ) -> Solution:
        """start: where to begin (the uncompressed model, if left out); a start that is under the limits is raised
        towards them. pinned: decisions that stay as they are in `start`."""
        state = _State(self, limits, cost, how, start or full_plan(self.profile), frozenset(pinned))
        while not state.fits():
            step = state.best_step()
            if step is None:
                break
            state.take(step)
        if state.fits():
            state.give_back()
        return state.solution()

    def front(self, cost: CostModel, how: Allocation) -> tuple[Solution, ...]:
        """Predicted (latency, size, harm) all the way down from the uncompressed model, harm ascending."""
        state = _State(self, OUT_OF_REACH, cost, how, full_plan(self.profile), frozenset())
        found = [state.solution()]
        while (step := state.best_step()) is not None:
            state.take(step)
            found.append(state.solution())
        return tuple(found)

    def harm_of(self, plan: LayerPlan, how: Allocation) -> float:
        """Sum over the decisions of a plan; what goes with a block counts with the block."""
        return sum(self.harm_at(plan, subject, how) for subject in self.subjects)

    def harm_at(self, plan: LayerPlan, subject: Subject, how: Allocation) -> float:
        if self.is_gone(plan, subject):
            return 0.0
        return self.harm(Decision(*subject, plan.value_of(*subject)), how)

    def is_gone(self, plan: LayerPlan, subject: Subject) -> bool:
        """Whether the layers that a decision is about have gone with a block."""
        return any(subject != ("drop", b) and subject in self.within.get(b, ()) for b in plan.dropped)

    def options(self, subject: Subject, how: Allocation) -> tuple[int, ...]:
        """Values of a decision, mildest first."""
        found = values(self.profile, subject, how.channel_multiple)
        return tuple(v for v in found if v >= how.fewest_bits) if subject[0] == "bits" else found

    def harm(self, decision: Decision, how: Allocation) -> float:
        """What the knobs make of the measured sensitivity of one decision."""
        kind, name, value = decision.kind, decision.name, decision.value
        if kind == "keep":
            group = self._groups[name]
            cut, loss = 1 - value / group.size, self._sensitivity.pruning_loss(name, value / group.size)
            bias = how.depth_bias * (group.position - 0.5) + how.stream_bias * (1.0 if group.layers > 4 else 0.0)
        elif kind == "bits":
            cut, loss = 1 - value / FULL_BITS, self._sensitivity.rounding_loss(name, value)
            bias = how.bits_bias
        else:
            cut, loss = float(value), self._sensitivity.block_loss(name)
            bias = how.block_bias
        return 0.0 if cut <= 0 else (loss + NEVER_FREE * cut) ** max(how.sharpness, 1e-3) * math.exp(bias)


def _overlaps(layers: dict[Subject, frozenset[int]]) -> dict[Subject, tuple[Subject, ...]]:
    """Subjects that share a layer, each one's own included. Cost: sum over layers of (subjects on it)^2."""
    on: dict[int, list[Subject]] = {}
    for subject, indices in layers.items():
        for index in indices:
            on.setdefault(index, []).append(subject)
    return {s: tuple(dict.fromkeys((s, *(o for i in sorted(indices) for o in on[i])))) for s, indices in layers.items()}


@dataclass(frozen=True)
class _Step:
    decision: Decision
    latency: float
    size: float
    harm: float


class _State:
    """A plan on its way down, with every cost kept up to date."""

    def __init__(
        self,
        solver: Solver,
        limits: Limits,
        cost: CostModel,
        how: Allocation,
        start: LayerPlan,
        pinned: frozenset[Subject],
    ) -> None:
        self._solver, self._limits, self._cost, self._how = solver, limits, cost, how
        self.plan = start
        self._free = tuple(s for s in solver.subjects if s not in pinned)
        features, stored = solver.costs.total(start)
        self._latency, self._size = cost.latency_ratio(features), cost.size_ratio(stored)
        self._steps: dict[Subject, list[_Step]] = {}
        self._harm = solver.harm_of(start, how)

    def fits(self) -> bool:
        return self._excess(self._latency, self._size) <= TINY

    def best_step(self) -> _Step | None:
        """The one with the least harm per relative cost saved; values further down are tried too."""
        best: tuple[float, str, str, int] | None = None
        chosen: _Step | None = None
        now = self._excess(self._latency, self._size)
        for subject in self._free:
            for step in self._steps_of(subject):
                saved = now - self._excess(self._latency + step.latency, self._size + step.size)
                if saved <= TINY:
                    continue
                rank = (step.harm / saved, *subject, -step.decision.value)
                if best is None or rank < best:
                    best, chosen = rank, step
        return chosen

    def take(self, step: _Step) -> None:
        decision = step.decision
        self._latency += step.latency
        self._size += step.size
        self._harm += step.harm
        self.plan = self.plan.having(decision)
        for neighbour in self._solver.neighbours[decision.subject]:
            self._steps.pop(neighbour, None)

    def give_back(self) -> None:
        """Takes decisions back where the limits leave room, the most harmful one first."""
        for subject in sorted(self._free, key=lambda s: (-self._solver.harm_at(self.plan, s, self._how), s)):
            for value in self._solver.options(subject, self._how):
                if self._severity(value, subject) >= self._severity(self.plan.value_of(*subject), subject):
                    break
                step = self._step(Decision(*subject, value))
                if step.harm < 0 and self._excess(self._latency + step.latency, self._size + step.size) <= TINY:
                    self.take(step)
                    break

    def solution(self) -> Solution:
        return Solution(self.plan, self._latency, self._size, self._harm, self.fits())

    def _steps_of(self, subject: Subject) -> list[_Step]:
        """Priced once, and again only after a decision that shares a layer with it has changed."""
        if subject not in self._steps:
            present = self._severity(self.plan.value_of(*subject), subject)
            self._steps[subject] = [
                self._step(Decision(*subject, value))
                for value in self._solver.options(subject, self._how)
                if self._severity(value, subject) > present and not self._solver.is_gone(self.plan, subject)
            ]
        return self._steps[subject]

    def _step(self, decision: Decision) -> _Step:
        after = self.plan.having(decision)
        latency = size = 0.0
        for index in self._solver.costs.touching[decision.subject]:
            new, old = self._prices(index, after), self._prices(index, self.plan)
            latency += new[0] - old[0]
            size += new[1] - old[1]
        along = self._solver.within[decision.name] if decision.kind == "drop" else (decision.subject,)
        harm = sum(
            self._solver.harm_at(after, s, self._how) - self._solver.harm_at(self.plan, s, self._how) for s in along
        )
        return _Step(decision, latency, size, harm)

    def _prices(self, index: int, plan: LayerPlan) -> tuple[float, float]:
        """(latency, size) of one layer, as parts of the ratios."""
        kind, calls, work, stored = self._solver.costs.layer(index, plan)
        return self._cost.layer_latency(kind, calls, work), self._cost.size[1] * stored

    @staticmethod
    def _severity(value: int, subject: Subject) -> int:
        return value if subject[0] == "drop" else -value

    def _excess(self, latency: float, size: float) -> float:
        """Sum of what is still over each limit, relative to the limit."""
        excess = 0.0
        if self._limits.latency_ratio is not None:
            excess += max(0.0, latency / self._limits.latency_ratio - 1)
        if self._limits.size_ratio is not None:
            excess += max(0.0, size / self._limits.size_ratio - 1)
        return excess
