"""Pruning by gates: the contract, the distribution, and what the gates learn."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from compressors.errors import InvalidRecipe
from compressors.hard_concrete import HardConcrete
from compressors.layer_weights import LayerWeight, layer_weights, selected_weights
from compressors.programs import to_modules
from compressors.recipe import HardConcretePruning
from compressors.registry import Context, apply
from compressors.sparsity import sparsity_of
from compressors.state import state_of
from compressors.tasks import task
from compressors.training import Training
from compressors.weight_scores import unit_masks
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import exported

CASES = (
    Case("plain_cnn", HardConcretePruning(sparsity=0.7, samples=192, layers=("conv2", "fc1"))),
    Case("tied_weights", HardConcretePruning(sparsity=0.5, unit="channel", samples=96, settle=0.0)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestHardConcretePruning(TechniqueConformance):
    draft_bytes = 0.06  # channels of other sizes

    def test_the_wanted_share_is_removed(self, case: Case, changed: fx.GraphModule) -> None:
        config = case.config
        assert isinstance(config, HardConcretePruning)
        assert config.sparsity is not None
        weights = selected_weights(changed, config.layers, "layers")
        masks = {weight.name: state_of(changed).masks[weight.name] for weight in weights}
        margin = 0.003 if config.unit == "weight" else 0.05
        assert sparsity_of(masks) == pytest.approx(config.sparsity, abs=margin)
        for weight in weights:
            mask = masks[weight.name]
            assert not weight.tensor.detach()[~mask].any()
            if config.unit == "channel":
                rows = mask.movedim(weight.output_axis, 0).flatten(1)
                assert torch.equal(rows.all(1), rows.any(1))


@pytest.mark.parametrize("log_alpha", [-3.0, -1.0, 0.0, 2.0])
def test_the_distribution_is_that_of_the_paper(log_alpha: float) -> None:
    law = HardConcrete(temperature=0.5, low=-0.2, high=1.3)
    torch.manual_seed(0)
    gates = law.sample(torch.full((200_000,), log_alpha))
    assert gates.min() >= 0 and gates.max() <= 1
    # P(z <= x) = Q(inverse stretch of x), Q(s) = sigmoid(temperature * logit(s) - log_alpha) (equation 22 there).
    for x in (0.0, 0.3, 0.7, 0.999999):
        stretched = torch.tensor((x + 0.2) / 1.5)
        expected = float(torch.sigmoid(0.5 * stretched.logit() - log_alpha))
        assert float((gates <= x).float().mean()) == pytest.approx(expected, abs=0.005)
    opened = float(law.open_probability(torch.tensor(log_alpha)))
    assert float((gates > 0).float().mean()) == pytest.approx(opened, abs=0.005)


def test_gates_are_differentiable_and_final_ones_close() -> None:
    law = HardConcrete()
    log_alpha = torch.tensor([-5.0, 0.0, 5.0], requires_grad=True)
    assert law.final(log_alpha).tolist() == pytest.approx([0.0, 0.5, 1.0])
    torch.manual_seed(0)
    law.sample(log_alpha.expand(1000, 3)).sum().backward()  # type: ignore[no-untyped-call]
    assert log_alpha.grad is not None
    assert log_alpha.grad[1] > log_alpha.grad[0] > 0


def half_useless() -> tuple[fx.GraphModule, Context]:
    """A linear layer of which columns 4.. are multiplied with noise that the labels do not know of: their weights are
    the larger ones, so that magnitude would keep the wrong half."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 3, bias=False)
    layer.weight.data[:, :4] *= 8
    layer.weight.data[:, 4:] = layer.weight.data[:, 4:].sign() * 4
    x = torch.randn(2000, 8)
    x[:, 4:] *= 0.02
    model = to_modules(torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)))
    with torch.no_grad():
        answers = model(x)

    def fetch(positions):  # type: ignore[no-untyped-def]
        at = torch.from_numpy(positions)
        return (x[at],), answers[at].argmax(1), answers[at]

    training = Training(task=task("classification"), rows=len(x), fetch=fetch)
    return model, Context(example_inputs=(x[:2],), training=training)


def test_gates_find_what_matters() -> None:
    model, context = half_useless()
    [weight] = layer_weights(model)
    config = HardConcretePruning(sparsity=0.5, strength=1.0, gate_rate=0.1, samples=8_000, temperature=1.0)
    pruned = apply(model, config, context)
    mask = state_of(pruned).masks[weight.name]
    assert float(mask[:, :4].float().mean()) > 0.8
    assert float(mask[:, 4:].float().mean()) < 0.2


def test_a_stronger_penalty_removes_more() -> None:
    model, context = half_useless()

    def share(strength: float) -> float:
        config = HardConcretePruning(
            sparsity=None, strength=strength, samples=8_000, gate_rate=0.3, settle=0.0, temperature=1.0
        )
        return sparsity_of(state_of(apply(model, config, context)).masks)

    assert share(0.05) + 0.2 < share(10.0) < 1


def test_channels_are_removed_to_the_nearest_count() -> None:
    shapes = {"a": (4, 10), "b": (2, 25)}
    weights = [LayerWeight((n,), (n,), nn.Parameter(torch.ones(s)), 0) for n, s in shapes.items()]
    scores = {"a": torch.tensor([1.0, 4, 3, 9])[:, None], "b": torch.tensor([2.0, 8])[:, None]}
    for sparsity, a, b in ((0.0, 4, 2), (0.1, 3, 2), (0.39, 3, 1), (0.45, 2, 1), (0.99, 1, 1)):
        masks = unit_masks(weights, scores, sparsity)
        assert (int(masks["a"][:, 0].sum()), int(masks["b"][:, 0].sum())) == (a, b), sparsity


def test_wrong_use_is_refused_by_name() -> None:
    model = to_modules(exported("mlp"))
    for arguments, message in (
        ({"sparsity": 1.0}, r"l0_pruning.sparsity=1.0: must lie in 0..1"),
        ({"strength": 0.0}, r"strength=0.0: must be greater than 0; use 1"),
        ({"low": 0.0}, r"low=0.0: must be below 0, or no gate ever closes; use -0.1"),
        ({"high": 1.0}, r"high=1.0: must be above 1, or no gate ever opens fully; use 1.1"),
        ({"initial_open": 1.0}, r"initial_open=1.0: must lie between 0 and 1"),
        ({"settle": 1.0}, r"settle=1.0: must lie in 0..1, without 1"),
    ):
        with pytest.raises(InvalidRecipe, match=message):
            HardConcretePruning(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidRecipe, match=r"l0_pruning.layers: 'bn' is no layer"):
        apply(model, HardConcretePruning(layers=("bn",)), context_for("mlp", model))
