"""Tuning as a step of a recipe: its teachers, and the losses on inner layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from compressors.artifact import build_artifact
from compressors.distillation_attention import attention_loss, attention_map
from compressors.distillation_features import Adapter, adapter, feature_loss
from compressors.distillation_relation import cosines, distances, relation_loss
from compressors.errors import InvalidRecipe
from compressors.layer_outputs import captured, channel_axis
from compressors.onnx_export import serialize
from compressors.programs import to_modules
from compressors.recipe import Distillation, Recipe, WidthScaling
from compressors.registry import Context, apply
from compressors.training import Batch, first_output
from compressors.tuning_plan import TuningPlan, tuning_plan
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import build, example_inputs, export, exported

NARROW = (WidthScaling(factor=0.5),)
CASES = (
    Case("mlp", Distillation(samples=96, learning_rate=0.05)),
    Case(
        "plain_cnn",
        Distillation(
            samples=96, learning_rate=0.02, features=("fc1", "conv2"), attention=("conv1",), relation_weight=1.0
        ),
        before=NARROW,
    ),
)
# Every loss by itself: no labels, and what the logits teach weighs next to nothing.
ALONE: dict[str, dict[str, Any]] = {
    "features": {"features": ("conv1", "fc1")},
    "attention": {"attention": ("conv1", "conv2")},
    "relation": {"relation_weight": 1.0},
    "relation of a layer": {"relation_weight": 1.0, "relation_layers": ("fc1",)},
}


@pytest.mark.parametrize("case", CASES, ids=str)
class TestDistillation(TechniqueConformance):
    pass


def narrowed(name: str = "plain_cnn") -> tuple[fx.GraphModule, Context]:
    """Half as wide as the original, and a context with the original as its teacher."""
    model = to_modules(exported(name))
    context = context_for(name, model)
    return apply(model, NARROW[0], context), context


def everything(context: Context) -> Batch:
    assert context.training is not None
    return context.training.fetch(torch.arange(context.training.rows).numpy())


def own_loss(model: fx.GraphModule, config: Distillation, context: Context, plan: TuningPlan) -> float:
    """Of the objective without what logits and labels add, in eval mode."""
    batch = everything(context)
    assert plan.objective is not None
    assert context.training is not None
    with torch.no_grad():
        whole = plan.objective(model.eval(), batch)
        assert batch[2] is not None
        logits = context.training.task.divergence(model(*batch[0]), batch[2], config.temperature, batch[1])
    return float(whole - logits)


@pytest.mark.parametrize("fields", ALONE.values(), ids=ALONE.keys())
def test_every_loss_is_zero_for_the_original_itself(fields: Mapping[str, Any]) -> None:
    model = to_modules(exported("plain_cnn"))
    context, config = context_for("plain_cnn", model), Distillation(alpha=1.0, **fields)
    plan = tuning_plan(model, config, context)
    assert plan.further == ()
    assert own_loss(model, config, context, plan) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("fields", ALONE.values(), ids=ALONE.keys())
def test_every_loss_falls_when_it_is_tuned(fields: Mapping[str, Any]) -> None:
    model, context = narrowed()
    config = Distillation(alpha=1.0, samples=48 * 15, learning_rate=0.02, **fields)
    plan = tuning_plan(model, config, context)
    before = own_loss(model, config, context, plan)
    assert context.training is not None
    context.training.tune(model, config, seed=0, objective=plan.objective, further=plan.further)
    after = own_loss(model, config, context, plan)
    assert before > 1e-3
    assert after < 0.8 * before


def test_plain_tuning_needs_no_plan() -> None:
    model, context = narrowed("mlp")
    assert tuning_plan(model, Distillation(samples=48), replace(context, original=None)) == TuningPlan()


def test_nothing_of_the_adapters_stays() -> None:
    """Names, shapes and file are those of plain tuning; no hook is left on any model."""
    model, context = narrowed()
    config = Distillation(samples=96, features=("conv1", "conv2", "fc1"), attention=("conv2",))
    tuned, plain = apply(model, config, context), apply(model, Distillation(samples=96), context)
    assert len(tuning_plan(model, config, context).further) == 2
    assert {n: t.shape for n, t in tuned.state_dict().items()} == {n: t.shape for n, t in plain.state_dict().items()}
    assert not torch.equal(tuned.get_parameter("conv1.weight"), plain.get_parameter("conv1.weight"))
    one, other = (build_artifact(m, context.example_inputs) for m in (tuned, plain))
    assert [node.op_type for node in one.graph.node] == [node.op_type for node in other.graph.node]
    assert len(serialize(one)) == len(serialize(other))
    assert context.original is not None
    for found in (tuned, context.original):
        assert not any(module._forward_hooks for module in found.modules())


def test_the_plan_leaves_the_model_as_it_is() -> None:
    model, context = narrowed()
    model.train()
    before = copy.deepcopy(model.state_dict())
    random = torch.random.get_rng_state()
    tuning_plan(model, Distillation(features=("conv1", "bn1"), relation_weight=1.0), context)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("extra", [{}, {"features": ("fc1",), "relation_weight": 0.5}], ids=["logits", "inner"])
def test_without_labels_the_labels_do_not_matter(extra: Mapping[str, Any]) -> None:
    model, context = narrowed("mlp")
    training = context.training
    assert training is not None
    if extra:
        extra = {**extra, "features": ("fc2",)}

    def mislabelled(positions: Any) -> Batch:
        inputs, target, teacher = training.fetch(positions)
        return inputs, (target + 1) % 3, teacher

    wrong = replace(context, training=replace(training, fetch=mislabelled))

    def tuned(alpha: float, at_hand: Context) -> Tensor:
        config = Distillation(samples=96, alpha=alpha, **extra)
        return apply(model, config, at_hand).get_parameter("fc1.weight")

    assert torch.equal(tuned(1.0, context), tuned(1.0, wrong))
    assert not torch.equal(tuned(0.5, context), tuned(0.5, wrong))


def teachers(context: Context) -> Context:
    """With two further models, of the original's kind and with other weights."""
    inputs = example_inputs("mlp")
    return replace(context, models={f"other{s}": to_modules(export(build("mlp", s), inputs)) for s in (1, 2)})


def test_several_teachers_count_with_their_mean() -> None:
    """Against the divergence from a mean made by hand; with the original, and in its place."""
    model, context = narrowed("mlp")
    context = teachers(context)
    batch = everything(context)
    inputs, target, stored = batch
    assert stored is not None
    assert context.training is not None
    task = context.training.task
    with torch.no_grad():
        others = [context.models[name](*inputs) for name in ("other1", "other2")]
        for with_original, logits in ((True, [*others, stored]), (False, others)):
            config = Distillation(alpha=1.0, teachers=("other1", "other2"), original_teaches=with_original)
            objective = tuning_plan(model, config, context).objective
            assert objective is not None
            expected = task.divergence(model(*inputs), torch.stack(logits).mean(0), config.temperature, target)
            assert float(objective(model, batch)) == pytest.approx(float(expected), rel=1e-5)
            # The original's outputs are computed where the batch does not bring them.
            assert float(objective(model, (inputs, target, None))) == pytest.approx(float(expected), rel=1e-4)


def test_teachers_learn_nothing() -> None:
    """Neither weights nor statistics, nor the mode of a model that is given in training mode."""
    model, context = narrowed("mlp")
    context = teachers(context)
    other = context.models["other1"].train()
    before = copy.deepcopy(other.state_dict())
    apply(model, Distillation(samples=96, teachers=("other1",), features=("fc1",)), context)
    assert other.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    assert all(parameter.grad is None for parameter in other.parameters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": ("conv9",)}, r"distillation.features: 'conv9' is no layer of the student; near it are \['conv"),
        ({"attention": {"conv1": "conv9"}}, "distillation.attention: 'conv9' is no layer of the original; near it are"),
        ({"relation_weight": 1.0, "relation_layers": ("fc",)}, "distillation.relation_layers: 'fc' is no layer"),
        ({"teachers": ("big",)}, "distillation.teachers='big': no further model has this name; .*given are"),
        ({"teachers": ("mlp",)}, "distillation.teachers='mlp': it does not take the original's inputs"),
        ({"features": {"conv1": "conv2"}}, r"features='conv1': the student gives \[2, 4, 16, 16\], the original"),
        ({"attention": ("fc1",)}, r"attention='fc1': its output \[2, 5\] has rows and channels but no places"),
        ({"attention": {"conv1": "conv2"}}, "attention='conv1': the student gives .*: other places"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    model, context = narrowed()
    context = replace(context, models={"mlp": to_modules(exported("mlp"))})
    config = Distillation(samples=48, **fields)
    with pytest.raises(InvalidRecipe, match=message):
        apply(model, config, context)
    if "is no" in message or "no further" in message:
        with pytest.raises(InvalidRecipe, match=message):
            apply(model, config, replace(context, training=None, draft=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feature_weight": -1.0}, "distillation.feature_weight=-1.0: must not be negative"),
        ({"relation_layers": ("fc1",)}, r"distillation.relation_layers=\['fc1'\]: has no effect at relation_weight=0"),
        ({"teachers": ("a", "a")}, "distillation.teachers: 'a' is named more than once"),
        ({"teachers": ("a",), "alpha": 0.0}, "which alpha=0 ignores; raise alpha"),
        ({"original_teaches": False}, "distillation.original_teaches=False: leaves no teacher"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        Distillation(**fields)


def test_earlier_recipes_and_both_ways_to_name_layers_are_read() -> None:
    earlier = {"technique": "distillation", "temperature": 4.0, "alpha": 0.9, "learning_rate": 0.01, "samples": 5}
    assert Recipe.from_json({"version": 1, "steps": [earlier]}) == Recipe((Distillation(samples=5),))
    named = {"technique": "distillation", "features": ["b", "a"], "attention": {"x": "y"}}
    step = Recipe.from_json({"version": 1, "steps": [named]}).distillation
    assert step == Distillation(features={"a": "a", "b": "b"}, attention={"x": "y"})
    assert Recipe((Distillation(features=("a",)),)).cost_key == Recipe().cost_key


def test_a_layer_is_matched_with_another_name() -> None:
    """fc2 of the student (5 wide) imitates fc1 of the original (9 wide)."""
    model, context = narrowed("mlp")
    config = Distillation(features={"fc2": "fc1"})
    shapes = [[tuple(p.shape) for p in group["params"]] for group in tuning_plan(model, config, context).further]
    width = model.get_parameter("fc2.weight").shape[0]
    assert shapes == [[(9, width)], [(9,)]]


# -- the losses against their formulas -----------------------------------------------------------------------------


def test_feature_loss_is_the_share_that_is_not_explained() -> None:
    teacher = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    student = torch.tensor([[3.0, 3.0], [0.0, 5.0]])
    assert float(feature_loss(student, teacher)) == pytest.approx(1 / 50)
    assert float(feature_loss(100 * student, 100 * teacher)) == pytest.approx(1 / 50)


def test_an_adapter_is_a_one_by_one_convolution() -> None:
    x = torch.rand(2, 3, 4, 5)
    found = adapter("field", x, torch.rand(2, 6, 4, 5), 1, 0)
    assert isinstance(found, Adapter)
    expected = nn.functional.conv2d(x, found.map.weight[:, :, None, None], found.map.bias)
    assert torch.allclose(found(x), expected, atol=1e-6)
    again = adapter("field", x, torch.rand(2, 6, 4, 5), 1, 0)
    assert torch.equal(found.get_parameter("map.weight"), again.get_parameter("map.weight"))


def test_attention_by_hand() -> None:
    """Two channels, two places: squares summed over channels, brought to length 1."""
    student = torch.tensor([[[1.0, 0.0], [math.sqrt(2.0), 2.0]]])  # maps to (3, 4)
    assert attention_map(student, 1).tolist()[0] == pytest.approx([0.6, 0.8])
    teacher = torch.tensor([[[1.0, 0.0]]])  # maps to (1, 0), with one channel
    assert float(attention_loss(student, teacher, 1)) == pytest.approx(0.4**2 + 0.8**2)
    assert float(attention_loss(student.transpose(1, 2), teacher.transpose(1, 2), 2)) == pytest.approx(0.8)


def test_relations_by_hand() -> None:
    """A right triangle with sides 3, 4, 5: mean distance 4."""
    triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    expected = torch.tensor([[0.0, 0.75, 1.0], [0.75, 0.0, 1.25], [1.0, 1.25, 0.0]])
    assert torch.allclose(distances(triangle), expected, atol=1e-5)
    angles = cosines(triangle)
    assert float(angles[0, 1, 2]) == pytest.approx(0.0, abs=1e-6)
    assert float(angles[1, 0, 2]) == pytest.approx(0.6, abs=1e-6)
    assert float(angles[2, 0, 1]) == pytest.approx(0.8, abs=1e-6)
    assert float(angles.diagonal(dim1=1, dim2=2).abs().max()) == 0
    line = torch.tensor([[0.0], [1.0], [2.0]])  # distances 0.75, 1.5, 0.75; cosines 1, -1, 1
    huber = [0.5 * d**2 if d < 1 else d - 0.5 for d in (0.0, 0.5, 0.5, 1.0, 1.6, 0.2)]
    assert float(relation_loss(triangle, line)) == pytest.approx(sum(huber[:3]) / 3 + 2 * sum(huber[3:]) / 3, rel=1e-4)


def test_relations_ignore_scale_and_place_and_stand_equal_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=generator)
    assert float(relation_loss(3 * x + 5, x)) == pytest.approx(0, abs=1e-6)
    same = torch.cat([x, x[:2]]).requires_grad_()
    loss = relation_loss(same, torch.randn(8, 3, generator=generator))
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(float(loss.detach()))
    assert same.grad is not None
    assert bool(same.grad.isfinite().all())
    assert float(relation_loss(x[:1], x[:1])) == 0
    assert float(relation_loss(torch.ones(4, 3), torch.ones(4, 2))) == 0
    assert float(relation_loss(x[:, 0], x[:, :1])) == 0  # one number per row


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.time_first = nn.GRU(3, 4)
        self.rows_first = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.time_first(x.transpose(0, 1))
        return first_output(self.rows_first(y.transpose(0, 1)))


def test_rows_come_first_in_what_is_captured() -> None:
    model = Recurrent()
    with captured(model, ("time_first", "rows_first")) as found:
        out = model(torch.rand(2, 5, 3))
    assert torch.equal(found["rows_first"], out)
    assert found["time_first"].shape == (2, 5, 4)
    assert torch.equal(model.rows_first(found["time_first"])[0], out)


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (nn.Conv1d(3, 3, 1), (2, 3, 5), 1),
        (nn.ConvTranspose2d(3, 3, 1), (2, 3, 5, 5), 1),
        (nn.BatchNorm1d(3), (2, 3), 1),
        (nn.GroupNorm(1, 3), (2, 3, 5), 1),
        (nn.AdaptiveAvgPool1d(1), (2, 3, 1), 1),
        (nn.Linear(3, 3), (2, 5, 5, 3), 3),
        (nn.LayerNorm(3), (2, 5, 3), 2),
        (nn.GRU(3, 3), (2, 5, 3), 2),
        (nn.Dropout(), (2, 3, 5, 5), 1),
        (nn.Dropout(), (2, 5, 3), 2),
    ],
)
def test_channels_stand_second_or_last(layer: nn.Module, shape: tuple[int, ...], axis: int) -> None:
    assert channel_axis(layer, torch.zeros(shape)) == axis
