"""Batch-norm folding as a step: the same function without the norms."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from compressors.recipe import BatchNormFolding
from tests.conformance.technique import Case, TechniqueConformance, rows

CASES = (
    Case("option_a_resnet", BatchNormFolding()),
    Case("mlp", BatchNormFolding()),  # a norm behind a linear layer
    Case("bert", BatchNormFolding()),  # without norms
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestBatchNormFolding(TechniqueConformance):
    def test_the_function_is_kept(self, case: Case, start: fx.GraphModule, changed: fx.GraphModule) -> None:
        inputs = rows(case.model, 8)
        with torch.no_grad():
            torch.testing.assert_close(changed(*inputs), start(*inputs), atol=1e-5, rtol=1e-5)
        assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in changed.modules())
