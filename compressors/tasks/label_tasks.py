"""Tasks whose answers are labels of a whole row: one of several, yes or no, any of several."""

from __future__ import annotations

from collections.abc import Iterator

from compressors.descriptions import TensorDescription, shape_text
from compressors.tasks.description import (
    MetricDescription,
    TargetFacts,
    TaskDescription,
    holds,
    labels_out_of_range,
    not_float,
    only_one_label,
)
from compressors.tasks.registry import register_task

AUC = MetricDescription(
    name="auc", title="AUC", summary="area under the ROC curve: the share of pairs in the right order"
)


@register_task
class Classification(TaskDescription):
    name = "classification"
    summary = "one class of several per row"
    outputs = "(batch, classes) logits"
    target = "one integer per row, 0..classes-1"
    metrics = (
        MetricDescription(name="accuracy", title="top-1 accuracy", summary="share of rows whose class is right"),
    )
    implementation = "compressors.tasks.classification:ClassificationTask"

    def output_problems(self, output: TensorDescription) -> Iterator[str]:
        if len(output.shape) != 2:
            yield (
                f"the output has {len(output.shape)} dimensions {shape_text(output.shape)}, classification needs 2 "
                "(batch, classes); return one row of logits per sample"
            )
        elif output.shape[1] is None or output.shape[1] < 2:
            remedy = "; for one logit per row take the task 'binary'" if output.shape[1] == 1 else ""
            yield (
                f"the output has shape {shape_text(output.shape)}; classification needs 2 or more fixed classes{remedy}"
            )
        yield from not_float(output, "the logits as float32, not the class")

    def target_problems(self, facts: TargetFacts) -> Iterator[str]:
        column, shape = facts.column, facts.output.shape
        if column.kind != "integer" or column.shape != ():
            yield f"{holds(column)}; classification needs one integer per row, 0 upwards"
            return
        classes = shape[1] if len(shape) == 2 and shape[1] != 1 else None
        yield from labels_out_of_range(facts, classes)
        yield from only_one_label(facts)


@register_task
class Binary(TaskDescription):
    name = "binary"
    summary = "yes or no per row"
    outputs = "(batch,) or (batch, 1) logits; above 0 is yes"
    target = "one 0 or 1 per row"
    metrics = (
        MetricDescription(name="accuracy", title="accuracy", summary="share of rows whose answer is right"),
        AUC,
    )
    implementation = "compressors.tasks.binary:BinaryTask"

    def output_problems(self, output: TensorDescription) -> Iterator[str]:
        yield from one_value_per_row(output, self.name, "the task 'classification' takes one logit for each class")
        yield from not_float(output, "the logits as float32, not the answer")

    def target_problems(self, facts: TargetFacts) -> Iterator[str]:
        yield from zeros_and_ones(facts, self.name)
        yield from only_one_label(facts)


@register_task
class MultiLabel(TaskDescription):
    """Macro F1 comes first: pruning and quantisation damage rare labels long before frequent ones (Hooker et al. 2019,
    arXiv:1911.05248), which micro F1 hides; mAP hides a shifted threshold, which users of the answers feel.
    """

    name = "multi_label"
    summary = "any number of several labels per row"
    outputs = "(batch, labels) logits; above 0 is yes"
    target = "a list of 0 or 1 per row, one for each label"
    metrics = (
        MetricDescription(
            name="f1_macro", title="macro F1", summary="mean over labels of F1 at logit 0; rare labels count as much"
        ),
        MetricDescription(name="f1_micro", title="micro F1", summary="F1 at logit 0 over all answers together"),
        MetricDescription(
            name="map", title="mAP", summary="mean over labels of the average precision, at no particular threshold"
        ),
    )
    implementation = "compressors.tasks.multi_label:MultiLabelTask"

    def output_problems(self, output: TensorDescription) -> Iterator[str]:
        if len(output.shape) != 2 or output.shape[1] is None:
            yield (
                f"the output has shape {shape_text(output.shape)}, multi_label needs (batch, labels) with a fixed "
                "number of labels; return one row of logits per sample"
            )
        yield from not_float(output, "the logits as float32, not the answers")

    def target_problems(self, facts: TargetFacts) -> Iterator[str]:
        column, shape = facts.column, facts.output.shape
        labels = shape[1] if len(shape) == 2 else None
        wanted = "any" if labels is None else str(labels)
        if column.kind not in ("integer", "float") or column.shape is None or len(column.shape) != 1:
            differs = " in lists of different lengths" if column.shape is None else ""
            yield f"{holds(column)}{differs}; multi_label needs a list of {wanted} zeros and ones per row"
            return
        if labels is not None and column.shape[0] != labels:
            yield f"{holds(column)}; the model has {labels} labels; store one 0 or 1 for each"
        yield from _only_zeros_and_ones(facts, self.name)


def one_value_per_row(output: TensorDescription, name: str, otherwise: str) -> Iterator[str]:
    if len(output.shape) not in (1, 2) or (len(output.shape) == 2 and output.shape[1] != 1):
        yield f"the output has shape {shape_text(output.shape)}, {name} needs (batch,) or (batch, 1); {otherwise}"


def zeros_and_ones(facts: TargetFacts, name: str) -> Iterator[str]:
    """One per row."""
    column = facts.column
    if column.kind not in ("integer", "float") or column.shape not in ((), (1,)):
        yield f"{holds(column)}; {name} needs one 0 or 1 per row"
        return
    yield from _only_zeros_and_ones(facts, name)


def _only_zeros_and_ones(facts: TargetFacts, name: str) -> Iterator[str]:
    column = facts.column
    for value in (column.minimum, column.maximum):
        if value is not None and value not in (0, 1):
            yield f"column {column.name!r} holds {value:g}; {name} needs 0 for no and 1 for yes; renumber them"
            return
