"""The job specification refuses what contradicts itself, naming the field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from search.spec import JobSpec

GOOD: dict[str, Any] = {
    "model": "m",
    "data": {"train": "t", "inputs": ["image"], "target": "label"},
    "budget": {"latency_ratio": 0.5},
}


def test_defaults_are_those_of_the_contract() -> None:
    spec = JobSpec.model_validate(GOOD)
    assert (spec.target.runtime, spec.target.threads, spec.target.batch_size) == ("onnxruntime", 1, 1)
    assert (spec.objective, spec.search.parallel, spec.search.seed) == ("metric", 2, 0)
    assert {"structured_pruning", "low_rank", "distillation", "quantization"} <= set(spec.allowed)
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"budget": {}}, ("budget",), "give at least one of"),
        ({"budget": {"latency_ms": 1, "latency_ratio": 0.5}}, ("budget",), "limit the same thing"),
        ({"budget": {"size_mb": 1, "size_ratio": 0.5}}, ("budget",), "limit the same thing"),
        ({"budget": {"latency_ratio": 0}}, ("budget", "latency_ratio"), "greater than 0"),
        ({"budget": {"latency_ratio": "nan"}}, ("budget", "latency_ratio"), "finite"),
        ({"objective": "size"}, ("objective",), "needs budget.max_metric_drop"),
        ({"target": {"runtime": "tensorrt"}}, ("target", "runtime"), "onnxruntime"),
        ({"techniques": []}, ("techniques",), "empty"),
        ({"techniques": ["quantization", "quantization"]}, ("techniques",), "once"),
        ({"serch": {}}, ("serch",), "Extra inputs"),
        ({"data": {**GOOD["data"], "validation_rows": [5, 5]}}, ("data",), "0 <= start < stop"),
        ({"data": {**GOOD["data"], "validation": "v", "validation_fraction": 0.1}}, ("data",), "contradict"),
        ({"data": {**GOOD["data"], "inputs": []}}, ("data", "inputs"), "at least 1"),
        ({"search": {"max_seconds": -1}}, ("search", "max_seconds"), "greater than 0"),
    ],
)
def test_a_contradiction_names_its_field(change: dict[str, Any], where: tuple[str, ...], what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate({**GOOD, **change})
    [error] = caught.value.errors()
    assert error["loc"] == where
    assert what in error["msg"]
