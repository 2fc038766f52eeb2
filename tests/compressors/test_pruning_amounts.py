"""Counts per group out of counts, shares and one share for all."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from compressors.channels import ChannelGraph, analyse
from compressors.errors import InvalidRecipe
from compressors.importance import Scores
from compressors.programs import to_modules
from compressors.pruning_amounts import kept_counts
from compressors.recipes.structured_pruning import StructuredPruning
from tests.models import example_inputs, exported


@functools.cache
def graph_of(name: str) -> ChannelGraph:
    return analyse(to_modules(exported(name)), example_inputs(name))


def unread(name: str) -> Scores:
    raise AssertionError(f"scores of {name} were read")


def counts(name: str, config: StructuredPruning) -> dict[str, int]:
    return kept_counts(graph_of(name), config, unread)


def test_counts_are_taken_as_they_are() -> None:
    config = StructuredPruning(keep={"conv1": 3, "fc1": 10})
    assert counts("plain_cnn", config) == {"conv1": 3}


def test_one_share_for_all_and_exceptions() -> None:
    # 8, 12 and 10 units.
    assert counts("plain_cnn", StructuredPruning(ratio=0.5)) == {"conv1": 4, "conv2": 6, "fc1": 5}
    config = StructuredPruning(ratio=0.25, ratios={"fc1": 0.9, "conv1": 0.0})
    assert counts("plain_cnn", config) == {"conv2": 9, "fc1": 1}
    assert counts("plain_cnn", StructuredPruning(ratio=0.99)) == {"conv1": 1, "conv2": 1, "fc1": 1}


def test_a_share_for_all_takes_heads_but_not_the_places_in_them() -> None:
    found = counts("bert", StructuredPruning(ratio=0.5))
    assert found["block1.attention.query"] == 1
    assert {"block1.attention.query#2", "block1.attention.value"}.isdisjoint(found)
    assert counts("bert", StructuredPruning(ratios={"block1.attention.value": 0.5})) == {"block1.attention.value": 2}


def test_the_groups_of_a_grouped_convolution_stay_under_a_share_for_all() -> None:
    found = counts("resnext", StructuredPruning(ratio=0.5))
    assert "reduce.0" not in found
    assert (found["reduce.0#2"], found["grouped.0"]) == (2, 2)


@pytest.mark.parametrize(
    ("ratio", "multiple", "kept"),
    [(0.5, 4, (4, 8, 4)), (0.1, 4, (8, 12, 8)), (0.9, 4, (4, 4, 4)), (0.5, 16, (8, 12, 10))],
)
def test_multiples(ratio: float, multiple: int, kept: tuple[int, int, int]) -> None:
    found = {"conv1": 8, "conv2": 12, "fc1": 10} | counts(
        "plain_cnn", StructuredPruning(ratio=ratio, multiple=multiple)
    )
    assert tuple(found.values()) == kept


def test_multiples_do_not_round_heads() -> None:
    config = StructuredPruning(ratios={"block1.attention.query": 0.5, "block1.fc1": 0.4}, multiple=8)
    assert counts("bert", config) == {"block1.attention.query": 1, "block1.fc1": 8}


def global_counts(ratio: float, **options: object) -> dict[str, int]:
    """On groups of 8, 12 and 10 units: conv1's all alike, conv2's half low, fc1's rising, all in units of their own."""
    scores = {
        "conv1": np.full(8, 100.0),
        "conv2": np.array([0.001] * 6 + [1.999] * 6),
        "fc1": np.linspace(1, 10, 10) * 1e6,
    }
    config = StructuredPruning(ratio=ratio, scope="global", **options)  # type: ignore[arg-type]
    return {"conv1": 8, "conv2": 12, "fc1": 10} | kept_counts(graph_of("plain_cnn"), config, scores.__getitem__)


def test_one_ranking_over_all_groups() -> None:
    assert global_counts(0.2) == {"conv1": 8, "conv2": 6, "fc1": 10}
    # 9 units: conv2's low six, then fc1's lowest three, which are 0.18, 0.36 and 0.55 of its mean.
    assert global_counts(0.3) == {"conv1": 8, "conv2": 6, "fc1": 7}
    # Taylor's scores are changes of one loss: the small numbers go first.
    assert global_counts(0.4, importance="taylor", minimum_share=0.05) == {"conv1": 8, "conv2": 1, "fc1": 10} | {
        "conv1": 7
    }


def test_no_group_goes_below_its_minimum() -> None:
    assert global_counts(0.97, minimum_share=0.5) == {"conv1": 4, "conv2": 6, "fc1": 5}
    assert min(global_counts(0.97, minimum_share=0.01).values()) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": {"a": 1}, "ratio": 0.5}, r"keep and ratio=0\.5"),
        ({"keep": {"a": 1}, "ratios": {"a": 0.5}}, r"keep\['a'\] and ratios\['a'\]"),
        ({"scope": "global"}, "scope='global'.*give ratio"),
        ({"keep": {"a": 4}, "multiple": 4}, "multiple=4: rounds what a ratio leaves"),
        ({"ratio": 1.0}, r"ratio=1\.0: must lie in 0\.\.1"),
        ({"ratios": {"a": -0.1}}, r"ratios\['a'\]=-0\.1"),
        ({"minimum_share": 0.0}, r"minimum_share=0\.0"),
        ({"multiple": 0}, "multiple=0"),
        ({"keep": {"a": 0}}, r"keep\['a'\]=0"),
    ],
)
def test_contradictions_are_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRecipe, match=f"structured_pruning.{message}"):
        StructuredPruning(**fields)  # type: ignore[arg-type]


def test_unknown_groups_are_refused_by_field() -> None:
    with pytest.raises(InvalidRecipe, match=r"structured_pruning\.ratios\['conv9'\]: no such group; near it are"):
        counts("plain_cnn", StructuredPruning(ratios={"conv9": 0.5}))


def test_importance_decides_on_values_only_unless_the_ranking_is_global() -> None:
    assert "importance" in StructuredPruning(ratio=0.5).value_fields
    assert not StructuredPruning(ratio=0.5, scope="global").value_fields
