"""Unstructured pruning: the contract, exact counts, and rankings against their formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from compressors.artifact import build_artifact
from compressors.errors import InvalidRecipe
from compressors.layer_weights import LayerWeight, layer_weights
from compressors.onnx_export import serialize
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import Distillation, Quantization, Recipe, UnstructuredPruning, WeightOnlyQuantization
from compressors.recipes.step import Step
from compressors.registry import apply
from compressors.sparsity import sparsity_of
from compressors.state import state_of
from compressors.weight_scores import input_norms, masks_at, score_weights
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import exported

CASES = (
    Case("plain_cnn", UnstructuredPruning(sparsity=0.9)),
    Case("option_a_resnet", UnstructuredPruning(sparsity=0.6, scope="row", importance="wanda")),
    Case("bert", UnstructuredPruning(sparsity=0.7, scope="layer", layer_sparsity={"classifier": 0.0})),
    Case("tied_weights", UnstructuredPruning(threshold=0.5, threshold_kind="relative")),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestUnstructuredPruning(TechniqueConformance):
    def test_masks_are_where_the_zeros_are(self, case: Case, changed: fx.GraphModule) -> None:
        masks = state_of(changed).masks
        assert masks.keys() == {name for weight in layer_weights(changed) for name in weight.names}
        for name, mask in masks.items():
            assert torch.equal(changed.get_parameter(name) != 0, mask)


def one_layer(*rows: list[float]) -> tuple[list[LayerWeight], dict[str, Tensor]]:
    """A weight and its scores."""
    scores = torch.tensor(rows)
    return [LayerWeight(("a",), ("a.weight",), nn.Parameter(scores.clone()), 0)], {"a.weight": scores}


@given(st.floats(0, 0.99), st.sampled_from(["global", "layer", "row"]), st.integers(0, 9))
def test_counts_are_exact(share: float, scope: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 11), (3, 5, 2, 2), (1, 4)]
    # Many ties: whole numbers.
    scores = {f"{i}.weight": torch.randint(1, 6, shape, generator=generator).float() for i, shape in enumerate(shapes)}
    weights = [LayerWeight((n[:1],), (n,), nn.Parameter(s.clone()), i % 2) for i, (n, s) in enumerate(scores.items())]
    masks = masks_at(weights, scores, share, scope=scope)  # type: ignore[arg-type]
    for weight in weights:
        mask = masks[weight.name]
        assert mask.any()
        if scope == "layer":
            assert int((~mask).sum()) == min(int(share * mask.numel() + 0.5), mask.numel() - 1)
        if scope == "row":
            removed = (~mask).movedim(weight.output_axis, 0).flatten(1).sum(1)
            expected = int(share * mask.numel() / mask.shape[weight.output_axis] + 0.5)
            assert sorted(set((expected - removed).tolist())) in ([0], [1], [0, 1]), "one row defends its best weight"
            assert int((expected - removed).sum()) <= 1
        kept, gone = scores[weight.name][mask], scores[weight.name][~mask]
        if scope == "layer" and len(gone):
            assert gone.max() <= kept.min()
    if scope == "global":
        total = sum(mask.numel() for mask in masks.values())
        zeros = sum(int((~mask).sum()) for mask in masks.values())
        assert zeros in (int(share * total + 0.5), total - len(masks)) or any(m.sum() == 1 for m in masks.values())


def test_a_global_ranking_spares_no_layer_and_an_override_leaves_it() -> None:
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    config = UnstructuredPruning(sparsity=0.5, importance="l1", layer_sparsity={"fc2": 0.25, "conv1": 0})
    masks = state_of(apply(model, config, context)).masks
    shares = {name: sparsity_of({name: mask}) for name, mask in masks.items()}
    assert shares["fc2.weight"] == 0.25
    assert shares["conv1.weight"] == 0
    ranked = {name: mask for name, mask in masks.items() if name in ("conv2.weight", "fc1.weight")}
    assert sparsity_of(ranked) == pytest.approx(0.5, abs=1e-3)
    assert shares["conv2.weight"] != pytest.approx(shares["fc1.weight"], abs=0.02)
    threshold = max(float(model.get_parameter(n).detach().abs()[~mask].max()) for n, mask in ranked.items())
    for name, mask in ranked.items():
        assert float(model.get_parameter(name).detach().abs()[mask].min()) >= threshold


def test_two_steps_reach_the_second_share_and_nothing_comes_back() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    once = apply(model, UnstructuredPruning(sparsity=0.4, importance="random"), context)
    twice = apply(once, UnstructuredPruning(sparsity=0.6, importance="l1"), context)
    assert sparsity_of(state_of(twice).masks) == pytest.approx(0.6, abs=0.01)
    for name, mask in state_of(twice).masks.items():
        assert not (mask & ~state_of(once).masks[name]).any()


def test_lamp_is_its_formula() -> None:
    weights, _ = one_layer([3.0, -1.0], [2.0, 0.5])
    found = score_weights(nn.Module(), weights, "lamp")["a.weight"]  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.tensor([[1.0, 1 / 14], [4 / 13, 0.25 / 14.25]]))


def test_l2_makes_layers_comparable_and_l1_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(50, 40, generator=generator) * scale for scale in (1.0, 10.0)]
    weights = [LayerWeight((n,), (f"{n}.weight",), nn.Parameter(t), 0) for n, t in zip("ab", tensors, strict=True)]

    def shares(importance: str) -> list[float]:
        masks = masks_at(weights, score_weights(nn.Module(), weights, importance), 0.5)  # type: ignore[arg-type]
        return [sparsity_of({name: mask}) for name, mask in masks.items()]

    assert shares("l2") == pytest.approx([0.5, 0.5], abs=0.05)
    assert shares("l1")[0] > 0.8


def test_wanda_multiplies_with_the_norm_of_the_input() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    weights = [weight for weight in layer_weights(model) if weight.name == "fc1.weight"]
    inputs = torch.cat([batch[0] for batch in context.batches()])
    norms = input_norms(model, weights, context.batches(), seed=0)["fc1.weight"]
    torch.testing.assert_close(norms, inputs.square().mean(0).sqrt().expand(9, 5))


def test_wanda_sees_the_patches_of_a_convolution() -> None:
    model = to_modules(exported("resnext"))
    context = context_for("resnext", model)
    weights = [weight for weight in layer_weights(model) if weight.layers[0] in ("stem.0", "grouped.0")]
    norms = input_norms(model, weights, context.batches(), seed=0)
    inputs = torch.cat([batch[0] for batch in context.batches()])
    patches = nn.functional.unfold(inputs, 3, padding=1)
    expected = patches.square().mean((0, 2)).sqrt().reshape(1, 3, 3, 3)
    torch.testing.assert_close(norms["stem.0.weight"], expected.expand(8, -1, -1, -1), rtol=0.05, atol=0)
    grouped = norms["grouped.0.weight"]
    assert torch.equal(grouped[0], grouped[3])
    assert not torch.equal(grouped[0], grouped[4])


def test_wanda_disturbs_the_output_less_than_magnitude() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(32, 16)
    x = torch.randn(256, 32) * torch.logspace(-1, 1, 32)
    program = torch.export.export(layer, (x,))
    model = to_modules(program)
    weights = layer_weights(model)

    def error(importance: str) -> float:
        scores = score_weights(model, weights, importance, batches=[(x,)])  # type: ignore[arg-type]
        mask = masks_at(weights, scores, 0.5, scope="row")[weights[0].name]
        return float((x @ (weights[0].tensor.detach() * ~mask).T).square().mean())

    assert error("wanda") < 0.2 * error("l1")


def test_a_threshold_clips() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    absolute = apply(model, UnstructuredPruning(threshold=0.2), context)
    for name, mask in state_of(absolute).masks.items():
        assert torch.equal(mask, model.get_parameter(name).abs() >= 0.2)
    relative = apply(model, UnstructuredPruning(threshold=0.7, threshold_kind="relative", layers=("fc2",)), context)
    weight = model.get_parameter("fc2.weight")
    assert torch.equal(state_of(relative).masks["fc2.weight"], weight.abs() >= 0.7 * weight.square().mean().sqrt())
    assert list(state_of(relative).masks) == ["fc2.weight"]


@pytest.mark.parametrize(("formats", "ratio"), [((), 0.5), ((Quantization(),), 0.8)], ids=["float32", "int8"])
def test_zeros_survive_tuning_and_leave_the_file(formats: tuple[Step, ...], ratio: float) -> None:
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    tuning = Distillation(samples=128, learning_rate=0.05)
    dense = run_recipe(model, Recipe(formats), context)
    pruned = run_recipe(model, Recipe((UnstructuredPruning(sparsity=0.9), tuning, *formats)), context)
    for name, mask in state_of(pruned).masks.items():
        assert not pruned.get_parameter(name).detach()[~mask].any()
        assert not torch.equal(pruned.get_parameter(name), model.get_parameter(name) * mask)
    sizes = [len(serialize(build_artifact(made, context.example_inputs))) for made in (dense, pruned)]
    assert sizes[1] < ratio * sizes[0]


def test_wrong_use_is_refused_by_name() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    with pytest.raises(InvalidRecipe, match=r"unstructured_pruning.sparsity=50: must lie in 0..1.*use 0.5"):
        UnstructuredPruning(sparsity=50)
    with pytest.raises(InvalidRecipe, match=r"sparsity=1.0: must lie in 0..1"):
        UnstructuredPruning(sparsity=1.0)
    with pytest.raises(InvalidRecipe, match=r"threshold=0.1 and unstructured_pruning.sparsity: .* leave out one"):
        UnstructuredPruning(threshold=0.1, sparsity=0.5)
    with pytest.raises(InvalidRecipe, match=r"threshold=0.1 and unstructured_pruning.layer_sparsity"):
        UnstructuredPruning(threshold=0.1, layer_sparsity={"fc1": 0.5})
    with pytest.raises(InvalidRecipe, match=r"threshold=-1: must be greater than 0"):
        UnstructuredPruning(threshold=-1)
    with pytest.raises(InvalidRecipe, match=r"threshold_kind='relative': threshold is missing"):
        UnstructuredPruning(threshold_kind="relative")
    with pytest.raises(InvalidRecipe, match=r"layer_sparsity\['fc2'\]: the layer is not among `layers`"):
        UnstructuredPruning(layers=("fc1",), layer_sparsity={"fc2": 0.5})
    with pytest.raises(InvalidRecipe, match=r"unstructured_pruning.layers: 'fc9' is no layer"):
        apply(model, UnstructuredPruning(layers=("fc9",)), context)
    with pytest.raises(InvalidRecipe, match=r"unstructured_pruning.layer_sparsity: 'bn' is no layer"):
        apply(model, UnstructuredPruning(layer_sparsity={"bn": 0.5}), context)
    with pytest.raises(InvalidRecipe, match=r"threshold=9.0: above all weights of fc1, whose largest is 0\.4"):
        apply(model, UnstructuredPruning(threshold=9.0), context)
    with pytest.raises(InvalidRecipe, match=r"unstructured_pruning reads calibration inputs \(importance='wanda'\)"):
        apply(model, UnstructuredPruning(importance="wanda"), replace(context, calibration=None))


def test_sizes_are_those_of_the_docstring() -> None:
    rng = np.random.default_rng(0)
    layer = nn.Linear(300, 200)
    layer.weight.data = torch.from_numpy(rng.standard_normal((200, 300)).astype(np.float32))
    x = torch.rand(2, 300)
    model = to_modules(torch.export.export(layer, (x,)))
    context = replace(context_for("mlp", to_modules(exported("mlp"))), example_inputs=(x,))
    dense = len(serialize(build_artifact(model, (x,))))
    for sparsity, expected in ((0.5, 0.53), (0.9, 0.13)):
        pruned = apply(model, UnstructuredPruning(sparsity=sparsity), context)
        assert len(serialize(build_artifact(pruned, (x,)))) / dense == pytest.approx(expected, abs=0.015)
        integers = apply(pruned, WeightOnlyQuantization(bits=4), context)
        assert len(serialize(build_artifact(integers, (x,)))) < (1.0 - sparsity) * 300 * 200 * (4 + 6) / 8 + 3000
