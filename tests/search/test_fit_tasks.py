"""Jobs of every task are refused before they start, with the field, the value and the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compressors.descriptions import (
    ColumnDescription,
    ColumnKind,
    DatasetDescription,
    LayerDescription,
    ModelDescription,
    TensorDescription,
)
from search.fit import check_fit
from search.spec import JobSpec

Shape = tuple[int, ...] | None


def column(
    name: str, kind: ColumnKind = "integer", shape: Shape = (), low: float = 0, high: float = 1
) -> ColumnDescription:
    dtype = {"integer": "int64", "float": "float32", "image": "uint8", "text": "string", "other": "struct"}[kind]
    distinct = int(high - low + 1) if shape == () and kind == "integer" else None
    return ColumnDescription(
        name=name, kind=kind, dtype=dtype, shape=shape, minimum=low, maximum=high, distinct=distinct
    )


X = column("x", "float", (6,))
IDS = column("ids", shape=None, high=11)


def model(*output: int | None, dtype: str = "float32", tokens: int | bool | None = False) -> ModelDescription:
    """tokens: length of an input of token ids instead of six numbers; None: any."""
    taken = TensorDescription(name="x", shape=(None, 6), dtype="float32")
    if tokens is not False:
        length = None if tokens is None else int(tokens)
        taken = TensorDescription(name="ids", shape=(None, length), dtype="int64", id_limit=12)
    return ModelDescription(
        format="pt2",
        parameters=10,
        inputs=(taken,),
        outputs=(TensorDescription(name="y", shape=(None, *output), dtype=dtype),),
        layers=(LayerDescription(name="fc", kind="Linear", parameters=10, macs=10),),
        batch_is_dynamic=True,
    )


def problems(task: str, of: ModelDescription, *columns: ColumnDescription, **fields: Any) -> list[tuple[str, str]]:
    tokens = of.inputs[0].name == "ids"
    data = {"train": "t", "inputs": ["x"], "target": "y", **fields.pop("data", {})}
    if tokens and data["inputs"] == ["x"]:
        data["inputs"] = [{"column": "ids", "pad_to": 8}]
    document = {"model": "m", "task": task, "budget": {"size_ratio": 0.5}, "data": data, **fields}
    dataset = DatasetDescription(format="parquet", rows=500, columns=(X, IDS, *columns))
    return [(p.field, p.message) for p in check_fit(JobSpec.model_validate(document), of, {"t": dataset})]


QUERY = column("query", high=40)
GROUPED: dict[str, Any] = {"metric": "ndcg@10", "data": {"group": "query"}}


@pytest.mark.parametrize(
    ("task", "of", "target", "fields"),
    [
        ("binary", model(), column("y"), {}),
        ("binary", model(1), column("y", "float"), {"metric": "auc"}),
        ("multi_label", model(4), column("y", shape=(4,)), {}),
        ("multi_label", model(4), column("y", "float", (4,)), {"metric": "map"}),
        ("regression", model(), column("y", "float", high=900), {"metric": "-rmse"}),
        ("regression", model(1), column("y", high=900), {}),
        ("regression", model(3), column("y", "float", (3,), low=-5), {}),
        ("ranking", model(1), column("y"), {}),
        ("ranking", model(), column("y", high=4), GROUPED),
        ("segmentation", model(3, 8, 8), column("y", "image", (1, 8, 8), high=2), {}),
        ("segmentation", model(3, 8, 8), column("y", "image", (3, 8, 8), high=255), {}),  # a palette; 255 is ignored
        ("segmentation", model(3, None, None), column("y", shape=(8, 8), high=2), {}),
        ("token_classification", model(8, 4, tokens=8), column("y", shape=None, low=-100, high=3), {}),
        ("token_classification", model(None, 4, tokens=None), column("y", shape=None, high=3), {}),
        ("language_modelling", model(8, 12, tokens=8), IDS, {"data": {"target": "ids"}}),
        ("language_modelling", model(None, 12, tokens=None), column("y", shape=(5,), high=11), {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_jobs_that_fit(task: str, of: ModelDescription, target: ColumnDescription, fields: dict[str, Any]) -> None:
    assert problems(task, of, QUERY, target, **fields) == []


CASES: dict[str, tuple[list[tuple[str, str]], str, str]] = {
    "binary with two logits": (
        problems("binary", model(2), column("y")),
        "model",
        "(any, 2), binary needs (batch,) or (batch, 1); the task 'classification' takes one logit for each class",
    ),
    "classification with one logit": (
        problems("classification", model(1), column("y")),
        "model",
        "needs 2 or more fixed classes; for one logit per row take the task 'binary'",
    ),
    "binary with a third answer": (
        problems("binary", model(1), column("y", high=2)),
        "data.target",
        "column 'y' holds 2; binary needs 0 for no and 1 for yes",
    ),
    "binary with one answer": (
        problems("binary", model(1), column("y", high=0)),
        "data.target",
        "holds the label 0 in every row",
    ),
    "answers instead of logits": (
        problems("binary", model(1, dtype="int64"), column("y")),
        "model",
        "return the logits as float32, not the answer",
    ),
    "labels of another number": (
        problems("multi_label", model(4), column("y", shape=(5,))),
        "data.target",
        "holds int64 of shape (5); the model has 4 labels; store one 0 or 1 for each",
    ),
    "lists of label ids": (
        problems("multi_label", model(4), column("y", shape=None)),
        "data.target",
        "in lists of different lengths; multi_label needs a list of 4 zeros and ones per row",
    ),
    "values of another number": (
        problems("regression", model(2), column("y", "float")),
        "data.target",
        "the model gives 2 values per row; match them",
    ),
    "a constant value": (
        problems("regression", model(1), column("y", "float", low=3, high=3)),
        "data.target",
        "holds 3 in every row; there is nothing to predict",
    ),
    "text to regress": (
        problems("regression", model(1), column("y", "text")),
        "data.target",
        "holds string; regression needs one number per row",
    ),
    "grades for AUC": (
        problems("ranking", model(1), column("y", high=4)),
        "data.target",
        "holds grades up to 4; auc needs 0 or 1; set metric to 'ndcg@10' or make them 0 or 1",
    ),
    "no group": (
        problems("ranking", model(1), column("y"), metric="ndcg@10"),
        "data.group",
        "missing: ndcg@10 compares rows within groups; name the integer column of query ids",
    ),
    "a group for nothing": (
        problems("ranking", model(1), column("y"), QUERY, data={"group": "query"}),
        "data.group",
        "'query': auc compares all rows; set metric to one of ndcg@5, ndcg@10",
    ),
    "a group in classification": (
        problems("classification", model(3), column("y", high=2), QUERY, data={"group": "query"}),
        "data.group",
        "'query': accuracy compares all rows; leave it out",
    ),
    "a misspelt group": (
        problems("ranking", model(1), column("y"), QUERY, metric="ndcg", data={"group": "qeury"}),
        "data.group",
        "column 'qeury' is not in the train data (did you mean 'query'?)",
    ),
    "groups by name": (
        problems("ranking", model(1), column("y"), column("query", "text"), **GROUPED),
        "data.group",
        "holds string; groups are told apart by one integer per row",
    ),
    "one group": (
        problems("ranking", model(1), column("y"), column("query", high=0), **GROUPED),
        "data.group",
        "holds one group only; 2 or more are needed to split the rows",
    ),
    "colour masks": (
        problems(
            "segmentation", model(3, 8, 8), ColumnDescription(name="y", kind="image", dtype="uint8", shape=(3, 8, 8))
        ),
        "data.target",
        "holds colour or lossy images, whose pixels are no class ids; store the masks as gray or palette PNG",
    ),
    "masks of another size": (
        problems("segmentation", model(3, 4, 4), column("y", "image", (1, 8, 8), high=2)),
        "data.target",
        "holds masks of (8, 8), the model's output is (any, 3, 4, 4); resize the masks to the output",
    ),
    "masks of several sizes": (
        problems("segmentation", model(3, 8, 8), column("y", "image", None, high=2)),
        "data.target",
        "holds masks of different sizes; bring them to one height and width",
    ),
    "a class too many": (
        problems("segmentation", model(3, 8, 8), column("y", shape=(8, 8), high=3)),
        "data.target",
        "holds the label 3; the model knows 3 classes, 0..2",
    ),
    "one class for the image": (
        problems("segmentation", model(3), column("y", shape=(8, 8), high=2)),
        "model",
        "the output has 2 dimensions (any, 3), segmentation needs 4 (batch, classes, height, width)",
    ),
    "a value to ignore where all count": (
        problems("binary", model(1), column("y"), data={"ignore_index": 0}),
        "data.ignore_index",
        "0: in binary every value counts; leave it out",
    ),
    "one tag per sentence": (
        problems("token_classification", model(8, 4, tokens=8), column("y", high=3)),
        "data.target",
        "holds int64; token_classification needs a list of integers per row, one for each token",
    ),
    "tags of another length": (
        problems(
            "token_classification",
            model(8, 4, tokens=8),
            column("y", shape=(7,), high=3),
            column("z", shape=(8,)),
            data={"inputs": ["z"]},
        ),
        "data.target",
        "holds lists of 7, the model has 8 positions; set pad_to on the input, or store one value per position",
    ),
    "any length, and nothing says which": (
        problems(
            "token_classification",
            model(None, 4, tokens=None),
            column("y", shape=None, high=3),
            column("z", shape=(8,)),
            data={"inputs": ["z"]},
        ),
        "data.target",
        "lists of different lengths and the model's output has any; set pad_to on the input",
    ),
    "an unknown padding": (
        problems("token_classification", model(8, 4, tokens=8), column("y", shape=(8,), low=-1, high=3)),
        "data.target",
        "holds the label -1; labels must not be negative",
    ),
    "a larger vocabulary": (
        problems("language_modelling", model(8, 10, tokens=8), data={"target": "ids"}),
        "data.target",
        "holds the id 11; the model knows 10 classes, 0..9",
    ),
    "a language model of one token": (
        problems(
            "language_modelling",
            model(1, 12, tokens=1),
            data={"inputs": [{"column": "ids", "pad_to": 1}], "target": "ids"},
        ),
        "data.target",
        "needs rows of 2 or more tokens, these have 1",
    ),
    "a label as input": (
        problems("token_classification", model(8, 12, tokens=8), data={"target": "ids"}),
        "data.inputs[0]",
        "'ids' is the target too; a model must not see its label",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_jobs_that_do_not_fit(case: str) -> None:
    found, field, message = CASES[case]
    assert len(found) == 1, found
    assert found[0][0] == field
    assert message in found[0][1]


def test_an_own_value_that_does_not_count_is_no_label() -> None:
    target = column("y", shape=(8,), low=-1, high=3)
    assert problems("token_classification", model(8, 4, tokens=8), target, data={"ignore_index": -1}) == []


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"task": "divination"}, ("task",), "task='divination': unknown; known are ['binary', 'classification'"),
        (
            {"task": "regression", "metric": "auc"},
            ("metric",),
            "metric='auc': regression does not have it; it has 'r2'",
        ),
    ],
)
def test_unknown_tasks_and_metrics_name_what_there_is(fields: dict[str, Any], where: tuple[str], what: str) -> None:
    document = {"model": "m", "budget": {"size_ratio": 0.5}, "data": {"train": "t", "inputs": ["x"], "target": "y"}}
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate({**document, **fields})
    [error] = caught.value.errors()
    assert error["loc"] == where
    assert what in error["msg"]
