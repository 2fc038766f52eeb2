"""The half of a task that imports no torch: names, metrics, and what outputs and targets must look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from compressors.descriptions import ColumnDescription, TensorDescription, shape_text
from compressors.errors import InvalidData


@dataclass(frozen=True, kw_only=True)
class MetricDescription:
    """Higher is always better; a measure of which less is better enters with its sign turned, '-perplexity'.

    name: as a job names it. title: as people read it. needs_group: compares rows inside groups (`data.group`) only.
    """

    name: str
    title: str
    summary: str
    needs_group: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What a job may choose. metric: None for the task's first. ignore_index: None for the task's own value."""

    metric: str | None = None
    ignore_index: int | None = None


@dataclass(frozen=True, kw_only=True)
class TargetFacts:
    """What is known of a target column before a job starts.

    rows: of its dataset. output: of the model. ignore_index: the value that does not count. length: what lists are cut
    or filled to; None if nothing says so. padded: the lists of the inputs are cut or filled too.
    """

    column: ColumnDescription
    rows: int
    output: TensorDescription
    options: TaskOptions
    length: int | None = None
    padded: bool = False


class TaskDescription(ABC):
    """Subclass it, set the class variables, and give an instance to `bantam.tasks` (docs/tasks.md).

    outputs, target: what the model returns and what the target column holds, in one line. metrics: the first is the
    one that a job gets unless it names another. implementation: 'package.module:Class' of the `Task`, imported only by
    processes that compute. reads: how the target column is read:
        'values': as stored, rows of one shape;
        'lists': the same, and lists are cut or filled with `ignore_index` to the length of the outputs;
        'masks': as stored, or images whose pixels are class ids.
    ignore_index: target value that does not count; None: every value counts. input_may_be_target: a column may be both.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    outputs: ClassVar[str]
    target: ClassVar[str]
    metrics: ClassVar[tuple[MetricDescription, ...]]
    implementation: ClassVar[str]
    reads: ClassVar[Literal["values", "lists", "masks"]] = "values"
    ignore_index: ClassVar[int | None] = None
    input_may_be_target: ClassVar[bool] = False

    @abstractmethod
    def output_problems(self, output: TensorDescription) -> Iterator[str]:
        """Why a model with this one output cannot serve the task: value, limit and remedy, one sentence each."""

    @abstractmethod
    def target_problems(self, facts: TargetFacts) -> Iterator[str]:
        """Why this column cannot be the target. Missing and non-finite values are reported elsewhere."""

    def metric(self, name: str | None) -> MetricDescription:
        """The metric of this name, the first for None. Raises InvalidData."""
        if name is None:
            return self.metrics[0]
        found = next((metric for metric in self.metrics if metric.name == name), None)
        if found is None:
            known = ", ".join(repr(metric.name) for metric in self.metrics)
            raise InvalidData(f"metric={name!r}: {self.name} does not have it; it has {known}")
        return found

    def complete(self, options: TaskOptions) -> TaskOptions:
        """With the task's own values where `options` has none. Raises InvalidData for an unknown metric."""
        ignored = self.ignore_index if options.ignore_index is None else options.ignore_index
        return TaskOptions(metric=self.metric(options.metric).name, ignore_index=ignored)


# --- sentences that several tasks share -------------------------------------------------------------------------------


def not_float(output: TensorDescription, returns: str) -> Iterator[str]:
    """returns: what the model should return instead, 'the logits as float32, not the class'."""
    if not output.dtype.startswith("float"):
        yield f"the output has dtype {output.dtype}; return {returns}"


def holds(column: ColumnDescription) -> str:
    """'column 'y' holds float32 of shape (3,)'; the shape is left out for single values and where rows differ."""
    shape = "" if column.shape in ((), None) else f" of shape {shape_text(column.shape or ())}"
    return f"column {column.name!r} holds {column.dtype}{shape}"


def labels_out_of_range(facts: TargetFacts, classes: int | None, what: str = "label") -> Iterator[str]:
    """Labels must lie in 0..classes-1 or equal the value that is ignored."""
    column, ignored = facts.column, facts.options.ignore_index
    low, high = column.minimum, column.maximum
    name = f"column {column.name!r}"
    if low is not None and low < 0 and low != ignored:
        yield f"{name} holds the {what} {int(low)}; {what}s must not be negative; remove or renumber these rows"
    if high is not None and classes is not None and high >= classes and high != ignored:
        yield (
            f"{name} holds the {what} {int(high)}; the model knows {classes} classes, 0..{classes - 1}; renumber them"
        )


def only_one_label(facts: TargetFacts) -> Iterator[str]:
    column = facts.column
    if column.distinct == 1 and facts.rows > 1:
        yield (
            f"column {column.name!r} holds the label {int(column.minimum or 0)} in every row; at least 2 classes are "
            "needed; add rows"
        )
