"""From ids to units: joins and protections become components; compound ids become conjunctions of components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from compressors.channel_tracking import Ids, Shape, Tracker

Key = tuple[int, ...]


@dataclass(frozen=True)
class Solution:
    """numbers: per id its number. Numbers below `units` are units; the others are compounds, which live while all
    units of their row in `compounds` (compounds, factors) do. A row repeats a unit where it has fewer factors.

    reasons: why a unit must stay, per such unit. marks: units by what is known of them, see `Tracker`.
    """

    numbers: Ids
    units: int
    compounds: NDArray[np.int64]
    reasons: dict[int, str]
    marks: dict[str, frozenset[int]]


def solve(tracker: Tracker) -> Solution:
    """Units of `tracker`.

    A compound with one factor that is not protected equals that. Compounds that are joined must have the same factors,
    which joins those in turn. Grids of different shape over the same channels share no rows; then only the innermost
    axis of each may lose anything.
    """
    if tracker.count == 0:
        return Solution(np.empty(0, dtype=np.int64), 0, np.empty((0, 1), dtype=np.int64), {}, {})
    solver = _Solver(tracker)
    while solver.step():
        pass
    return solver.solution()


class _Solver:
    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._first = [first for first, _ in tracker.edges]
        self._second = [second for _, second in tracker.edges]
        self._reasons = list(tracker.reasons)
        self._labels: Ids = np.empty(0, dtype=np.int64)
        self._fixed: dict[int, str] = {}
        self._keys: dict[int, Key] = {}
        self._members: Ids = np.empty(0, dtype=np.int64)
        self._edges: list[tuple[int, int]] = []
        self._protected: list[tuple[int, str]] = []

    def step(self) -> bool:
        """Labels everything by what is known so far; returns whether that led to further joins or protections."""
        self._edges, self._protected = [], []
        self._labels = self._components()
        self._members = np.unique(self._labels, return_index=True)[1]
        self._fixed = {}
        for ids, reason in self._reasons:
            for label in np.unique(self._labels[ids]):
                self._fixed.setdefault(int(label), reason)
        found: dict[int, dict[Key, Shape]] = {}
        for compound, (factors, sizes) in self._tracker.compounds.items():
            self._read(compound, factors, sizes, found)
        for key_by_shape in found.values():
            self._unify(key_by_shape)
        self._keys = {label: next(iter(keys)) for label, keys in found.items()}
        self._join_cycles()
        if self._edges:
            first, second = zip(*self._edges, strict=True)
            self._first.append(np.asarray(first, dtype=np.int64))
            self._second.append(np.asarray(second, dtype=np.int64))
        self._reasons += [(np.asarray([one], dtype=np.int64), reason) for one, reason in self._protected]
        return bool(self._edges or self._protected)

    def _components(self) -> Ids:
        empty = np.empty(0, dtype=np.int64)
        first, second = np.concatenate([empty, *self._first]), np.concatenate([empty, *self._second])
        count = self._tracker.count
        matrix = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(count, count))
        return np.asarray(connected_components(matrix, directed=False)[1], dtype=np.int64)

    def _read(self, compound: int, factors: Key, sizes: Shape, found: dict[int, dict[Key, Shape]]) -> None:
        label = int(self._labels[compound])
        labels = [int(self._labels[factor]) for factor in factors]
        if label in self._fixed:
            for one, factor in zip(labels, factors, strict=True):
                if one not in self._fixed:
                    self._protected.append((factor, self._fixed[label]))
            return
        loose = [(one, size) for one, size in zip(labels, sizes, strict=True) if one not in self._fixed]
        if not loose:
            self._protected.append((compound, self._fixed[labels[0]]))
        elif len({one for one, _ in loose}) == 1:
            if loose[0][0] != label:
                self._edges.append((compound, next(f for f in factors if self._labels[f] == loose[0][0])))
        else:
            found.setdefault(label, {}).setdefault(tuple(one for one, _ in loose), tuple(size for _, size in loose))

    def _unify(self, keys: dict[Key, Shape]) -> None:
        (first, shape), *others = keys.items()
        for key, other in others:
            if other == shape:
                self._edges += [(self._member(a), self._member(b)) for a, b in zip(first, key, strict=True) if a != b]
                continue
            reason = f"a grid of {_times(shape)} in one place and of {_times(other)} in another"
            for label in (*first[:-1], *key[:-1]):
                self._protected.append((self._member(label), reason))

    def _join_cycles(self) -> None:
        """A compound that is one of its own factors, also over several steps, equals all on the way."""
        finished: set[int] = set()
        for start in self._keys:
            path, stack = [], [(start, iter(self._keys[start]))]
            while stack:
                label, factors = stack[-1]
                path = [one for one, _ in stack]
                following = next((f for f in factors if f in self._keys and f not in finished), None)
                if following is None:
                    finished.add(label)
                    stack.pop()
                elif following in path:
                    members = path[path.index(following) :]
                    ids = [f for one in members for f in (one, *self._keys[one])]
                    self._edges += [(self._member(ids[0]), self._member(one)) for one in ids[1:]]
                    return
                else:
                    stack.append((following, iter(self._keys[following])))

    def _member(self, label: int) -> int:
        """An id that carries `label`."""
        return int(self._members[label])

    def solution(self) -> Solution:
        resolved = {label: self._resolve(label) for label in self._keys}
        labels = np.arange(int(self._labels.max()) + 1)
        is_compound = np.isin(labels, list(resolved))
        units = int((~is_compound).sum())
        number = np.empty(len(labels), dtype=np.int64)
        number[~is_compound] = np.arange(units)
        number[is_compound] = np.arange(units, len(labels))
        width = max((len(key) for key in resolved.values()), default=1)
        compounds = np.empty((len(resolved), width), dtype=np.int64)
        for label, key in resolved.items():
            compounds[number[label] - units] = number[[*key, *[key[-1]] * (width - len(key))]]
        reasons = {int(number[label]): reason for label, reason in self._fixed.items() if label not in resolved}
        marks: dict[str, frozenset[int]] = {}
        for mark, ids in self._tracker.marks:
            labels_of = np.unique(self._labels[ids])
            marked = number[labels_of[~is_compound[labels_of]]].tolist()
            marks[mark] = marks.get(mark, frozenset()).union(marked)
        return Solution(number[self._labels], units, compounds, reasons, marks)

    def _resolve(self, label: int) -> Key:
        """Factors that are no compounds themselves, in the order of the grid."""
        if label not in self._keys:
            return (label,)
        return tuple(dict.fromkeys(one for factor in self._keys[label] for one in self._resolve(factor)))


def _times(shape: Shape) -> str:
    return " x ".join(str(size) for size in shape)
