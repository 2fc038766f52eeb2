"""Recurrent layers and embedding bags: in as modules with their own weights, out as ONNX operators, exactly."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from compressors.errors import UnsupportedModel
from compressors.onnx_export import check_parity, export_onnx
from compressors.onnx_runtime import OnnxRuntime
from compressors.programs import describe, layer_macs, to_modules
from tests.models import export

Kind = type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]
WIDTH, HIDDEN, LENGTH = 5, 4, 3


class Recurrent(nn.Module):
    """Everything that a recurrent layer returns; with `given` it starts from states that depend on the input."""

    def __init__(self, kind: Kind, given: bool = False, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(WIDTH, HIDDEN, **options)
        self.start = nn.Linear(WIDTH, HIDDEN) if given else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        states = None
        if self.start is not None:
            first = self.start(x[:, 0] if self.rnn.batch_first else x[0])
            copies = self.rnn.num_layers * (2 if self.rnn.bidirectional else 1)
            hidden = torch.stack([torch.tanh(first * (i + 1)) for i in range(copies)])
            states = (hidden, -hidden) if isinstance(self.rnn, nn.LSTM) else hidden
        output, last = self.rnn(x, states)
        return (output, *last) if isinstance(last, tuple) else (output, last)


def batch_of(rows: int, batch_first: bool, seed: int = 0) -> Tensor:
    x = torch.randn(rows, LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))
    return x if batch_first else x.transpose(0, 1).contiguous()


def lowered(model: nn.Module, batch_first: bool) -> torch.fx.GraphModule:
    return to_modules(export(model, (batch_of(2, batch_first),), 0 if batch_first else 1))


def check(module: torch.fx.GraphModule, model: nn.Module, batch_first: bool) -> onnx.ModelProto:
    """The module equals the model, and its export, traced with two rows, equals it with five."""
    x = batch_of(5, batch_first, seed=1)
    with torch.no_grad():
        for actual, expected in zip(module(x), model(x), strict=True):
            assert torch.equal(actual, expected)
    exported = export_onnx(module, (batch_of(2, batch_first),))
    onnx.checker.check_model(exported)
    if not batch_first:
        # The exporter's free axis is the first one, here the length.
        x = batch_of(2, batch_first, seed=1)
    check_parity(module, OnnxRuntime().load_model(exported, 1), (x,), tolerance=1e-6)
    return exported


CASES = list(itertools.product([nn.LSTM, nn.GRU], [1, 2], [False, True], [False, True]))


@pytest.mark.parametrize(("kind", "layers", "bidirectional", "given"), CASES)
def test_layers_directions_and_states(kind: Kind, layers: int, bidirectional: bool, given: bool) -> None:
    torch.manual_seed(0)
    options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": not given or layers == 1}
    model = Recurrent(kind, given, **options).eval()
    module = lowered(model, model.rnn.batch_first)
    layer = module.get_submodule("rnn")
    assert type(layer) is kind
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        name: tuple(p.shape) for name, p in model.rnn.named_parameters()
    }
    operators = Counter(node.op_type for node in check(module, model, model.rnn.batch_first).graph.node)
    assert operators[kind.__name__] == layers
    assert not {"Expand", "ConstantOfShape"} & set(operators), "zero states need no nodes"


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_without_biases(kind: Kind) -> None:
    torch.manual_seed(0)
    model = Recurrent(kind, bias=False, batch_first=True).eval()
    check(lowered(model, True), model, True)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_plain_recurrence(nonlinearity: str) -> None:
    torch.manual_seed(0)
    model = Recurrent(nn.RNN, nonlinearity=nonlinearity, batch_first=True, bidirectional=True, num_layers=2).eval()
    module = lowered(model, True)
    assert isinstance(module.get_submodule("rnn"), nn.RNN)
    check(module, model, True)


def test_one_sequence_without_a_batch() -> None:
    torch.manual_seed(0)
    model = Recurrent(nn.LSTM, bidirectional=True, num_layers=2, batch_first=True).eval()
    x = torch.randn(LENGTH, WIDTH)
    module = to_modules(export(model, (x,), None))
    check_parity(module, OnnxRuntime().load_model(export_onnx(module, (x,)), 1), (x,), tolerance=1e-6)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projected_states_come_in_and_do_not_go_out() -> None:
    torch.manual_seed(0)
    model = Recurrent(nn.LSTM, proj_size=3, batch_first=True).eval()
    module = lowered(model, True)
    x = batch_of(3, True)
    with torch.no_grad():
        assert torch.equal(module(x)[0], model(x)[0])
    with pytest.raises(UnsupportedModel, match="proj_size=3"):
        export_onnx(module, (x,))


def test_dropout_between_layers_follows_the_mode_and_weights_train() -> None:
    torch.manual_seed(0)
    model = Recurrent(nn.GRU, num_layers=2, dropout=0.5, batch_first=True).eval()
    module = lowered(model, True)
    x = batch_of(3, True)
    assert torch.equal(module(x)[0], module(x)[0])
    module.train()
    first, second = module(x)[0], module(x)[0]
    assert not torch.equal(first, second)
    first.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    with torch.no_grad():
        module.get_parameter("rnn.weight_hh_l0").zero_()
    module.eval()
    assert not torch.equal(module(x)[0], model(x)[0]), "the module computes with its own parameters"


def test_results_that_nobody_reads_are_not_computed() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(WIDTH, HIDDEN, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.lstm(x)[1][0][0]
            return hidden

    torch.manual_seed(0)
    module = to_modules(export(Last().eval(), (batch_of(2, True),)))
    exported = export_onnx(module, (batch_of(2, True),))
    (node,) = [node for node in exported.graph.node if node.op_type == "LSTM"]
    assert [bool(name) for name in node.output] == [False, True]
    check_parity(module, OnnxRuntime().load_model(exported, 1), (batch_of(4, True),), tolerance=1e-6)


def test_multiply_accumulates_are_counted_per_step() -> None:
    layer = nn.LSTM(WIDTH, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
    per_step = 2 * (4 * HIDDEN * (WIDTH + HIDDEN)) + 2 * (4 * HIDDEN * (2 * HIDDEN + HIDDEN))
    assert layer_macs(layer, (7, LENGTH, WIDTH), None, 7) == LENGTH * per_step
    time_first = nn.GRU(WIDTH, HIDDEN)
    assert layer_macs(time_first, (LENGTH, 7, WIDTH), None, 7) == LENGTH * 3 * HIDDEN * (WIDTH + HIDDEN)


class Bag(nn.Module):
    def __init__(self, mode: str, padding: int | None) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(9, 3, mode=mode, padding_idx=padding)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.bag(ids)
        return out


@pytest.mark.parametrize(("mode", "padding"), [("sum", None), ("mean", None), ("max", None), ("sum", 0), ("mean", 2)])
def test_bags_of_equal_length(mode: str, padding: int | None) -> None:
    torch.manual_seed(0)
    model = Bag(mode, padding).eval()
    ids = torch.randint(0, 9, (3, 4))
    ids[0] = padding or 0
    program = export(model, (ids,))
    module = to_modules(program)
    layer = module.get_submodule("bag")
    assert isinstance(layer, nn.EmbeddingBag)
    assert describe(program, module).inputs[0].id_limit == 9
    exported = export_onnx(module, (ids[:1],))
    check_parity(module, OnnxRuntime().load_model(exported, 1), (torch.cat([ids, ids.flip(1)]),), tolerance=1e-6)


def test_bags_of_other_lengths_stay_functions() -> None:
    class Offsets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(9, 3, mode="sum")

        def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
            out: Tensor = self.bag(ids, starts)
            return out

    model, inputs = Offsets().eval(), (torch.tensor([1, 2, 3, 4]), torch.tensor([0, 3]))
    module = to_modules(export(model, inputs, None))
    with torch.no_grad():
        assert torch.equal(module(*inputs), model(*inputs))
    with pytest.raises(UnsupportedModel, match="embedding_bag"):
        export_onnx(module, inputs)
