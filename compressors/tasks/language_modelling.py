"""The next token, at every position."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compressors.errors import InvalidData, UnsupportedModel
from compressors.tasks.contract import Array, Floats, Integers, Task
from compressors.tasks.contributions import ratios
from compressors.tasks.divergences import mean_of, position_divergence

CEILING = 50.0  # nats per token that a broken model is charged; perplexity stays finite


class LanguageModellingTask(Task):
    """Outputs (rows, length, vocabulary), target (rows, length) int64 ids of the same positions.

    Outputs at position i are held against the target at i + 1; the shift happens here, as in Hugging Face models, so
    the column of input ids can be the target. Statistics: sum of the cross-entropies and number of tokens, (rows, 2).
    """

    @property
    def ignored(self) -> int:
        assert self.options.ignore_index is not None
        return self.options.ignore_index

    def as_target(self, values: Array) -> Array:
        if values.ndim != 2 or values.dtype.kind not in "iu":
            raise InvalidData(f"ids of shape {values.shape} and dtype {values.dtype}; a list of token ids is needed")
        return values.astype(np.int64, copy=False)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        losses, counted = self._losses(outputs, target)
        return mean_of(losses, counted)

    def _losses(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, length - 1) each: cross-entropy in nats, 0 where the target does not count, and whether it counts."""
        following = target[:, 1:]
        logits = outputs[:, :-1].flatten(0, 1)
        losses = functional.cross_entropy(logits, following.flatten(), ignore_index=self.ignored, reduction="none")
        return losses.view_as(following), following != self.ignored

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, target: Tensor | None = None) -> Tensor:
        counted = None if target is None else target[:, 1:] != self.ignored
        return position_divergence(student[:, :-1], teacher[:, :-1], temperature, counted)

    def check_outputs(self, outputs: Array) -> None:
        if outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1.0, atol=1e-3):
            raise UnsupportedModel(
                "the outputs of every position sum to 1, as if they were probabilities; language_modelling needs "
                "logits; leave the softmax out of the model and export again"
            )

    def statistics(self, outputs: Array, target: Array) -> Array:
        vocabulary = outputs.shape[-1]
        wrong = target[(target != self.ignored) & ((target < 0) | (target >= vocabulary))]
        if wrong.size:
            raise InvalidData(
                f"the target holds the id {wrong[0]}; the model knows {vocabulary} ids, 0..{vocabulary - 1}"
            )
        losses, counted = self._losses(
            torch.from_numpy(outputs.astype(np.float32, copy=False)), torch.from_numpy(target)
        )
        charged = np.nan_to_num(losses.double().numpy(), nan=CEILING, posinf=CEILING)
        return np.stack([(charged * counted.numpy()).sum(axis=1), counted.sum(dim=1).double().numpy()], axis=1)

    def metric_of(self, statistics: Array, groups: Integers | None = None) -> float:
        return self._computed(statistics)[0]

    def scores_of(self, statistics: Array, groups: Integers | None = None) -> Floats:
        return self._computed(statistics)[1]

    def _computed(self, statistics: Array) -> tuple[float, Floats]:
        """Contributions to exp(m): exp(m) (1 + c_i - m), the delta method."""
        value, contributions = ratios(statistics[:, :1], statistics[:, 1:])
        mean, each = float(value[0]), contributions[:, 0]
        if self.options.metric == "-cross_entropy":
            return -mean, -each
        perplexity = float(np.exp(min(mean, CEILING)))
        return -perplexity, -perplexity * (1.0 + each - mean)

    def agreement(self, outputs: Array, other: Array) -> float:
        return float((outputs.argmax(axis=-1) == other.argmax(axis=-1)).mean())
