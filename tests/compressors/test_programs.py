"""Exported programs come back as modules under their original names, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressors.descriptions import ModelDescription
from compressors.errors import ParityError, UnsupportedModel
from compressors.programs import check_parity, describe, load_program, relative_error, sample_inputs, to_modules
from tests.models import MODELS, build, example_inputs, export, export_pt2, exported


def leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


@pytest.mark.parametrize("name", MODELS)
def test_modules_are_bit_equal_and_keep_their_names(name: str) -> None:
    model, inputs = build(name), example_inputs(name)
    program = exported(name)
    lowered = to_modules(program)
    with torch.no_grad():
        for actual, expected in zip(leaves(lowered(*inputs)), leaves(program.module()(*inputs)), strict=True):
            assert torch.equal(actual, expected)
    original = dict(model.named_modules())
    for layer_name, layer in lowered.named_modules():
        if list(layer.parameters(recurse=False)) and layer_name and not layer_name.endswith("in_proj"):
            assert isinstance(original[layer_name], type(layer)), layer_name
    count = sum(p.numel() for p in lowered.parameters())
    assert count == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["plain_cnn", "resnext", "bert", "unet", "tied_weights", "option_a_resnet"])
def test_decomposed_programs_become_the_same_layers(name: str) -> None:
    model, inputs = build(name), example_inputs(name)
    program = exported(name).run_decompositions()
    lowered = to_modules(program)
    assert check_parity(program, lowered, inputs) <= 1e-5
    weighted = {n for n, m in lowered.named_modules() if list(m.parameters(recurse=False)) and n}
    expected = {n for n, m in model.named_modules() if list(m.parameters(recurse=False)) and n}
    assert weighted == expected


def test_training_mode_really_trains() -> None:
    lowered = to_modules(exported("plain_cnn"))
    inputs = example_inputs("plain_cnn")
    norm = lowered.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    lowered.eval()(*inputs)
    assert torch.equal(before, norm.running_mean)
    lowered.train()
    first, second = lowered(*inputs), lowered(*inputs)
    assert not torch.equal(first, second)  # dropout
    assert not torch.equal(before, norm.running_mean)
    first.sum().backward()
    assert all(p.grad is not None for p in lowered.parameters())


def test_tied_weights_stay_tied_and_repeated_calls_one_module() -> None:
    lowered = to_modules(exported("tied_weights"))
    assert lowered.get_submodule("head").weight is lowered.get_submodule("embedding").weight
    calls = [str(node.target) for node in lowered.graph.find_nodes(op="call_module")]
    assert calls.count("fc1") == 2


def test_programs_exported_in_training_mode_are_lowered() -> None:
    model, inputs = build("plain_cnn").train(), example_inputs("plain_cnn")
    lowered = to_modules(export(model, inputs))
    model.load_state_dict(build("plain_cnn").state_dict())
    with torch.no_grad():
        assert torch.equal(lowered(*inputs), model.eval()(*inputs))


def test_load_program_describes_the_model(tmp_path: Path) -> None:
    program = load_program(export_pt2(build("option_a_resnet"), tmp_path / "model.pt2"))
    description = program.description
    assert ModelDescription.from_json(description.to_json()) == description
    assert [(t.name, t.shape, t.dtype) for t in description.inputs] == [("x", (None, 3, 8, 8), "float32")]
    assert [t.shape for t in description.outputs] == [(None, 5)]
    assert description.batch_is_dynamic
    assert description.parameters == sum(p.numel() for p in program.module.parameters())
    layers = {layer.name: layer for layer in description.layers}
    assert layers["conv1"].macs == 8 * 8 * 4 * 3 * 9
    assert layers["linear"].macs == 80
    assert layers["linear"].parameters == 85
    assert layers["layer2.bn1"].kind == "BatchNorm2d"
    assert not program.module.training


def test_sample_inputs_are_accepted_and_repeatable(tmp_path: Path) -> None:
    program = load_program(export_pt2(build("bert"), tmp_path / "model.pt2"))
    assert program.description.inputs[0].id_limit == 11
    first, again = (sample_inputs(program.description, batch=3, seed=5) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert first[0].shape == (3, 6)
    assert program.module(*first).shape == (3, 2)


def test_static_batch_is_reported(tmp_path: Path) -> None:
    inputs = example_inputs("mlp")
    torch.export.save(torch.export.export(build("mlp"), inputs), tmp_path / "static.pt2")
    program = load_program(tmp_path / "static.pt2")
    assert not program.description.batch_is_dynamic
    assert program.description.inputs[0].shape == (2, 5)
    assert sample_inputs(program.description, batch=7, seed=0)[0].shape == (2, 5)


class InPlaceOnView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y[:, 0].mul_(3.0)
        return y.relu_().add_(1.0)


class GradRegion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            hidden = self.fc(x)
        return {"logits": self.fc(hidden), "hidden": hidden}


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.cond(x.sum() > 0, lambda t: t + 1, lambda t: t - 1, (x,))
        return out


class Counter(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1.0)
        return x + self.count


def test_in_place_calls_become_functions() -> None:
    model, x = InPlaceOnView(), torch.randn(2, 4)
    assert torch.equal(to_modules(export(model, (x,)))(x), model(x))


def test_grad_regions_are_inlined_and_dictionaries_named() -> None:
    model, x = GradRegion(), torch.rand(2, 4)
    program = export(model, (x,))
    lowered = to_modules(program)
    logits, hidden = lowered(x)
    assert torch.equal(logits, model(x)["logits"])
    assert torch.equal(hidden, model(x)["hidden"])
    assert [t.name for t in describe(program, lowered).outputs] == ["logits", "hidden"]


class AwkwardNames(nn.Module):
    """Names that a GraphModule uses itself, arguments by keyword and nested, a constant argument."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = nn.Linear(4, 4)
        self.code = nn.Parameter(torch.rand(4))

    def forward(self, pair: dict[str, Tensor], scale: Tensor, flag: bool = False) -> dict[str, Tensor]:
        out = self.graph(pair["b"] - pair["a"]) * scale + self.code
        return {"z": out if flag else -out, "a": pair["a"] + 1}


def test_nested_inputs_and_reserved_names() -> None:
    pair, scale = {"b": torch.rand(2, 4), "a": torch.rand(2, 4)}, torch.rand(2, 1)
    model = AwkwardNames()
    program = torch.export.export(model, (pair,), {"scale": scale, "flag": True})
    lowered = to_modules(program)
    flat = tuple(
        {"pair_b": pair["b"], "pair_a": pair["a"], "scale": scale}[node.name]
        for node in lowered.graph.find_nodes(op="placeholder")
    )
    assert check_parity(program, lowered, flat) == 0.0
    description = describe(program, lowered)
    expected = model(pair, scale, flag=True)
    for tensor, value in zip(description.outputs, lowered(*flat), strict=True):
        assert torch.equal(value, expected[tensor.name])


@pytest.mark.parametrize("decomposed", [False, True])
def test_batch_statistics_of_training_programs_stay_in_the_modules(decomposed: bool) -> None:
    program = export(build("mlp").train(), example_inputs("mlp"))
    lowered = to_modules(program.run_decompositions() if decomposed else program)
    norm = lowered.get_submodule("bn")
    assert isinstance(norm, nn.BatchNorm1d)
    lowered.train()(*example_inputs("mlp"))
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 1


class AttentionDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


def test_attention_dropout_of_training_programs_is_off() -> None:
    model, x = AttentionDropout().train(), torch.rand(2, 3, 4)
    lowered = to_modules(export(model, (x,)))
    with torch.no_grad():
        torch.testing.assert_close(lowered(x), model.eval()(x))


def test_relative_error_is_strict() -> None:
    expected = torch.tensor([1e-5, 2e-5])
    assert relative_error(expected * 1.1, expected) == pytest.approx(0.1, rel=1e-3)
    assert relative_error(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    assert relative_error(torch.tensor([float("nan")]), torch.tensor([float("nan")])) == 0.0
    assert relative_error(torch.ones(2), torch.ones(3)) == float("inf")


@pytest.mark.parametrize(("model", "named"), [(Branch(), "cond"), (Counter(), "count")])
def test_what_cannot_work_is_refused_by_name(model: nn.Module, named: str) -> None:
    with pytest.raises(UnsupportedModel, match=named):
        to_modules(export(model, (torch.rand(2, 4),)))


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.pt2"
    path.write_text("not a program")
    with pytest.raises(UnsupportedModel, match=r"text\.pt2"):
        load_program(path)


def test_parity_catches_a_changed_weight() -> None:
    inputs = example_inputs("mlp")
    program = exported("mlp")
    lowered = to_modules(program)
    with torch.no_grad():
        lowered.get_parameter("fc3.bias").add_(0.1)
    with pytest.raises(ParityError) as caught:
        check_parity(program, lowered, inputs)
    assert caught.value.max_error > 1e-5
