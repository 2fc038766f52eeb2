"""Low-rank factorisation as a step of a recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, fx, nn

from benchmarks.families import FAMILIES
from benchmarks.families import exported as family_program
from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.factored_ranks import factors_for
from compressors.programs import describe_layers, relative_error, to_modules
from compressors.recipe import LowRank
from compressors.registry import Context, apply
from compressors.techniques.low_rank import choose_ranks
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import example_inputs, exported

CASES = (
    Case("plain_cnn", LowRank(energy=0.6)),
    Case("plain_cnn", LowRank(ratio=0.6, data_aware=True)),
    Case("vit", LowRank(ranks={"mlp.0": 3, "attention.out_proj": 2})),
    Case("unet", LowRank(ratio=0.7, kernels="svd")),
    Case("bert", LowRank(layers=("tokens",), ratio=0.8)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case}-{CASES.index(case)}")
class TestLowRank(TechniqueConformance):
    pass


def model_of(name: str) -> tuple[fx.GraphModule, Context]:
    model = to_modules(exported(name))
    return model, context_for(name, model)


def outputs_of(model: fx.GraphModule, layer: str, inputs: Tensor) -> Tensor:
    """What the layer, or the sequence in its place, gives."""
    seen: list[Tensor] = []
    holder = model.get_submodule(layer)
    last = holder if not list(holder.children()) else list(holder.children())[-1]
    with last.register_forward_hook(lambda module, given, result: seen.append(result)), torch.no_grad():
        model.eval()(inputs)
    return torch.cat(seen)


def test_a_whole_rank_would_be_the_layer_itself() -> None:
    """The largest rank that is smaller, on a weight that has no more: nothing is lost."""
    model, context = model_of("plain_cnn")
    for name, rank in (("fc1", 4), ("conv2", 3)):
        weight = model.get_parameter(f"{name}.weight")
        flat = weight.detach().flatten(1)
        basis = torch.randn(len(flat), rank, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            weight.copy_((basis @ torch.linalg.pinv(basis) @ flat).reshape(weight.shape))
    changed = apply(model, LowRank(ranks={"fc1": 4, "conv2": (3, 7)}), context)
    exact = apply(model, LowRank(ranks={"fc1": 4, "conv2": 3}), context)
    inputs = example_inputs("plain_cnn")
    with torch.no_grad():
        assert torch.allclose(exact.eval()(*inputs), model.eval()(*inputs), atol=1e-5)
        assert not torch.allclose(changed.eval()(*inputs), model(*inputs), atol=1e-4)
    assert [name for name, _ in exact.named_modules() if name.startswith("conv2")] == [
        "conv2",
        "conv2.first",
        "conv2.second",
    ]
    assert "conv2.third" in dict(changed.named_modules())


@pytest.mark.parametrize("config", [LowRank(energy=0.7), LowRank(ratio=0.5), LowRank(ratio=0.5, kernels="svd")])
def test_parameters_fall_and_macs_do_not_grow(config: LowRank) -> None:
    model, context = model_of("plain_cnn")
    before = {layer.name: layer for layer in describe_layers(model, context.example_inputs)}
    after = describe_layers(apply(model, config, context), context.example_inputs)
    assert any(layer.name.endswith(".second") for layer in after)
    for name, layer in before.items():
        parts = [part for part in after if part.name == name or part.name.startswith(f"{name}.")]
        assert sum(part.macs for part in parts) <= layer.macs
        if len(parts) > 1:
            assert sum(part.parameters for part in parts) < layer.parameters
            if config.ratio is not None:
                bias = model.get_parameter(f"{name}.bias").numel()
                assert sum(part.parameters for part in parts) - bias <= config.ratio * (layer.parameters - bias)


@pytest.mark.parametrize("kernels", ["svd", "tucker"])
@pytest.mark.parametrize(("model_name", "layer"), [("plain_cnn", "conv2"), ("plain_cnn", "fc1"), ("unet", "up")])
def test_data_aware_factors_are_never_worse_on_the_calibration_inputs(
    model_name: str, layer: str, kernels: str
) -> None:
    model, context = model_of(model_name)
    assert context.calibration is not None
    inputs = torch.cat([batch[0] for batch in context.calibration()])
    expected = outputs_of(model, layer, inputs)
    config = LowRank(layers=(layer,), ratio=0.5, kernels=kernels)  # type: ignore[arg-type]
    errors = []
    for aware in (False, True):
        changed = apply(model, replace(config, data_aware=aware), context)
        assert f"{layer}.second" in dict(changed.named_modules())
        errors.append(float((outputs_of(changed, layer, inputs) - expected).square().mean()))
    assert errors[1] < errors[0] * (1 + 1e-5)
    assert errors[1] < 0.97 * errors[0], "inputs that are far from white must help"


class Repeated(nn.Module):
    """A layer called twice, a grouped convolution, and a strided one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.strided = nn.Conv2d(8, 16, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.strided(self.grouped(self.conv(torch.relu(self.conv(x)))))
        return out


def repeated() -> tuple[fx.GraphModule, Context]:
    torch.manual_seed(0)
    return fx.symbolic_trace(Repeated()), Context(example_inputs=(torch.rand(2, 8, 6, 6),))


def test_a_layer_called_twice_is_replaced_in_both_places() -> None:
    model, context = repeated()
    changed = apply(model, LowRank(ranks={"conv": (4, 4)}), context)
    assert len(changed.graph.find_nodes(op="call_module", target="conv.second")) == 2
    assert changed(*context.example_inputs).shape == (2, 16, 3, 3)


def test_a_stride_stays_with_the_kernel() -> None:
    model, context = repeated()
    changed = apply(model, LowRank(ranks={"strided": 4}), context)
    assert changed.get_submodule("strided.first").stride == (2, 2)
    assert changed.get_submodule("strided.second").stride == (1, 1)


def recurrent(kind: type[nn.LSTM | nn.GRU], bidirectional: bool) -> tuple[fx.GraphModule, Context]:
    torch.manual_seed(0)
    graph = fx.Graph()
    x = graph.placeholder("x")
    result = graph.call_module("rnn", (x,))
    graph.output(graph.call_function(lambda pair: pair[0], (result,)))
    root = nn.Module()
    root.rnn = kind(12, 10, num_layers=2, batch_first=True, bidirectional=bidirectional)
    inputs = torch.rand(16, 7, 12) @ torch.randn(12, 12) * torch.linspace(0.05, 1, 12)

    def calibration() -> Iterator[tuple[Tensor, ...]]:
        yield (inputs,)

    return fx.GraphModule(root, graph).eval(), Context(example_inputs=(inputs[:2],), calibration=calibration)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_input_weights_of_recurrent_layers(kind: type[nn.LSTM | nn.GRU], bidirectional: bool) -> None:
    model, context = recurrent(kind, bidirectional)
    (inputs,) = next(iter(context.batches()))
    with torch.no_grad():
        expected = model(inputs)
        errors = []
        for config in (
            LowRank(ranks={"rnn": 3}),
            LowRank(ranks={"rnn": 3}, data_aware=True),
            LowRank(ranks={"rnn": 8}),
        ):
            changed = apply(model, config, context).eval()
            assert changed.get_submodule("rnn.second").input_size == changed.get_submodule("rnn.first").out_features
            errors.append(float((changed(inputs) - expected).abs().max()))
    assert errors[1] < errors[0]
    assert errors[2] < 0.5 * errors[0]
    assert sum(p.numel() for p in changed.parameters()) < sum(p.numel() for p in model.parameters())


def test_pairs_of_layers_with_one_weight_are_left_alone() -> None:
    model, context = model_of("tied_weights")
    with pytest.raises(InvalidRecipe, match="'head' cannot be factorised: it shares its weight"):
        apply(model, LowRank(layers=("head",)), context)
    changed = apply(model, LowRank(ratio=0.9), context)
    assert changed.get_parameter("head.weight") is changed.get_parameter("embedding.weight")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LowRank(layers=("fc3",)), "low_rank.layers: 'fc3' is no layer with a weight matrix; near it are \\['fc"),
        (LowRank(ranks={"bn1": 2}), "'bn1' cannot be factorised: BatchNorm2d has no weight matrix"),
        (LowRank(ranks={"fc1": 11}), "low_rank.ranks\\['fc1'\\]=11: this layer has ranks up to 10"),
        (LowRank(ranks={"fc1": 10}), "at most 9 makes it smaller"),
        (LowRank(ranks={"fc1": (3, 3)}), "two ranks are for k x k convolutions"),
        (LowRank(ranks={"conv1": (8, 4)}), "this layer has ranks up to \\(8, 3\\)"),
        (LowRank(layers=("fc2",), energy=0.999), "'fc2' does not get smaller at energy=0.999"),
    ],
)
def test_wrong_use_is_refused(config: LowRank, message: str) -> None:
    model, context = model_of("plain_cnn")
    with pytest.raises(InvalidRecipe, match=message):
        apply(model, config, context)


def test_grouped_convolutions_are_left_out() -> None:
    model, context = repeated()
    with pytest.raises(InvalidRecipe, match="'grouped' cannot be factorised: its 2 groups are thin already"):
        apply(model, LowRank(layers=("grouped",)), context)


def test_a_model_with_nothing_to_gain_is_refused() -> None:
    model, context = model_of("mlp")
    with pytest.raises(UnsupportedModel, match="no layer of kinds convolution gets smaller at energy"):
        apply(model, LowRank(energy=0.5, kinds=("convolution",)), context)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"energy": 1.0}, "low_rank.energy=1.0: must lie between 0 and 1"),
        ({"energy": 0.9, "ratio": 0.5}, "give one of the two"),
        ({"ranks": {"fc": (0, 3)}}, "low_rank.ranks\\['fc'\\]=\\(0, 3\\): at least 1"),
        ({"kinds": ()}, "names no kind"),
        ({"layers": ("a", "b"), "ranks": {"a": 1}}, "'b' has no rank"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        LowRank(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mobilenet_v1", "unet", "gpt", "image_text", "speech_cnn"])
def test_families_compute_what_the_product_would(name: str) -> None:
    """The sequences equal the original layers with the product of the factors as weight, whatever their options."""
    model = to_modules(family_program(name))
    inputs = FAMILIES[name].inputs(batch=4)
    config, context = LowRank(ratio=0.7, kinds=("linear", "convolution", "embedding")), Context(example_inputs=inputs)
    changed = apply(model, config, context).eval()
    ranks, sites = choose_ranks(model, config, context)
    assert len(ranks) >= 3
    reference = copy.deepcopy(model)
    for layer_name, chosen in ranks.items():
        product = factors_for(sites[layer_name], chosen).product().float()
        layer = reference.get_submodule(layer_name)
        if isinstance(layer, (nn.ConvTranspose2d, nn.Embedding)):
            product = product.transpose(0, 1)
        layer.weight = nn.Parameter(product)
    with torch.no_grad():
        assert relative_error(changed(*inputs), reference(*inputs)) < 1e-4
        assert relative_error(changed(*inputs), model(*inputs)) > 1e-3
