"""Jobs that cannot work are refused before they start, with every reason, the field and the remedy."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pytest

from compressors.descriptions import (
    ColumnDescription,
    DatasetDescription,
    LayerDescription,
    ModelDescription,
    TensorDescription,
)
from search.fit import Problem, check_fit
from search.spec import JobSpec

IMAGE = ColumnDescription(name="image", kind="image", dtype="uint8", shape=(3, 8, 8))
LABEL = ColumnDescription(name="label", kind="integer", dtype="int64", shape=(), minimum=0, maximum=9, distinct=10)
IDS = ColumnDescription(name="ids", kind="integer", dtype="int64", shape=None, minimum=0, maximum=99)
PIXELS = ColumnDescription(name="pixels", kind="float", dtype="float32", shape=(8, 8), minimum=0, maximum=1)
TEXT = ColumnDescription(name="text", kind="text", dtype="string", shape=(), distinct=400)
MODEL = ModelDescription(
    format="pt2",
    parameters=1000,
    inputs=(TensorDescription(name="x", shape=(None, 3, 8, 8), dtype="float32"),),
    outputs=(TensorDescription(name="output", shape=(None, 10), dtype="float32"),),
    layers=(LayerDescription(name="conv", kind="Conv2d", parameters=1000, macs=1000),),
    batch_is_dynamic=True,
)


def dataset(*columns: ColumnDescription, rows: int = 500) -> DatasetDescription:
    return DatasetDescription(format="parquet", rows=rows, columns=columns)


TRAIN = dataset(IMAGE, LABEL, IDS, PIXELS, TEXT)
DATASETS = {"train": TRAIN, "other": TRAIN, "third": TRAIN}


def spec(data: Mapping[str, Any] | None = None, **fields: Any) -> JobSpec:
    given = {"train": "train", "inputs": ["image"], "target": "label", **(data or {})}
    return JobSpec.model_validate({"model": "m", "budget": {"size_ratio": 0.5}, "data": given, **fields})


def with_column(column: ColumnDescription, **changes: Any) -> dict[str, DatasetDescription]:
    changed = dataclasses.replace(column, **changes)
    columns = [changed if c.name == changed.name else c for c in TRAIN.columns]
    return {"train": dataset(*columns)}


def model(**changes: Any) -> ModelDescription:
    return dataclasses.replace(MODEL, **changes)


def takes(*inputs: TensorDescription) -> ModelDescription:
    return model(inputs=inputs)


def token_model(*shape: int | None) -> ModelDescription:
    return takes(TensorDescription(name="ids", shape=(None, *shape), dtype="int64", id_limit=100))


@pytest.mark.parametrize(
    ("job", "of"),
    [
        (spec(), MODEL),
        (spec({"validation_rows": [400, 500], "test": "other"}), MODEL),
        (spec({"validation_fraction": 0.1}), MODEL),
        (spec({"validation": "other", "test": "third"}), MODEL),
        (spec({"inputs": [{"column": "image", "scale": 2.0}]}), MODEL),
        (spec(), takes(TensorDescription(name="x", shape=(None, 1, 8, 8), dtype="float32"))),
        (spec({"inputs": ["pixels"]}), takes(TensorDescription(name="x", shape=(None, 1, 8, 8), dtype="float32"))),
        (spec({"inputs": [{"column": "ids", "pad_to": 16}]}), token_model(None)),
        (spec({"inputs": [{"column": "ids", "pad_to": 16}]}), token_model(16)),
        (spec(techniques=["distillation", "quantization"]), MODEL),
    ],
)
def test_jobs_that_fit(job: JobSpec, of: ModelDescription) -> None:
    assert check_fit(job, of, DATASETS) == ()


def _only(problems: tuple[Problem, ...]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


Case = tuple[JobSpec, ModelDescription, Mapping[str, DatasetDescription], str, str]
CASES: dict[str, Case] = {
    "misspelt input": (
        spec({"inputs": ["imgae"]}),
        MODEL,
        DATASETS,
        "data.inputs[0]",
        r"'imgae' is not in the train data \(did you mean 'image'\?\); it has 'image'",
    ),
    "unknown dataset": (spec({"test": "none"}), MODEL, DATASETS, "data.test", "no such dataset"),
    "too many inputs": (
        spec({"inputs": ["image", "pixels"]}),
        MODEL,
        DATASETS,
        "data.inputs",
        r"2 columns for a model with 1 inputs \('x' \(any, 3, 8, 8\) float32\)",
    ),
    "image of another size": (
        spec(),
        MODEL,
        with_column(IMAGE, shape=(3, 9, 8)),
        "data.inputs[0]",
        r"rows of shape \(3, 9, 8\), the model's input 'x' takes \(3, 8, 8\); resize the images",
    ),
    "images of several sizes": (
        spec(),
        MODEL,
        with_column(IMAGE, shape=None),
        "data.inputs[0]",
        "resize the images to one size",
    ),
    "float for token ids": (
        spec({"inputs": ["pixels"]}),
        takes(TensorDescription(name="ids", shape=(None, 8, 8), dtype="int64")),
        DATASETS,
        "data.inputs[0]",
        "holds float32, the model's input 'ids' takes int64; store token ids as integers",
    ),
    "integers for floats": (
        spec({"inputs": [{"column": "ids", "pad_to": 8}]}),
        takes(TensorDescription(name="x", shape=(None, 8), dtype="float32")),
        DATASETS,
        "data.inputs[0]",
        "store it as float32, or give a scale",
    ),
    "text": (spec({"inputs": ["text"]}), MODEL, DATASETS, "data.inputs[0]", "holds text, .* first"),
    "ragged without pad_to": (spec({"inputs": ["ids"]}), token_model(16), DATASETS, "data.inputs[0]", "set pad_to"),
    "padded to another length": (
        spec({"inputs": [{"column": "ids", "pad_to": 8}]}),
        token_model(16),
        DATASETS,
        "data.inputs[0]",
        r"shape \(8,\), the model's input 'ids' takes \(16\)",
    ),
    "padded images": (
        spec({"inputs": [{"column": "image", "pad_to": 8}]}),
        MODEL,
        DATASETS,
        "data.inputs[0]",
        "pad_to=8 is for lists of numbers, these are images; leave it out",
    ),
    "id beyond the embedding": (
        spec({"inputs": [{"column": "ids", "pad_to": 8}]}),
        token_model(None),
        with_column(IDS, maximum=100),
        "data.inputs[0]",
        r"holds the id 100; .* looks up 100 ids, 0\.\.99",
    ),
    "negative id": (
        spec({"inputs": [{"column": "ids", "pad_to": 8}]}),
        token_model(None),
        with_column(IDS, minimum=-1),
        "data.inputs[0]",
        "holds the id -1",
    ),
    "missing and unreadable images": (
        spec(),
        MODEL,
        with_column(IMAGE, nulls=2, unreadable=1, first_bad_row=17),
        "data.inputs[0]",
        "2 rows with missing values and 1 rows with images that do not decode, the first bad row is 17; remove",
    ),
    "NaN": (
        spec({"inputs": ["pixels"]}),
        takes(TensorDescription(name="x", shape=(None, 8, 8), dtype="float32")),
        with_column(PIXELS, non_finite=3, first_bad_row=4),
        "data.inputs[0]",
        "3 rows with NaN or infinite values, the first bad row is 4",
    ),
    "missing target": (spec({"target": "labels"}), MODEL, DATASETS, "data.target", "did you mean 'label'"),
    "text target": (spec({"target": "text"}), MODEL, DATASETS, "data.target", "holds string; classification needs"),
    "list target": (
        spec(),
        MODEL,
        with_column(LABEL, shape=(2,)),
        "data.target",
        r"int64 of shape \(2\); classification needs one integer",
    ),
    "label beyond the classes": (
        spec(),
        MODEL,
        with_column(LABEL, minimum=1, maximum=10),
        "data.target",
        r"holds the label 10; the model knows 10 classes, 0\.\.9",
    ),
    "negative label": (spec(), MODEL, with_column(LABEL, minimum=-1), "data.target", "holds the label -1"),
    "one class": (spec(), MODEL, with_column(LABEL, maximum=0, distinct=1), "data.target", "label 0 in every row"),
    "missing label": (spec(), MODEL, with_column(LABEL, nulls=1, first_bad_row=3), "data.target", "first bad row is 3"),
    "input is the target": (
        spec({"inputs": ["label"]}),
        takes(TensorDescription(name="x", shape=(None,), dtype="int64")),
        DATASETS,
        "data.inputs[0]",
        "'label' is the target too",
    ),
    "range beyond the end": (
        spec({"validation_rows": [450, 600]}),
        MODEL,
        DATASETS,
        "data.validation_rows",
        r"\[450, 600\] ends after the last row; train has 500 rows",
    ),
    "range that leaves nothing": (
        spec({"validation_rows": [0, 500], "test": "other"}),
        MODEL,
        DATASETS,
        "data.validation_rows",
        "0 of 500 rows are left for tuning; at least 10 are needed",
    ),
    "range of a few rows": (
        spec({"validation_rows": [0, 3]}),
        MODEL,
        DATASETS,
        "data.validation_rows",
        "3 rows for validation; at least 10",
    ),
    "fraction of a few rows": (
        spec({"validation_fraction": 0.001}),
        MODEL,
        DATASETS,
        "data.validation_fraction",
        "0 rows for validation; at least 10 .* raise the fraction",
    ),
    "too few rows": (
        spec(),
        MODEL,
        {"train": dataset(IMAGE, LABEL, rows=29)},
        "data.train",
        "29 of 29 rows are left for tuning and validation and confirming the winner; at least 30",
    ),
    "small test set": (
        spec({"test": "other"}),
        MODEL,
        {**DATASETS, "other": dataset(IMAGE, LABEL, rows=2)},
        "data.test",
        "2 rows; at least 10",
    ),
    "validation of another shape": (
        spec({"validation": "other"}),
        MODEL,
        {**DATASETS, "other": dataset(dataclasses.replace(IMAGE, shape=(3, 4, 4)), LABEL)},
        "data.validation",
        r"rows of shape \(3, 4, 4\)",
    ),
    "test without the column": (
        spec({"test": "other"}),
        MODEL,
        {**DATASETS, "other": dataset(LABEL)},
        "data.test",
        "'image' is not in the test data; it has 'label'",
    ),
    "test with other labels": (
        spec({"test": "other"}),
        MODEL,
        {**DATASETS, "other": dataset(IMAGE, dataclasses.replace(LABEL, maximum=50))},
        "data.test",
        "holds the label 50",
    ),
    "test on the training data": (spec({"test": "train"}), MODEL, DATASETS, "data.test", "is the training data too"),
    "test on the validation data": (
        spec({"validation": "other", "test": "other"}),
        MODEL,
        DATASETS,
        "data.test",
        "is the validation data too",
    ),
    "validation on the training data": (
        spec({"validation": "train"}),
        MODEL,
        DATASETS,
        "data.validation",
        "is the training data too; set rows aside with validation_rows",
    ),
    "batch larger than the data": (
        spec(target={"batch_size": 501}),
        MODEL,
        DATASETS,
        "target.batch_size",
        "501 is more than the 500 rows",
    ),
    "static batch": (
        spec(),
        model(
            inputs=(TensorDescription(name="x", shape=(1, 3, 8, 8), dtype="float32"),),
            batch_is_dynamic=False,
        ),
        DATASETS,
        "model",
        r'fixed at 1, .*export with dynamic_shapes=\{"x": \{0: torch\.export\.Dim\("batch"\)\}\}',
    ),
    "two outputs": (
        spec(),
        model(outputs=(*MODEL.outputs, TensorDescription(name="loss", shape=(), dtype="float32"))),
        DATASETS,
        "model",
        r"2 outputs \('output', 'loss'\), classification needs 1",
    ),
    "output of rank 3": (
        spec(),
        model(outputs=(TensorDescription(name="output", shape=(None, 5, 10), dtype="float32"),)),
        DATASETS,
        "model",
        r"3 dimensions \(any, 5, 10\), classification needs 2",
    ),
    "one output": (
        spec(),
        model(outputs=(TensorDescription(name="output", shape=(None, 1), dtype="float32"),)),
        with_column(LABEL, maximum=0, distinct=2),
        "model",
        "classification needs 2 or more fixed classes",
    ),
    "class instead of logits": (
        spec(),
        model(outputs=(TensorDescription(name="output", shape=(None, 10), dtype="int64"),)),
        DATASETS,
        "model",
        "dtype int64; return the logits",
    ),
    "nothing to compress": (
        spec(),
        model(layers=(LayerDescription(name="norm", kind="BatchNorm2d", parameters=8, macs=0),)),
        DATASETS,
        "model",
        r"no convolution or linear layer .*\(layers: BatchNorm2d\)",
    ),
    "only distillation": (
        spec(techniques=["distillation"]),
        MODEL,
        DATASETS,
        "techniques",
        r"leaves size and speed as they are.*add at least one of .*structured_pruning, quantization",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_jobs_that_do_not_fit(name: str) -> None:
    job, of, datasets, field, message = CASES[name]
    problem = _only(check_fit(job, of, datasets))
    assert problem.field == field
    assert re.search(message, problem.message), problem.message


def test_all_problems_are_reported_at_once() -> None:
    job = spec(
        {"inputs": ["imgae"], "target": "text", "validation_rows": [490, 510], "test": "none"},
        techniques=["distillation"],
        target={"batch_size": 4096},
    )
    fields = [problem.field for problem in check_fit(job, model(batch_is_dynamic=False), DATASETS)]
    assert sorted(fields) == [
        "data.inputs[0]",
        "data.target",
        "data.test",
        "data.validation_rows",
        "model",
        "techniques",
    ]


def test_columns_that_a_job_does_not_use_may_be_bad() -> None:
    assert check_fit(spec(), MODEL, with_column(PIXELS, non_finite=9, first_bad_row=0)) == ()


def test_a_model_that_the_runtime_cannot_run_is_refused_before_a_search() -> None:
    [problem] = check_fit(spec(), model(unsupported="node 'lstm': no emitter for aten.lstm.input"), DATASETS)
    assert problem.field == "model"
    assert "onnxruntime cannot run it" in problem.message
    assert "aten.lstm" in problem.message
