"""Which ranks a layer's factors get: by kept energy, by share of the weight, or as told."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from compressors.errors import InvalidRecipe
from compressors.factored_layers import Counts, Site
from compressors.factorization import Factors, lost_energy, svd_factors, tucker_factors
from compressors.recipes.low_rank import LowRank, Rank

Ranks = tuple[int, int]  # of the outputs and of the inputs; a rank that is the whole side means no factor there


def ranks_for(site: Site, config: LowRank) -> Ranks | None:
    """Ranks by `config.energy` or `config.ratio`; None if none of them makes the layer smaller.

    energy: the fewest parameters among ranks that keep it. ratio: the most energy among ranks that hold at most this
    share of the parameters. What Tucker-2 loses is bounded by the sum of what either side loses alone (De Lathauwer et
    al. 2000, equation 24), so it keeps at least the energy that is asked for.
    """
    rank, in_rank = _grid(site, config)
    parameters, _ = site.cost(rank, in_rank)
    lost = lost_energy(site.weight, 0).numpy()[rank]
    if is_tucker(site, config):
        lost = lost + lost_energy(site.weight, 1).numpy()[in_rank]
    if config.energy is not None:
        allowed, order = lost <= 1 - config.energy, parameters
    else:
        assert config.ratio is not None
        allowed, order = parameters <= config.ratio * site.parameters, lost
    return _first(rank, in_rank, allowed & site.gets_smaller(rank, in_rank), order)


def told_ranks(site: Site, rank: Rank, config: LowRank) -> Ranks:
    """Ranks as `config.ranks` says. Raises InvalidRecipe for such as do not exist or do not make the layer smaller."""
    field = f"low_rank.ranks[{site.name!r}]={rank}"
    outputs, inputs = site.weight.shape[:2]
    if isinstance(rank, tuple):
        if not is_tucker(site, config):
            raise InvalidRecipe(f"{field}: two ranks are for k x k convolutions with kernels=tucker; give one number")
        chosen = rank
    else:
        chosen = (rank, inputs)
    limits = (min(outputs, math.prod(site.weight.shape[1:])), inputs)
    if chosen[0] > limits[0] or chosen[1] > limits[1]:
        raise InvalidRecipe(f"{field}: this layer has ranks up to {limits if isinstance(rank, tuple) else limits[0]}")
    if not site.gets_smaller(np.asarray(chosen[0]), np.asarray(chosen[1])):
        every = np.arange(1, limits[0] + 1)
        smaller = every[site.gets_smaller(every, np.full_like(every, chosen[1]))]
        most = f"at most {smaller.max()} makes it smaller" if len(smaller) else "no rank makes it smaller"
        raise InvalidRecipe(f"{field}: the factors are no smaller than the layer; {most}; lower it or leave it out")
    return chosen


def is_tucker(site: Site, config: LowRank) -> bool:
    """Whether this layer's inputs may get a factor of their own."""
    return site.kind == "convolution" and not site.pointwise and config.kernels == "tucker"


def factors_for(site: Site, ranks: Ranks, *, draft: bool = False) -> Factors:
    """The factors with the least error of the weight; of a draft just some of the same shape."""
    rank, in_rank = ranks
    if in_rank < site.weight.shape[1] or (rank == site.weight.shape[0] and not site.pointwise):
        return tucker_factors(site.weight, rank, in_rank, **({"iterations": 0} if draft else {}))
    return svd_factors(site.weight, rank)


def _grid(site: Site, config: LowRank) -> tuple[Counts, Counts]:
    """All pairs of ranks, as two columns."""
    outputs, inputs = site.weight.shape[:2]
    ranks = np.arange(1, min(outputs, math.prod(site.weight.shape[1:])) + 1)
    in_ranks = np.arange(1, inputs + 1) if is_tucker(site, config) else np.array([inputs])
    rank, in_rank = np.meshgrid(ranks, in_ranks, indexing="ij")
    return rank.ravel(), in_rank.ravel()


def _first(rank: Counts, in_rank: Counts, allowed: NDArray[np.bool_], order: NDArray[np.generic]) -> Ranks | None:
    places = np.flatnonzero(allowed)
    if not len(places):
        return None
    best = places[np.argmin(order[places])]
    return int(rank[best]), int(in_rank[best])
