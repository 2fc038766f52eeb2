"""Factorises layers: SVD for matrices, Tucker-2 for kernels."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping

from torch import fx

from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.factored_layers import Site, find_sites, insert_sequences, replacement
from compressors.factored_ranks import Ranks, factors_for, ranks_for, told_ranks
from compressors.factorization import fit_outputs
from compressors.output_moments import output_moments
from compressors.recipe import LowRank
from compressors.registry import Context, register


@register(LowRank)
def factorise(model: fx.GraphModule, config: LowRank, context: Context) -> fx.GraphModule:
    """A new model in which layers are sequences `<layer>.first`, `<layer>.second` (and `.third`).

    Raises InvalidRecipe for layers that do not exist, cannot be factorised or would not get smaller; UnsupportedModel
    if no layer at all gets smaller.
    """
    ranks, sites = choose_ranks(model, config, context)
    factors = {name: factors_for(sites[name], found, draft=context.draft) for name, found in ranks.items()}
    shifts = {}
    if config.data_aware and not context.draft:
        chosen = {name: sites[name] for name in ranks}
        for name, moments in output_moments(model, chosen, factors, context.batches()).items():
            factors[name], shifts[name] = fit_outputs(factors[name], sites[name].weight, moments)
    factorised: fx.GraphModule = copy.deepcopy(model)
    insert_sequences(
        factorised, {name: replacement(sites[name], found, shifts.get(name)) for name, found in factors.items()}
    )
    return factorised


def choose_ranks(
    model: fx.GraphModule, config: LowRank, context: Context
) -> tuple[dict[str, Ranks], Mapping[str, Site]]:
    """Ranks of every layer that is factorised, and all layers that could be. Raises as `factorise` does."""
    sites, refused = find_sites(model, context.example_inputs)
    for field, names in (("layers", config.layers), ("ranks", config.ranks)):
        for name in names:
            if name not in sites:
                raise InvalidRecipe(f"low_rank.{field}: {name!r} {_unknown(name, sites, refused)}")
    ranks = {name: told_ranks(sites[name], rank, config) for name, rank in config.ranks.items()}
    by_rule = config.layers or [name for name, site in sites.items() if site.kind in config.kinds]
    for name in by_rule if config.energy is not None or config.ratio is not None else ():
        if name in ranks:
            continue
        found = ranks_for(sites[name], config)
        if found is not None:
            ranks[name] = found
        elif name in config.layers:
            raise InvalidRecipe(
                f"low_rank.layers: {name!r} does not get smaller at {_rule(config)}: "
                f"the factors would hold no less than its {sites[name].parameters} values; lower it or leave it out"
            )
    if not ranks:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
        raise UnsupportedModel(
            f"low_rank: no layer of kinds {', '.join(config.kinds)} gets smaller at {_rule(config)}"
            f"{f' ({reasons})' if reasons else ''}; lower it or leave the technique out"
        )
    return {name: ranks[name] for name in sites if name in ranks}, sites


def _rule(config: LowRank) -> str:
    return f"energy={config.energy}" if config.energy is not None else f"ratio={config.ratio}"


def _unknown(name: str, sites: Mapping[str, Site], refused: Mapping[str, str]) -> str:
    if name in refused:
        return f"cannot be factorised: {refused[name]}"
    near = difflib.get_close_matches(name, sites, n=3, cutoff=0.4) or list(sites)[:5]
    return f"is no layer with a weight matrix; near it are {near}" if near else "is no layer; the model has none"
