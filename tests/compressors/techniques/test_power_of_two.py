"""Powers of two: the contract, and that values are what they are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressors.encodings.powers import nearest_powers, powers
from compressors.errors import InvalidRecipe
from compressors.layer_weights import layer_weights
from compressors.programs import to_modules
from compressors.recipe import PowerOfTwo
from compressors.registry import apply
from compressors.state import state_of
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import exported

CASES = (
    Case("mobilenet", PowerOfTwo(bits=4)),
    Case("bert", PowerOfTwo(bits=3, layers=("tokens", "block1.fc1", "positions"))),
    Case("unet", PowerOfTwo(bits=2)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestPowerOfTwo(TechniqueConformance):
    def test_weights_are_powers_of_two(self, case: Case, changed: torch.fx.GraphModule) -> None:
        for name in state_of(changed).encodings:
            mantissa, _ = np.frexp(changed.get_parameter(name).detach().numpy())
            assert set(np.unique(np.abs(mantissa))) <= {0.0, 0.5}


def test_the_levels() -> None:
    np.testing.assert_array_equal(powers(2), [0, 1, 0, -1])
    np.testing.assert_array_equal(powers(3), [0, 0.25, 0.5, 1, 0, -0.25, -0.5, -1])


def test_the_nearest_level_is_taken() -> None:
    values = np.array([0.1, 0.13, 0.37, 0.38, -0.7, -0.8, 9, -0.1], dtype=np.float32)
    rounded = nearest_powers(values, 3, np.ones(1, dtype=np.float32)).decode()
    np.testing.assert_array_equal(rounded, [0, 0.25, 0.25, 0.5, -0.5, -1, 1, 0])
    levels = powers(4)
    random = np.random.default_rng(0).normal(size=500).astype(np.float32)
    rounded = nearest_powers(random, 4, np.ones(1, dtype=np.float32)).decode()
    closest = np.abs(random[:, None] - levels).min(axis=1)
    np.testing.assert_allclose(np.abs(rounded - random), closest, atol=1e-7)


def test_more_bits_come_closer() -> None:
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    errors = []
    for bits in (2, 3, 4, 5):
        made = apply(model, PowerOfTwo(bits=bits), context)
        floats = state_of(made).floats
        errors.append(sum(float((w.tensor.detach() - floats[w.name]).square().sum()) for w in layer_weights(made)))
    assert errors[0] > 2 * errors[1]
    assert errors[1] > errors[2] >= errors[3]


def test_wrong_use_is_refused_by_name() -> None:
    model = to_modules(exported("mlp"))
    with pytest.raises(InvalidRecipe, match=r"power_of_two.layers: 'fc9' is no layer"):
        apply(model, PowerOfTwo(layers=("fc9",)), context_for("mlp", model))
