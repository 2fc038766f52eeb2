"""Whether target, group and the options of a task fit the data and the model, decided from descriptions alone."""

from __future__ import annotations

from collections.abc import Iterator

from compressors.descriptions import DatasetDescription, ModelDescription
from compressors.tasks import TargetFacts, describe
from search.fit_data import bad_rows, missing_column
from search.problems import Problem
from search.spec import JobSpec
from search.targets import target_length, task_options


def check_task_fields(spec: JobSpec) -> Iterator[Problem]:
    """Fields that this task, or its metric, needs or cannot use."""
    description = describe(spec.task)
    metric = description.metric(spec.metric)
    if spec.data.ignore_index is not None and description.ignore_index is None:
        yield Problem("data.ignore_index", f"{spec.data.ignore_index}: in {spec.task} every value counts; leave it out")
    if metric.needs_group and spec.data.group is None:
        yield Problem(
            "data.group", f"missing: {metric.name} compares rows within groups; name the integer column of query ids"
        )
    if spec.data.group is not None and not metric.needs_group:
        others = [m.name for m in description.metrics if m.needs_group]
        remedy = f"set metric to one of {', '.join(others)}, or leave it out" if others else "leave it out"
        yield Problem("data.group", f"{spec.data.group!r}: {metric.name} compares all rows; {remedy}")


def check_target(spec: JobSpec, role: str, model: ModelDescription, dataset: DatasetDescription) -> Iterator[Problem]:
    field = _field("target", role)
    column = next((column for column in dataset.columns if column.name == spec.data.target), None)
    if column is None:
        yield Problem(field, missing_column(spec.data.target, dataset, role))
        return
    yield from (Problem(field, message) for message in bad_rows(column))
    if len(model.outputs) != 1:
        return
    output, description = model.outputs[0], describe(spec.task)
    facts = TargetFacts(
        column=column,
        rows=dataset.rows,
        output=output,
        options=task_options(spec),
        length=target_length(spec.data, output) if description.reads == "lists" else None,
        padded=any(c.pad_to is not None for c in spec.data.columns),
    )
    yield from (Problem(field, message) for message in description.target_problems(facts))


def check_group(spec: JobSpec, role: str, dataset: DatasetDescription) -> Iterator[Problem]:
    if spec.data.group is None or not describe(spec.task).metric(spec.metric).needs_group:
        return
    field = _field("group", role)
    column = next((column for column in dataset.columns if column.name == spec.data.group), None)
    if column is None:
        yield Problem(field, missing_column(spec.data.group, dataset, role))
    elif column.kind != "integer" or column.shape != ():
        yield Problem(
            field, f"column {column.name!r} holds {column.dtype}; groups are told apart by one integer per row"
        )
    else:
        yield from (Problem(field, message) for message in bad_rows(column))
        if column.distinct == 1:
            yield Problem(field, f"column {column.name!r} holds one group only; 2 or more are needed to split the rows")


def _field(name: str, role: str) -> str:
    """Problems of the training data belong to the field that names the column, others to the field of the dataset."""
    return f"data.{name}" if role == "train" else f"data.{role}"
