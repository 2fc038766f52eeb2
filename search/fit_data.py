"""Whether the data of a job fit each other and the model, decided from descriptions alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from compressors.datasets import dtype_problem, input_shape
from compressors.descriptions import (
    ColumnDescription,
    DatasetDescription,
    ModelDescription,
    TensorDescription,
    shape_text,
)
from compressors.errors import InvalidData
from compressors.tasks import describe
from search.problems import Problem
from search.spec import DataSpec, InputSpec, JobSpec

# Below this a part of the data says nothing about a model.
MIN_ROWS = 10


def check_datasets(data: DataSpec, datasets: Mapping[str, DatasetDescription]) -> Iterator[Problem]:
    for role in ("train", "validation", "test"):
        name = getattr(data, role)
        if name is not None and name not in datasets:
            yield Problem(f"data.{role}", f"{name!r}: no such dataset; upload it with POST /v1/datasets")
    if data.validation is not None and data.validation == data.train:
        yield Problem(
            "data.validation",
            f"{data.validation!r} is the training data too; set rows aside with validation_rows or validation_fraction",
        )
    if data.test is not None and data.test in (data.train, data.validation):
        role = "training" if data.test == data.train else "validation"
        yield Problem(
            "data.test",
            f"{data.test!r} is the {role} data too, so the result would not be confirmed on unseen rows; leave it out "
            "or upload other rows",
        )


def check_inputs(spec: JobSpec, role: str, model: ModelDescription, dataset: DatasetDescription) -> Iterator[Problem]:
    data, may_be_target = spec.data, describe(spec.task).input_may_be_target
    columns = {column.name: column for column in dataset.columns}
    if len(data.columns) != len(model.inputs):
        takes = ", ".join(f"{t.name!r} {shape_text(t.shape)} {t.dtype}" for t in model.inputs)
        yield Problem(
            "data.inputs",
            f"{len(data.columns)} columns for a model with {len(model.inputs)} inputs ({takes}); name one for each, "
            "in order",
        )
    for i, given in enumerate(data.columns):
        # Problems of the training data belong to the field that names the column, others to the field of the dataset.
        field = f"data.inputs[{i}]" if role == "train" else f"data.{role}"
        if given.column == data.target and role == "train" and not may_be_target:
            yield Problem(
                field, f"{given.column!r} is the target too; a model must not see its label; name another column"
            )
        column = columns.get(given.column)
        if column is None:
            yield Problem(field, missing_column(given.column, dataset, role))
            continue
        yield from (Problem(field, message) for message in bad_rows(column))
        if len(data.columns) == len(model.inputs):
            yield from (Problem(field, message) for message in _input_fits(given, column, model.inputs[i]))


def _input_fits(spec: InputSpec, column: ColumnDescription, tensor: TensorDescription) -> Iterator[str]:
    problem = dtype_problem(column, tensor, spec.scale)
    if problem is not None:
        yield problem
        if column.kind in ("text", "other"):
            return
    if spec.pad_to is not None and (column.kind == "image" or (column.shape is not None and len(column.shape) != 1)):
        what = "images" if column.kind == "image" else f"rows of shape {shape_text(column.shape or ())}"
        yield f"column {column.name!r}: pad_to={spec.pad_to} is for lists of numbers, these are {what}; leave it out"
        return
    try:
        input_shape(column, tensor, spec.pad_to)
    except InvalidData as error:
        yield str(error)
    limit = tensor.id_limit
    low, high = column.minimum, column.maximum
    if column.kind == "integer" and spec.scale is None and limit is not None and low is not None and high is not None:
        if low < 0:
            yield f"column {column.name!r} holds the id {int(low)}; ids must lie in 0..{limit - 1}; shift them"
        if high >= limit:
            yield (
                f"column {column.name!r} holds the id {int(high)}; the model's input {tensor.name!r} looks up "
                f"{limit} ids, 0..{limit - 1}; use the tokenizer that belongs to the model"
            )


def check_rows(spec: JobSpec, datasets: Mapping[str, DatasetDescription]) -> Iterator[Problem]:
    data, rows = spec.data, datasets[spec.data.train].rows
    left, parts = rows, ["tuning"]
    if data.validation_rows is not None:
        start, stop = data.validation_rows
        if stop > rows:
            yield Problem(
                "data.validation_rows", f"{[start, stop]} ends after the last row; train has {rows} rows, 0..{rows - 1}"
            )
            return
        left -= stop - start
        yield from _enough("data.validation_rows", stop - start, "for validation", "widen the range")
    elif data.validation_fraction is not None:
        held = round(data.validation_fraction * rows)
        left -= held
        yield from _enough("data.validation_fraction", held, "for validation", "raise the fraction or add rows")
    elif data.validation is None:
        parts.append("validation")
    if data.test is None:
        parts.append("confirming the winner")
    needed = MIN_ROWS * len(parts)
    if left < needed:
        given = [f for f in ("validation_rows", "validation_fraction") if getattr(data, f) is not None]
        field = f"data.{given[0] if given else 'train'}"
        yield Problem(
            field, f"{left} of {rows} rows are left for {' and '.join(parts)}; at least {needed} are needed; add rows"
        )
    for role in ("validation", "test"):
        name = getattr(data, role)
        if name is not None and name in datasets:
            yield from _enough(f"data.{role}", datasets[name].rows, "", "add rows")
    if spec.target.batch_size > rows:
        yield Problem(
            "target.batch_size", f"{spec.target.batch_size} is more than the {rows} rows of train; lower it or add rows"
        )


def _enough(field: str, rows: int, purpose: str, remedy: str) -> Iterator[Problem]:
    if rows < MIN_ROWS:
        yield Problem(field, f"{rows} rows{' ' if purpose else ''}{purpose}; at least {MIN_ROWS} are needed; {remedy}")


def bad_rows(column: ColumnDescription) -> Iterator[str]:
    kinds = (
        (column.nulls, "missing values"),
        (column.non_finite, "NaN or infinite values"),
        (column.unreadable, "images that do not decode"),
    )
    found = [f"{count} rows with {kind}" for count, kind in kinds if count]
    if found:
        yield (
            f"column {column.name!r} has {' and '.join(found)}, the first bad row is {column.first_bad_row}; "
            "remove or repair these rows and upload the data again"
        )


def missing_column(name: str, dataset: DatasetDescription, role: str) -> str:
    names = [column.name for column in dataset.columns]
    near = difflib.get_close_matches(name, names, n=1) or [n for n in names if n.lower() == name.lower()]
    known = ", ".join(map(repr, names[:10])) + (", …" if len(names) > 10 else "")
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"column {name!r} is not in the {role} data{hint}; it has {known}"
