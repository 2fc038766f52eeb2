"""Units that occur in the same places in the same way are interchangeable: they form a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from compressors.channel_solving import Solution
from compressors.channel_tracking import Ids, LayerChannels

Kind = Literal["channels", "units", "heads", "places", "recurrent", "groups"]
Axes = Mapping[str, Mapping[int, Ids]]


@dataclass(frozen=True)
class ChannelGroup:
    """Units that may be removed independently of each other.

    name: first producing layer, with '#2', '#3', … for its further groups. size: number of units. layers: producers,
    in order of use. consumers: layers that read them. kind: channels of convolutions; units (neurons, embedding
    dimensions); heads of attention; places inside every head; recurrent units; whole groups of grouped convolutions.
    lanes: sets of `size` units that lose equally many, each its own: layers and directions of a recurrent module.
    """

    name: str
    size: int
    layers: tuple[str, ...]
    consumers: tuple[str, ...]
    kind: Kind = "channels"
    lanes: int = 1


@dataclass(frozen=True)
class Groups:
    """members: units per group, lane by lane, also of those left out. protected: reason per layer that loses no output.

    uneven: modules whose lanes are not each a whole group.
    """

    groups: tuple[ChannelGroup, ...]
    members: Mapping[str, Ids]
    left_out: Mapping[str, str]
    protected: Mapping[str, str]
    uneven: tuple[str, ...]


def find_groups(
    module: fx.GraphModule,
    solution: Solution,
    layers: Mapping[str, LayerChannels],
    axes: Axes,
    layouts: Mapping[str, tuple[Mapping[int, Ids], ...]],
    lanes: Mapping[str, tuple[Ids, ...]],
) -> Groups:
    """Groups of two units or more that some layer produces and nothing protects."""
    finder = _Finder(module, solution, layers)
    places = [ids for value in layouts.values() for leaf in value for ids in leaf.values()]
    members = finder.members(finder.signatures([*places, *(ids for by in axes.values() for ids in by.values())]))
    counts, uneven = _merge_lanes(members, lanes)
    left_out = finder.irregular(members, axes)
    kept = {name: units for name, units in members.items() if name not in left_out}
    groups = tuple(finder.group(name, units, counts.get(name, 1)) for name, units in kept.items())
    return Groups(groups, members, left_out, finder.protected(members), uneven)


def _merge_lanes(
    members: dict[str, Ids], lanes: Mapping[str, tuple[Ids, ...]]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Makes one group, in place, of groups that are lanes of one module; lanes per such group, and uneven modules."""
    counts: dict[str, int] = {}
    uneven = []
    for module, vectors in lanes.items():
        wanted = [frozenset(vector.tolist()) for vector in vectors]
        owners: list[str] = []
        for name, units in members.items():
            parts = {frozenset(part.tolist()) for part in np.split(units, counts.get(name, 1))}
            if not parts.isdisjoint(wanted):
                owners.append(name)
        found = {frozenset(p.tolist()) for name in owners for p in np.split(members[name], counts.get(name, 1))}
        touched = [n for n, units in members.items() if any(not w.isdisjoint(units.tolist()) for w in wanted)]
        if not set(wanted) <= found or touched != owners:
            uneven += [module] if touched else []
            continue
        first, *others = owners
        counts[first] = sum(counts.get(name, 1) for name in owners)
        members[first] = np.concatenate([members[first], *(members.pop(name) for name in others)])
    return counts, tuple(uneven)


class _Finder:
    def __init__(self, module: fx.GraphModule, solution: Solution, layers: Mapping[str, LayerChannels]) -> None:
        self._module = module
        self._solution = solution
        self._layers = layers
        self._outputs = {name: self.expand(layer.outputs) for name, layer in layers.items() if layer.produces}
        self._inputs = {name: self.expand(layer.inputs) for name, layer in layers.items() if layer.inputs is not None}

    def expand(self, numbers: Ids) -> Ids:
        """Units that `numbers` are or depend on, each once, in order."""
        rows = self._factors(numbers)
        return np.fromiter(dict.fromkeys(rows.ravel().tolist()), dtype=np.int64)

    def _factors(self, numbers: Ids) -> NDArray[np.int64]:
        """(numbers, factors): a unit is its own factor."""
        compounds = self._solution.compounds
        units = np.arange(self._solution.units)[:, None]
        table = np.concatenate([np.broadcast_to(units, (len(units), compounds.shape[1])), compounds])
        return table[numbers]

    def signatures(self, places: list[Ids]) -> NDArray[np.uint64]:
        """(units, 2): a hash of where, and how often, each unit occurs. Sums of random words: order does not matter."""
        words = np.random.default_rng(0).integers(1, 2**63, size=(len(places), 2), dtype=np.uint64)
        signatures = np.zeros((self._solution.units, 2), dtype=np.uint64)
        for place, word in zip(places, words, strict=True):
            rows = self._factors(place)
            first = np.ones(rows.shape, dtype=np.bool_)
            for column in range(1, rows.shape[1]):
                first[:, column] = (rows[:, column : column + 1] != rows[:, :column]).all(axis=1)
            np.add.at(signatures, rows[first], word)
        return signatures

    def members(self, signatures: NDArray[np.uint64]) -> dict[str, Ids]:
        """Units of each group, by name."""
        seen = set(self._solution.reasons)
        found: dict[str, Ids] = {}
        for name, outputs in self._outputs.items():
            by_signature: dict[bytes, list[int]] = {}
            for unit in outputs.tolist():
                if unit not in seen:
                    by_signature.setdefault(signatures[unit].tobytes(), []).append(unit)
            seen.update(*by_signature.values())
            several = [units for units in by_signature.values() if len(units) > 1]
            for count, units in enumerate(several, 1):
                found[name if count == 1 else f"{name}#{count}"] = np.asarray(units, dtype=np.int64)
        return found

    def group(self, name: str, units: Ids, lanes: int) -> ChannelGroup:
        size = len(units) // lanes
        each = units[::size]
        layers = tuple(layer for layer, outputs in self._outputs.items() if np.isin(each, outputs).any())
        return ChannelGroup(
            name=name,
            size=size,
            layers=layers,
            consumers=tuple(layer for layer, inputs in self._inputs.items() if np.isin(each, inputs).any()),
            kind=self._kind(layers[0], units),
            lanes=lanes,
        )

    def _kind(self, layer: str, units: Ids) -> Kind:
        marks, compounds = self._solution.marks, self._solution.compounds
        heads = np.asarray(sorted(marks.get("heads", ())), dtype=np.int64)
        if np.isin(units, heads).all():
            return "heads"
        if np.isin(compounds[np.isin(compounds, heads).any(axis=1)], units).any():
            return "places"
        owner = dict(self._module.named_modules()).get(layer)
        if isinstance(owner, nn.modules.conv._ConvNd):
            return "groups" if marks.get("groups", frozenset()).issuperset(units.tolist()) else "channels"
        return "recurrent" if isinstance(owner, nn.RNNBase) else "units"

    def irregular(self, members: Mapping[str, Ids], axes: Axes) -> dict[str, str]:
        """Groups whose units do not form full grids with those of another, so that no formula gives their cost."""
        names = list(members)
        owner = np.full(self._solution.units, -1, dtype=np.int64)
        for index, units in enumerate(members.values()):
            owner[units] = index
        reasons: dict[str, str] = {}
        for tensor, by_axis in axes.items():
            sliced = [axis for axis, numbers in by_axis.items() if (owner[self._factors(numbers)] >= 0).any()]
            for axis, numbers in by_axis.items():
                for group, other in self._uneven(numbers, owner):
                    reason = f"its units and those of {names[other]} do not form a full grid in {tensor}"
                    reasons.setdefault(names[group], reason)
                for group in np.unique(owner[self._factors(numbers)]).tolist() if axis in sliced[2:] else ():
                    if group >= 0:
                        reasons.setdefault(names[group], f"{tensor} has more than two axes that could be sliced")
        return reasons

    def _uneven(self, numbers: Ids, owner: Ids) -> Iterator[tuple[int, int]]:
        """Pairs of groups of which not every pair of units occurs equally often among `numbers`."""
        rows = self._factors(numbers)
        order = np.argsort(owner[rows] * self._solution.units + rows, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
        groups = owner[rows]
        for kind in np.unique(groups, axis=0):
            inside = rows[(groups == kind).all(axis=1)]
            units = [np.unique(inside[:, column]) for column in range(inside.shape[1])]
            involved = sorted({int(group) for group in kind if group >= 0})
            distinct, counts = np.unique(inside, axis=0, return_counts=True)
            columns = {int(group): [c for c in range(len(kind)) if kind[c] == group] for group in involved}
            full = 1
            for group in involved:
                same = [inside[:, c] for c in columns[group]]
                if any((column != same[0]).any() for column in same):
                    yield group, group
                full *= len(units[columns[group][0]])
            fixed = [c for c in range(len(kind)) if kind[c] < 0]
            full *= len(np.unique(inside[:, fixed], axis=0)) if fixed else 1
            if len(involved) > 1 and (len(distinct) != full or len(set(counts.tolist())) > 1):
                yield involved[-1], involved[0]

    def protected(self, members: Mapping[str, Ids]) -> dict[str, str]:
        removable = {unit for units in members.values() for unit in units.tolist()}
        result = {}
        for name, outputs in self._outputs.items():
            reasons = (self._solution.reasons.get(unit) for unit in outputs.tolist())
            reason = next((found for found in reasons if found is not None), None)
            if reason is not None and removable.isdisjoint(outputs.tolist()):
                result[name] = reason
        return result
