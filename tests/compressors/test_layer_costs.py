"""Costs are plain arithmetic; that they match real models is tested with pruning."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compressors.errors import InvalidRecipe
from compressors.layer_costs import LayerCosts, LayerShape

CONV = LayerShape(
    name="conv",
    kind="Conv2d",
    kernel=9,
    positions=100,
    out_fixed=0,
    out_groups={"conv": 1},
    in_fixed=3,
    bias=True,
)
NORM = LayerShape(
    name="bn", kind="BatchNorm2d", kernel=1, positions=0, out_fixed=0, out_groups={"conv": 1}, depthwise=True, bias=True
)
HEAD = LayerShape(name="fc", kind="Linear", kernel=1, positions=1, out_fixed=10, in_fixed=0, in_groups={"conv": 4})


def test_sides_parameters_and_macs() -> None:
    keep = {"conv": 5}
    assert (CONV.in_channels(keep), CONV.out_channels(keep)) == (3, 5)
    assert CONV.parameters(keep) == 3 * 5 * 9 + 5
    assert CONV.macs(keep) == 100 * 3 * 5 * 9
    assert NORM.parameters(keep) == 10
    assert NORM.macs(keep) == 0
    assert HEAD.parameters(keep) == 10 * 20


def test_grids_multiply_and_shared_weights_count_once() -> None:
    heads = LayerShape(
        name="q", kind="Linear", kernel=1, positions=4, out_fixed=1, out_groups={"heads * places": 3, "a": 2},
        in_fixed=0, in_groups={"b": 2}, position_groups={"c": 5}, shares_weight=True,
    )  # fmt: skip
    keep = {"heads": 2, "places": 7, "a": 3, "b": 5, "c": 2}
    assert heads.groups == keep.keys()
    assert heads.out_channels(keep) == 1 + 3 * 2 * 7 + 2 * 3
    assert heads.macs(keep) == (4 + 5 * 2) * 2 * 5 * heads.out_channels(keep)
    assert heads.parameters(keep) == 0


def test_totals_fill_in_groups_that_keep_everything() -> None:
    costs = LayerCosts((CONV, NORM, HEAD), {"conv": 8})
    assert costs.parameters({}) == costs.parameters({"conv": 8}) == (3 * 8 * 9 + 8) + 16 + 320
    assert costs.macs({"conv": 1}) == 100 * 27 + 40
    with pytest.raises(InvalidRecipe, match="cnov"):
        costs.macs({"cnov": 1})


def test_the_module_is_light() -> None:
    code = "import sys, compressors.layer_costs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
