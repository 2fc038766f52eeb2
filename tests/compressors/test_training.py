"""Tuning: what it learns from, where it may be cut, and that the cuts do not change it."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressors.batch_norm_statistics import batch_norms, reestimate
from compressors.distillation import distillation_loss
from compressors.errors import InvalidData, InvalidRecipe
from compressors.recipe import Distillation
from compressors.tasks import standard_error, task
from compressors.tasks.divergences import softmax_divergence as divergence
from compressors.training import BATCH, Checkpoint, Run, make_optimizer, order, positions, rate, tune
from compressors.weight_rounding import rounded_weights

ROWS = 300
TASK = task("classification")


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS, 6, generator=generator)
    return inputs, (inputs[:, 0] + 0.5 * inputs[:, 1] > 0).long() + (inputs[:, 2] > 1).long()


INPUTS, TARGET = rows()


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def fetch(at: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None]:
    index = torch.from_numpy(at)
    return (INPUTS[index],), TARGET[index], None


def clock() -> float:
    return 0.0


def tuned(network: nn.Module, start: int, stop: int, optimizer: torch.optim.Optimizer, run: Run | None = None) -> Run:
    run = run or Run(start=start, stop=stop, seen=start)
    config = Distillation(alpha=0.0, learning_rate=0.1)
    tune(network, TASK, fetch, ROWS, config, run, optimizer, seed=3, clock=clock)
    return run


def accuracy(network: nn.Module) -> float:
    with torch.no_grad():
        return TASK.metric(network.eval()(INPUTS).numpy(), TARGET.numpy())


def test_tuning_learns() -> None:
    network = model()
    before = accuracy(network)
    config = Distillation(alpha=0.0, learning_rate=0.1)
    run = tuned(network, 0, 40 * ROWS, make_optimizer(network, config))
    assert run.seen == 40 * ROWS
    assert not network.training
    assert accuracy(network) > max(before, 0.9)


def test_same_seed_same_weights() -> None:
    results = []
    for _ in range(2):
        network = model()
        tuned(network, 0, 600, make_optimizer(network, Distillation(learning_rate=0.1)))
        results.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(results[0], results[1])


def test_a_cut_and_resumed_run_is_the_run(tmp_path: Path) -> None:
    config = Distillation(learning_rate=0.1)
    whole = model()
    tuned(whole, 0, 1000, make_optimizer(whole, config))

    first = model()
    optimizer = make_optimizer(first, config)
    run = Run(start=0, stop=1000, seen=0)
    ticks = itertools.count()
    cut = Distillation(alpha=0.0, learning_rate=0.1)

    class Cut(Exception):
        pass

    def breaking(at: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None]:
        if next(ticks) == 4:
            raise Cut
        return fetch(at)

    with pytest.raises(Cut):
        tune(first, TASK, breaking, ROWS, cut, run, optimizer, seed=3, clock=clock)
    assert 0 < run.seen < 1000
    saved = Checkpoint(tmp_path / "c" / "x.pt")
    saved.save(first, optimizer, run, "key")
    assert saved.load("another key") is None
    state = saved.load("key")
    assert state is not None

    second = model()
    second.load_state_dict(state["model"])
    again = make_optimizer(second, config)
    again.load_state_dict(state["optimizer"])
    start, stop, seen = state["run"]
    tuned(second, 0, 0, again, Run(start=start, stop=stop, seen=seen))
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_deadline_cuts_a_run_and_anneals_it() -> None:
    times = itertools.count()
    network = model()
    config = Distillation(alpha=0.0, learning_rate=0.1)
    optimizer = make_optimizer(network, config)
    run = Run(start=0, stop=10**6, seen=0)
    outcome = tune(
        network, TASK, fetch, ROWS, config, run, optimizer, seed=0, clock=lambda: float(next(times)), deadline=50.0
    )
    assert 0 < outcome.seen < 50 * BATCH
    assert optimizer.param_groups[0]["lr"] < 0.1 * config.learning_rate


def test_the_stream_of_samples_does_not_depend_on_where_it_is_cut() -> None:
    whole = np.concatenate(list(positions(ROWS, 0, 1000, 5)))
    cut = np.concatenate([*positions(ROWS, 0, 170, 5), *positions(ROWS, 170, 1000, 5)])
    assert np.array_equal(whole, cut)
    for epoch in range(3):
        assert np.array_equal(np.sort(whole[epoch * ROWS : (epoch + 1) * ROWS]), np.arange(ROWS))
        assert np.array_equal(whole[epoch * ROWS : (epoch + 1) * ROWS], order(ROWS, epoch, 5))
    assert not np.array_equal(order(ROWS, 0, 5), order(ROWS, 1, 5))


def test_learning_rate_rises_then_falls() -> None:
    rates = [rate(p / 100, 1.0) for p in range(101)]
    peak = int(np.argmax(rates))
    assert 0 < peak < 15
    assert max(rates) <= 1.0
    assert rates[-1] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[peak:]))


def test_divergence_is_zero_for_equal_and_positive_for_other_logits() -> None:
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    assert float(divergence(logits, logits, 4.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(divergence(torch.zeros_like(logits), logits, 4.0)) > 0
    expected = functional.kl_div(
        functional.log_softmax(logits / 2, 1), functional.softmax(logits.flip(1) / 2, 1), reduction="batchmean"
    )
    assert float(divergence(logits, logits.flip(1), 2.0)) == pytest.approx(4 * float(expected), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_mixes_teacher_and_labels(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(8, 5, generator=generator), torch.randn(8, 5, generator=generator)
    target = torch.arange(8) % 5
    config = Distillation(alpha=alpha, temperature=3.0)
    expected = alpha * divergence(student, teacher, 3.0) + (1 - alpha) * functional.cross_entropy(student, target)
    assert float(distillation_loss(TASK, student, target, teacher, config)) == pytest.approx(float(expected), rel=1e-5)
    plain = distillation_loss(TASK, student, target, None, config)
    assert float(plain) == pytest.approx(float(functional.cross_entropy(student, target)))


def test_batch_norm_statistics_are_those_of_the_data() -> None:
    network = model()
    norm = batch_norms(network)[0]
    norm.running_mean = torch.full((16,), 7.0)
    before = copy.deepcopy(dict(network.named_parameters()))
    assert reestimate(network, [(INPUTS[:150],), (INPUTS[150:],)]) == 1
    hidden = network[0](INPUTS)  # type: ignore[index]
    assert norm.running_mean is not None
    assert torch.allclose(norm.running_mean, hidden.mean(0), atol=1e-4)
    assert norm.momentum == pytest.approx(0.1)
    assert not norm.training or network.training
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])


def test_reestimating_without_batch_norms_runs_nothing() -> None:
    def never() -> object:
        raise AssertionError("the model was run")
        yield

    assert reestimate(nn.Linear(2, 2), never()) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounded_weights_lie_on_the_grid_of_their_channel(bits: int) -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    rounded = rounded_weights(weight, bits)
    assert rounded.shape == weight.shape
    for channel, original in zip(rounded, weight, strict=True):
        assert len(channel.unique()) <= 2**bits - 1
        largest = 2 ** (bits - 1) - 1
        assert float((channel - original).abs().max()) <= float(original.abs().max()) / largest / 2 + 1e-6


def test_rounding_to_no_bits_is_refused() -> None:
    with pytest.raises(InvalidRecipe, match="bits=1"):
        rounded_weights(torch.ones(2, 2), 1)


def test_metric_is_the_share_of_hits_and_tasks_are_known_by_name() -> None:
    outputs = np.eye(4, dtype=np.float32)[[0, 1, 2, 2]]
    target = np.array([0, 1, 2, 3])
    assert task("classification").metric(outputs, target) == pytest.approx(0.75)
    assert list(TASK.scores(outputs, target)) == [1, 1, 1, 0]
    with pytest.raises(InvalidData, match="task='divination': unknown; known are"):
        task("divination")


def test_standard_error_of_a_paired_difference() -> None:
    difference = np.array([1.0, -1.0, 0.0, 0.0])
    assert standard_error(difference) == pytest.approx(difference.std(ddof=1) / 2)
    assert standard_error(np.zeros(10)) == 0.0
    assert not math.isnan(standard_error(np.array([1.0])))
