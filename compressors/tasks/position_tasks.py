"""Tasks with one answer per position: pixels of an image, tokens of a text, the next token."""

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
)
from compressors.tasks.registry import register_task

LOGITS = "the logits as float32, not the class"


@register_task
class Segmentation(TaskDescription):
    name = "segmentation"
    summary = "one class of several per pixel"
    outputs = "(batch, classes, height, width) logits"
    target = "a class id per pixel: gray or palette PNG, or integers (height, width)"
    metrics = (
        MetricDescription(
            name="mean_iou", title="mean IoU", summary="mean over the classes that occur of intersection over union"
        ),
        MetricDescription(name="accuracy", title="pixel accuracy", summary="share of pixels whose class is right"),
    )
    implementation = "compressors.tasks.segmentation:SegmentationTask"
    reads = "masks"
    ignore_index = 255  # of PASCAL VOC, COCO-Stuff, Cityscapes; masks of bytes have no negative values

    def output_problems(self, output: TensorDescription) -> Iterator[str]:
        if len(output.shape) != 4:
            yield (
                f"the output has {len(output.shape)} dimensions {shape_text(output.shape)}, segmentation needs 4 "
                "(batch, classes, height, width); return logits for every pixel"
            )
        elif output.shape[1] is None or output.shape[1] < 2:
            yield f"the output has shape {shape_text(output.shape)}; segmentation needs 2 or more fixed classes"
        yield from not_float(output, LOGITS)

    def target_problems(self, facts: TargetFacts) -> Iterator[str]:
        column, shape = facts.column, facts.output.shape
        if column.kind not in ("integer", "image") or column.shape == ():
            yield f"{holds(column)}; segmentation needs a class id per pixel: gray or palette PNG, or integers"
            return
        if column.kind == "image" and column.maximum is None:
            yield (
                f"column {column.name!r} holds colour or lossy images, whose pixels are no class ids; store the masks "
                "as gray or palette PNG"
            )
            return
        size = column.shape if column.kind == "integer" or column.shape is None else column.shape[1:]
        size = size[1:] if size is not None and len(size) == 3 and size[0] == 1 else size
        if size is None or len(size) != 2:
            given = "of different sizes" if size is None else f"of shape {shape_text(size)}"
            yield f"column {column.name!r} holds masks {given}; bring them to one height and width"
        elif len(shape) == 4 and any(w not in (None, s) for w, s in zip(shape[2:], size, strict=True)):
            yield (
                f"column {column.name!r} holds masks of {shape_text(size)}, the model's output is {shape_text(shape)}; "
                "resize the masks to the output, without interpolation"
            )
        yield from labels_out_of_range(facts, shape[1] if len(shape) == 4 else None)


@register_task
class TokenClassification(TaskDescription):
    name = "token_classification"
    summary = "one class of several per token"
    outputs = "(batch, length, classes) logits"
    target = "a list of integers per row, one for each token; -100 does not count"
    metrics = (
        MetricDescription(name="accuracy", title="token accuracy", summary="share of tokens whose class is right"),
        MetricDescription(
            name="f1_macro", title="macro F1", summary="mean of F1 over the classes that occur, rare ones alike"
        ),
    )
    implementation = "compressors.tasks.token_classification:TokenClassificationTask"
    reads = "lists"
    ignore_index = -100  # of torch.nn.functional.cross_entropy and Hugging Face

    def output_problems(self, output: TensorDescription) -> Iterator[str]:
        yield from _three_dimensions(output, self.name, "classes")

    def target_problems(self, facts: TargetFacts) -> Iterator[str]:
        yield from _lists_of_labels(facts, self.name, "label")


@register_task
class LanguageModelling(TaskDescription):
    name = "language_modelling"
    summary = "the next token, at every position"
    outputs = "(batch, length, vocabulary) logits; those at position i predict token i + 1"
    target = "the token ids of the same positions, so usually the input column itself; -100 does not count"
    metrics = (
        MetricDescription(
            name="-perplexity", title="−perplexity", summary="exp of the mean cross-entropy of a token, negative"
        ),
        MetricDescription(
            name="-cross_entropy", title="−cross-entropy", summary="mean cross-entropy of a token in nats, negative"
        ),
    )
    implementation = "compressors.tasks.language_modelling:LanguageModellingTask"
    reads = "lists"
    ignore_index = -100
    input_may_be_target = True

    def output_problems(self, output: TensorDescription) -> Iterator[str]:
        yield from _three_dimensions(output, self.name, "vocabulary")

    def target_problems(self, facts: TargetFacts) -> Iterator[str]:
        yield from _lists_of_labels(facts, self.name, "id")
        if facts.length is not None and facts.length < 2:
            yield f"{self.name} needs rows of 2 or more tokens, these have {facts.length}; raise pad_to"


def _three_dimensions(output: TensorDescription, name: str, last: str) -> Iterator[str]:
    if len(output.shape) != 3:
        yield (
            f"the output has {len(output.shape)} dimensions {shape_text(output.shape)}, {name} needs 3 "
            f"(batch, length, {last}); return logits for every token"
        )
    elif output.shape[2] is None or output.shape[2] < 2:
        yield f"the output has shape {shape_text(output.shape)}; {name} needs a last dimension of 2 or more, fixed"
    yield from not_float(output, LOGITS)


def _lists_of_labels(facts: TargetFacts, name: str, what: str) -> Iterator[str]:
    column, shape = facts.column, facts.output.shape
    if column.kind != "integer" or (column.shape is not None and len(column.shape) != 1):
        yield f"{holds(column)}; {name} needs a list of integers per row, one for each token"
        return
    if facts.length is None and column.shape is None:
        yield (
            f"column {column.name!r} holds lists of different lengths and the model's output has any; set pad_to on "
            "the input, and both are cut or filled to it"
        )
    elif facts.length is not None and not facts.padded and column.shape != (facts.length,):
        given = "lists of different lengths" if column.shape is None else f"lists of {column.shape[0]}"
        yield (
            f"column {column.name!r} holds {given}, the model has {facts.length} positions; set pad_to on the input, "
            "or store one value per position"
        )
    yield from labels_out_of_range(facts, shape[2] if len(shape) == 3 else None, what)
