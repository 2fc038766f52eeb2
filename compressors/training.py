"""Tunes a compressed model: one loop, resumable at any batch, the same on every run with the same seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressors.distillation import distillation_loss
from compressors.recipe import Distillation
from compressors.state import state_of
from compressors.tasks import Task

BATCH = 128
WARM_UP = 0.08  # share of a run in which the learning rate rises
LAST_RATE = 0.01  # of the peak, at the end
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
CLIP = 5.0  # largest norm of the gradient

Batch = tuple[tuple[Tensor, ...], Tensor, Tensor | None]  # inputs, target, teacher's logits
Fetch = Callable[[npt.NDArray[np.int64]], Batch]  # positions 0..rows-1 of the tuning rows -> their batch
Objective = Callable[[nn.Module, Batch], Tensor]  # runs the model on a batch and returns the loss, a scalar


class Hook:
    """What a technique does while a model is tuned. progress: 0..1 of the run, before and after the step at hand."""

    def before_batch(self, model: nn.Module, progress: float) -> None:
        """Called before the forward pass."""

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Called after the optimiser's step."""


class KeepZeros(Hook):
    """Weights that a mask has removed stay zero."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        self._pairs = [(model.get_parameter(name), mask) for name, mask in masks.items()]

    @torch.no_grad()
    def after_step(self, model: nn.Module, progress: float) -> None:
        for parameter, mask in self._pairs:
            parameter.mul_(mask)


def distilling(task: Task, config: Distillation) -> Objective:
    """The objective of `distillation_loss`."""

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        inputs, target, teacher = batch
        return distillation_loss(task, first_output(model(*inputs)).float(), target, teacher, config)

    return objective


def first_output(outputs: Any) -> Tensor:
    """Tasks look at a model's first output."""
    result: Tensor = outputs if isinstance(outputs, Tensor) else outputs[0]
    return result


def order(rows: int, epoch: int, seed: int) -> npt.NDArray[np.int64]:
    """The order in which epoch `epoch` sees the tuning rows."""
    return np.random.default_rng((seed, epoch)).permutation(rows).astype(np.int64)


def positions(rows: int, start: int, stop: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Batches of the endless stream of samples [start, stop); the stream does not depend on where it is cut."""
    at = start
    epoch_order: tuple[int, npt.NDArray[np.int64]] | None = None
    while at < stop:
        epoch, offset = divmod(at, rows)
        if epoch_order is None or epoch_order[0] != epoch:
            epoch_order = (epoch, order(rows, epoch, seed))
        size = min(BATCH, rows - offset, stop - at)
        yield epoch_order[1][offset : offset + size]
        at += size


def rate(progress: float, peak: float) -> float:
    """Learning rate at 0..1 of a run: linear warm-up, then a cosine down to LAST_RATE of the peak.

    Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts inside a run.
    """
    if progress < WARM_UP:
        return peak * (0.1 + 0.9 * progress / WARM_UP)
    down = (min(progress, 1.0) - WARM_UP) / (1 - WARM_UP)
    return peak * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * down)))


def bfloat16_is_native() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; then tuning runs in mixed precision (1.7x measured)."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@dataclass
class Run:
    """One stretch of tuning and where it stands.

    start, stop: samples seen before and after this run. seen: how far it has come.
    """

    start: int
    stop: int
    seen: int


@dataclass(frozen=True)
class Outcome:
    """seen: samples in all, over all runs of the candidate. seconds: of computing. loss: mean over the last tenth."""

    seen: int
    seconds: float
    loss: float


class Checkpoint:
    """State of a candidate's tuning on disk: weights, optimiser, samples seen. Written by rename, never half."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer | None, run: Run, key: str) -> None:
        state = {
            "key": key,
            "run": [run.start, run.stop, run.seen],
            "model": model.state_dict(),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def load(self, key: str) -> dict[str, Any] | None:
        """The state saved under the same key (shape of the candidate and its tuning), else None."""
        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        return state if state["key"] == key else None


def parameters_for(model: nn.Module) -> list[dict[str, Any]]:
    """Weights decay; biases and norms (one dimension) do not (He et al. 2019, arXiv:1812.01187, section 3.1)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(
    model: nn.Module, config: Distillation, further: Sequence[dict[str, Any]] = ()
) -> torch.optim.Optimizer:
    """further: parameter groups besides the model's own (gates, scales, adapters)."""
    groups = [*parameters_for(model), *further]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=MOMENTUM, nesterov=True)


def tune(
    model: nn.Module,
    task: Task,
    fetch: Fetch,
    rows: int,
    config: Distillation,
    run: Run,
    optimizer: torch.optim.Optimizer,
    *,
    seed: int,
    clock: Callable[[], float],
    deadline: float | None = None,
    keep: Callable[[], None] | None = None,
    keep_every_s: float = 20.0,
    chunk: Callable[[], AbstractContextManager[None]] = nullcontext,
    objective: Objective | None = None,
    hooks: Sequence[Hook] = (),
) -> Outcome:
    """Tunes `model` in place from `run.seen` to `run.stop` samples and leaves it in eval mode.

    deadline: on `clock`; the learning rate then follows the seconds, so that the run ends well annealed.
    keep: called about every `keep_every_s` seconds, to save a checkpoint. chunk: entered around each batch, so that
    a measurement can have the machine in between. Deterministic for the same seed, as long as no deadline cuts in.
    objective: left out, the distillation loss of `config`. Groups of the optimiser with a key "fixed" keep their rate.
    Weights that the model's masks have removed stay zero.
    """
    objective = objective or distilling(task, config)
    hooks = (*hooks, KeepZeros(model, state_of(model).masks))
    began = clock()
    last_kept = began
    first = run.seen
    losses: list[float] = []
    mixed = bfloat16_is_native()
    model.train()
    for rows_at in positions(rows, run.seen, run.stop, seed):
        with chunk():
            now = clock()
            progress = (run.seen - run.start) / max(run.stop - run.start, 1)
            if deadline is not None:
                if now >= deadline:
                    break
                by_time = (now - began) / max(deadline - began, 1e-9)
                done = (first - run.start) / max(run.stop - run.start, 1)
                progress = max(progress, done + (1 - done) * by_time)
            for group in optimizer.param_groups:
                if not group.get("fixed"):
                    group["lr"] = rate(progress, config.learning_rate)
            # What dropout and stochastic objectives draw depends on the place in the run alone, so that it can resume.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed * 1_000_003 + run.seen)
                for hook in hooks:
                    hook.before_batch(model, progress)
                batch = fetch(rows_at)
                with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                    loss = objective(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            losses.append(float(loss.detach()))
            run.seen += len(rows_at)
            for hook in hooks:
                hook.after_step(model, (run.seen - run.start) / max(run.stop - run.start, 1))
        if keep is not None and clock() - last_kept > keep_every_s:
            keep()
            last_kept = clock()
    model.eval()
    tail = losses[-max(1, len(losses) // 10) :]
    return Outcome(seen=run.seen, seconds=clock() - began, loss=float(np.mean(tail)) if tail else math.nan)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Labelled rows and the seconds to use them: what techniques that train get.

    rows: number of tuning rows. fetch: their batches, with the teacher's outputs where there are any. clock, chunk: as
    in `tune`.
    """

    task: Task
    rows: int
    fetch: Fetch
    clock: Callable[[], float] = time.monotonic
    chunk: Callable[[], AbstractContextManager[None]] = nullcontext

    def tune(
        self,
        model: nn.Module,
        config: Distillation,
        *,
        seed: int,
        objective: Objective | None = None,
        hooks: Sequence[Hook] = (),
        further: Sequence[dict[str, Any]] = (),
    ) -> Outcome:
        """Tunes `model` in place on `config.samples` samples. further: see `make_optimizer`."""
        return tune(
            model,
            self.task,
            self.fetch,
            self.rows,
            config,
            Run(start=0, stop=config.samples, seen=0),
            make_optimizer(model, config, further),
            seed=seed,
            clock=self.clock,
            chunk=self.chunk,
            objective=objective,
            hooks=hooks,
        )
