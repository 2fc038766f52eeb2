"""Tasks whose answers are numbers: a value to hit, or a score to sort by."""

from __future__ import annotations

from collections.abc import Iterator

from compressors.descriptions import TensorDescription, shape_text
from compressors.tasks.description import MetricDescription, TargetFacts, TaskDescription, holds, not_float
from compressors.tasks.label_tasks import AUC, one_value_per_row
from compressors.tasks.registry import register_task

CUTOFFS = (5, 10, 20, 100)


@register_task
class Regression(TaskDescription):
    name = "regression"
    summary = "one or more numbers per row"
    outputs = "(batch,), (batch, 1) or (batch, values)"
    target = "one number per row, or a list of as many as the model gives"
    metrics = (
        MetricDescription(
            name="r2", title="R²", summary="share of the target's variance that is explained; mean over values"
        ),
        MetricDescription(
            name="-rmse", title="−RMSE", summary="root of the mean squared error, negative, in the target's unit"
        ),
    )
    implementation = "compressors.tasks.regression:RegressionTask"

    def output_problems(self, output: TensorDescription) -> Iterator[str]:
        if len(output.shape) not in (1, 2) or (len(output.shape) == 2 and output.shape[1] is None):
            yield (
                f"the output has shape {shape_text(output.shape)}, regression needs (batch,) or (batch, values) with a "
                "fixed number of values; flatten it"
            )
        yield from not_float(output, "the values as float32")

    def target_problems(self, facts: TargetFacts) -> Iterator[str]:
        column, shape = facts.column, facts.output.shape
        values = 1 if len(shape) == 1 else shape[1] if len(shape) == 2 else None
        wanted = "one number" if values == 1 else "a list of numbers" if values is None else f"{values} numbers"
        if column.kind not in ("integer", "float") or column.shape is None or len(column.shape) > 1:
            yield f"{holds(column)}; regression needs {wanted} per row"
            return
        given = column.shape[0] if column.shape else 1
        if values is not None and given != values:
            yield f"{holds(column)}; the model gives {values} value{'' if values == 1 else 's'} per row; match them"
        if column.minimum is not None and column.minimum == column.maximum:
            yield f"column {column.name!r} holds {column.minimum:g} in every row; there is nothing to predict; add rows"


@register_task
class Ranking(TaskDescription):
    """Gains of NDCG are the grades themselves (Järvelin & Kekäläinen 2002), as in torchmetrics and scikit-learn."""

    name = "ranking"
    summary = "a score per row, by which rows are sorted"
    outputs = "(batch,) or (batch, 1) scores: logits of relevance"
    target = "one grade of relevance per row, 0 upwards; 0 or 1 for AUC"
    metrics = (
        AUC,
        *(
            MetricDescription(
                name=f"ndcg@{k}",
                title=f"NDCG@{k}",
                summary=f"normalised discounted gain of the first {k} rows of each group",
                needs_group=True,
            )
            for k in CUTOFFS
        ),
        MetricDescription(
            name="ndcg", title="NDCG", summary="normalised discounted gain of each group", needs_group=True
        ),
    )
    implementation = "compressors.tasks.ranking:RankingTask"

    def output_problems(self, output: TensorDescription) -> Iterator[str]:
        yield from one_value_per_row(output, self.name, "return one score per row")
        yield from not_float(output, "the scores as float32")

    def target_problems(self, facts: TargetFacts) -> Iterator[str]:
        column = facts.column
        if column.kind not in ("integer", "float") or column.shape not in ((), (1,)):
            yield f"{holds(column)}; ranking needs one grade of relevance per row, 0 upwards"
            return
        low, high = column.minimum, column.maximum
        metric = self.metric(facts.options.metric)
        if low is not None and low < 0:
            yield f"column {column.name!r} holds the grade {low:g}; grades must not be negative; shift them"
        if low is not None and low == high:
            yield f"column {column.name!r} holds the grade {low:g} in every row; there is no order to find; add rows"
        if not metric.needs_group and ((high or 0) > 1 or (column.kind == "float" and (column.distinct or 3) > 2)):
            yield (
                f"column {column.name!r} holds grades up to {high or 0:g}; {metric.name} needs 0 or 1; "
                "set metric to 'ndcg@10' or make them 0 or 1"
            )
