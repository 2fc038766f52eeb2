"""How the target column of a job is read: its task, its padding and its groups. Imports no torch."""

from __future__ import annotations

from compressors.datasets import TargetColumn
from compressors.descriptions import TensorDescription
from compressors.tasks import TaskOptions, describe
from search.spec import DataSpec, JobSpec


def task_options(spec: JobSpec) -> TaskOptions:
    """Complete: what the job leaves out takes the task's own value. Raises InvalidData."""
    return describe(spec.task).complete(TaskOptions(metric=spec.metric, ignore_index=spec.data.ignore_index))


def target_length(data: DataSpec, output: TensorDescription) -> int | None:
    """What lists of the target are cut or filled to: the positions of the output, or of the padded input it follows."""
    if len(output.shape) > 1 and output.shape[1] is not None:
        return output.shape[1]
    lengths = {column.pad_to for column in data.columns if column.pad_to is not None}
    return lengths.pop() if len(lengths) == 1 else None


def target_column(spec: JobSpec, output: TensorDescription) -> TargetColumn:
    """output: of the model."""
    reads, options = describe(spec.task).reads, task_options(spec)
    if reads != "lists":
        return TargetColumn(column=spec.data.target, class_ids=reads == "masks")
    length = target_length(spec.data, output)
    return TargetColumn(column=spec.data.target, length=length, fill=options.ignore_index or 0)


def group_column(spec: JobSpec) -> str | None:
    """None where the metric compares all rows."""
    needed = describe(spec.task).metric(spec.metric).needs_group
    return spec.data.group if needed else None
