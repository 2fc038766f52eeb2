"""A narrower copy of the network as a step of a recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.fresh_weights import draw_weights
from compressors.programs import to_modules
from compressors.recipe import StructuredPruning, WidthScaling
from compressors.registry import Context, apply
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import export, exported

CASES = (
    Case("plain_cnn", WidthScaling()),
    Case("vit", WidthScaling(factor=0.5, weights="fresh")),
    Case("bert", WidthScaling(factor=0.75, multiple=2)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestWidthScaling(TechniqueConformance):
    pass


def bare(name: str) -> Context:
    return context_for(name, to_modules(exported(name)))


def test_every_group_keeps_its_share_and_the_head_its_classes() -> None:
    scaled = apply(to_modules(exported("plain_cnn")), WidthScaling(factor=0.5), bare("plain_cnn"))
    shapes = {name: list(tensor.shape) for name, tensor in scaled.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "conv1.weight": [4, 3, 3, 3],
        "bn1.weight": [4],
        "conv2.weight": [6, 4, 3, 3],
        "bn2.weight": [6],
        "fc1.weight": [5, 6 * 4 * 4],
        "fc2.weight": [4, 5],
    }


def test_inherited_weights_are_those_of_structured_pruning() -> None:
    model, context = to_modules(exported("plain_cnn")), bare("plain_cnn")
    scaled = apply(model, WidthScaling(factor=0.75), context).state_dict()
    pruned = apply(model, StructuredPruning(ratio=0.25), context).state_dict()
    assert scaled.keys() == pruned.keys()
    assert all(torch.equal(scaled[name], pruned[name]) for name in scaled)


def test_fresh_weights_follow_the_seed_and_owe_nothing_to_the_old() -> None:
    model, context = to_modules(exported("plain_cnn")), bare("plain_cnn")
    before = torch.random.get_rng_state()
    config = WidthScaling(weights="fresh")
    one, same, other = (apply(model, config, replace(context, seed=seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])
    inherited = apply(model, WidthScaling(), context).state_dict()
    assert not torch.equal(one["fc2.weight"], inherited["fc2.weight"])
    for norm in ("bn1", "bn2"):
        assert torch.equal(one[f"{norm}.weight"], torch.ones_like(one[f"{norm}.weight"]))
        assert torch.equal(one[f"{norm}.running_mean"], torch.zeros_like(one[f"{norm}.running_mean"]))
        assert torch.equal(one[f"{norm}.running_var"], torch.ones_like(one[f"{norm}.running_var"]))


class Raw(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(3 + 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(0)))
        self.ones = nn.Parameter(torch.ones(5))
        self.gru = nn.GRU(4, 6)
        self.register_buffer("constant", torch.arange(3.0))


def test_parameters_outside_layers_keep_their_spread_and_constants_stay() -> None:
    model = Raw()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draw_weights(model, 0)
    assert not torch.equal(model.table, before["table"])
    table = model.table.detach()
    assert float(table.mean()) == pytest.approx(3, abs=0.05)
    assert float(table.std()) == pytest.approx(0.1, rel=0.2)
    assert torch.equal(model.ones, before["ones"])
    assert torch.equal(model.get_buffer("constant"), before["constant"])
    recurrent = model.get_parameter("gru.weight_hh_l0").detach()
    assert not torch.equal(recurrent, before["gru.weight_hh_l0"])
    assert float(recurrent.abs().max()) <= 6**-0.5


def test_the_whole_width_with_fresh_weights() -> None:
    model = to_modules(exported("mlp"))
    fresh = apply(model, WidthScaling(factor=1.0, weights="fresh"), bare("mlp"))
    assert {n: t.shape for n, t in fresh.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}
    assert not torch.equal(fresh.get_parameter("fc1.weight"), model.get_parameter("fc1.weight"))


class Fixed(nn.Module):
    """Nothing lies between its inputs and its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.only(x)
        return out


def test_what_cannot_get_narrower_is_refused_by_name() -> None:
    fixed = to_modules(export(Fixed().eval(), (torch.rand(2, 5),)))
    with pytest.raises(UnsupportedModel, match=r"width_scaling: no channel or unit of the model may go .*only"):
        apply(fixed, WidthScaling(), Context(example_inputs=(torch.rand(2, 5),)))
    with pytest.raises(InvalidRecipe, match=r"width_scaling.factor=0.99: no group loses a unit.*widest has 9"):
        apply(to_modules(exported("mlp")), WidthScaling(factor=0.99), bare("mlp"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factor": 0.0}, "width_scaling.factor=0.0: must lie in 0..1, above 0"),
        ({"factor": 1.5}, "width_scaling.factor=1.5: must lie in 0..1"),
        ({"factor": 1.0}, "leaves the model as it is"),
        ({"multiple": 0}, "width_scaling.multiple=0: must be 1 or more"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        WidthScaling(**fields)  # type: ignore[arg-type]
