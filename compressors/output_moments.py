"""Second moments of layers' outputs, from a pass over calibration inputs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from compressors.factored_layers import Site
from compressors.factorization import Factors, Moments, restricted


class _Sums:
    """Of y and z, channels last, over all positions seen."""

    def __init__(self, channels: int, *, two: bool) -> None:
        self.count = 0
        self.two = two
        self.y, self.z = torch.zeros(2, channels, dtype=torch.float64)
        self.yy, self.yz, self.zz = torch.zeros(3, channels, channels, dtype=torch.float64)

    def add(self, y: Tensor, z: Tensor) -> None:
        y = y.reshape(-1, len(self.y)).double()
        self.count += len(y)
        self.y += y.sum(0)
        self.yy += y.T @ y
        if self.two:
            z = z.reshape(-1, len(self.z)).double()
            self.z += z.sum(0)
            self.yz += y.T @ z
            self.zz += z.T @ z

    def moments(self, *, centred: bool) -> Moments:
        """centred: about the means, which the bias takes up; else about zero."""
        count = max(self.count, 1)
        y, z = self.y / count, self.z / count
        yy, yz, zz = self.yy / count, self.yz / count, self.zz / count
        if not centred:
            return Moments(yy, yz, zz, torch.zeros_like(y), torch.zeros_like(z))
        return Moments(yy - torch.outer(y, y), yz - torch.outer(y, z), zz - torch.outer(z, z), y, z)


@torch.no_grad()
def output_moments(
    model: fx.GraphModule,
    sites: Mapping[str, Site],
    factors: Mapping[str, Factors],
    batches: Iterable[tuple[Tensor, ...]],
) -> dict[str, Moments]:
    """Moments for `factorization.fit_outputs` of every site. Memory: three (out, out) matrices per site."""
    observed: fx.GraphModule = copy.deepcopy(model).eval()
    sums = {}
    for name, site in sites.items():
        right = factors[name].right
        sums[name] = _Sums(site.weight.shape[0], two=right is not None)
        reduced = None if right is None else restricted(site.weight, right).to(site.weight.dtype)
        observed.get_submodule(name).register_forward_hook(_recorder(sums[name], site, reduced))
    for inputs in batches:
        observed(*inputs)
    return {name: found.moments(centred=sites[name].has_bias) for name, found in sums.items()}


def _recorder(sums: _Sums, site: Site, reduced: Tensor | None) -> Any:
    def record(layer: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        if site.kind == "recurrent":
            gates = functional.linear(given[0], site.weight)
            sums.add(gates, gates)
            return
        y = result if getattr(layer, "bias", None) is None else _without_bias(layer, result)
        if site.kind != "convolution":
            sums.add(y, y)
            return
        z = y if reduced is None else _run(layer, given[0], reduced)
        sums.add(y.movedim(1, -1), z.movedim(1, -1))

    return record


def _without_bias(layer: Any, result: Tensor) -> Tensor:
    bias: Tensor = layer.bias
    if isinstance(layer, nn.modules.conv._ConvNd):
        bias = bias.reshape(-1, *[1] * len(layer.kernel_size))
    return result - bias


def _run(layer: Any, inputs: Tensor, weight: Tensor) -> Tensor:
    """What `layer` would give with another weight, (out, in, *kernel), and without bias."""
    twin = copy.copy(layer)
    stored = weight.transpose(0, 1) if layer.transposed else weight
    twin.__dict__["_parameters"] = {"weight": nn.Parameter(stored, requires_grad=False), "bias": None}
    twin.__dict__["_forward_hooks"] = {}
    result: Tensor = twin(inputs)
    return result
