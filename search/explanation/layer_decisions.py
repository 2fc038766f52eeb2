"""What the winner's recipe does to each layer, what that cost it in sensitivity, and what it saved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from compressors.layer_costs import GRID, LayerShape
from compressors.recipe import Quantization, Recipe
from search.cost_prediction import FLOAT_BITS
from search.explanation.cost_view import CostView
from search.layer_plan import FULL_BITS, plan_of
from search.profile import Profile
from search.sensitivity import Sensitivity

LAYERS = 400  # shown: those that take most of the latency or the bytes


def layer_decisions(
    profile: Profile, sensitivity: Sensitivity | None, costs: CostView, recipe: Recipe
) -> dict[str, Any]:
    """{rows, left_out, measurements}: a row per layer with weights, in the order of the network.

    A row: name, kind, groups (of its outputs' channels), channels and inputs [before, after], bits [before, after]
    (after: None where another encoding stores the weights), latency_share [before, after] (of the uncompressed
    model's and of the winner's, as far as layers explain it), latency_ms [before, after] (predicted), bytes [before,
    after] (of the weights), loss (nats) of this layer's decisions when each is taken alone, None if none was measured.
    measurements: how many shapes the prediction of latency rests on. left_out: layers not shown, the cheapest ones.
    """
    plan = plan_of(recipe, profile)
    keep, blocks = plan.keep, plan.dropped
    before, after = costs.work_before(), costs.latency_after(recipe)
    whole = sum(after) if after is not None else 0.0
    at_full_bits = _at_full_bits(sensitivity)
    dropped = profile.layers_of_blocks(blocks)
    rows = []
    for index, shape in enumerate(profile.shapes):
        if shape.kernel == 0 or shape.kind.startswith(("BatchNorm", "LayerNorm", "GroupNorm")):
            continue
        gone = shape.layer in dropped
        bits = _bits(recipe, shape.layer)
        parameters = (shape.parameters(profile.sizes), 0 if gone else shape.parameters(keep))
        predicted = None if after is None else after[index]
        rows.append(
            {
                "name": shape.name,
                "kind": shape.kind,
                "groups": _groups(shape),
                "channels": [shape.out_channels(profile.sizes), 0 if gone else shape.out_channels(keep)],
                "inputs": [shape.in_channels(profile.sizes), 0 if gone else shape.in_channels(keep)],
                "bits": [FLOAT_BITS, bits],
                "latency_share": [
                    round(before[index], 5),
                    None if predicted is None or whole <= 0 else round(predicted / whole, 5),
                ],
                "latency_ms": [
                    round(before[index] * profile.baseline.latency_ms, 6),
                    None if predicted is None else round(predicted * profile.baseline.latency_ms, 6),
                ],
                "bytes": [
                    parameters[0] * FLOAT_BITS // 8,
                    None if bits is None else -(-parameters[1] * bits // 8),
                ],
                "loss": _block_loss(shape, profile, blocks, sensitivity)
                if gone
                else _loss(shape, profile, keep, bits, sensitivity, at_full_bits),
                "dropped": gone,
            }
        )
    shown = sorted(range(len(rows)), key=lambda i: -_weight(rows[i]))[:LAYERS]
    return {
        "rows": [rows[i] for i in sorted(shown)],
        "left_out": len(rows) - len(shown),
        "measurements": costs.measurements,
    }


def _weight(row: Mapping[str, Any]) -> float:
    return float(row["latency_share"][0]) + float(row["bytes"][0]) * 1e-12


def _groups(shape: LayerShape) -> list[str]:
    return sorted({name for key in shape.out_groups for name in key.split(GRID)})


def _bits(recipe: Recipe, layer: str) -> int | None:
    """Of a layer's stored weights; None where a technique other than integers encodes them."""
    quantization = next((s for s in recipe.steps if isinstance(s, Quantization)), None)
    if quantization is not None:
        return FLOAT_BITS if layer in quantization.float_layers else quantization.bits_of(layer)[0]
    return FLOAT_BITS if all(s.phase.name != "ENCODING" for s in recipe.steps) else None


def _block_loss(
    shape: LayerShape, profile: Profile, blocks: Collection[str], sensitivity: Sensitivity | None
) -> float | None:
    """Of the block that a layer went with."""
    block = next((b for b in sorted(blocks) if shape.layer in profile.blocks[b]), None)
    return None if sensitivity is None or block is None else round(sensitivity.block_loss(block), 6)


def _at_full_bits(sensitivity: Sensitivity | None) -> dict[str, float]:
    """Loss of layers at 8 bits, where it was measured; it is small, and none else."""
    entries = () if sensitivity is None else sensitivity.entries
    return {e.name: max(e.loss, 0.0) for e in entries if e.technique == "quantization" and e.level == FULL_BITS}


def _loss(
    shape: LayerShape,
    profile: Profile,
    keep: Mapping[str, int],
    bits: int | None,
    sensitivity: Sensitivity | None,
    at_full_bits: Mapping[str, float],
) -> float | None:
    """Sum over the groups that shape its outputs, and its bits where they are fewer than 8 or were measured there."""
    if sensitivity is None:
        return None
    groups, layer = _groups(shape), shape.layer
    losses = [sensitivity.pruning_loss(g, keep[g] / profile.sizes[g]) for g in groups if keep[g] < profile.sizes[g]]
    if bits is not None and bits < FULL_BITS:
        losses.append(sensitivity.rounding_loss(layer, bits))
    if bits is not None and bits <= FULL_BITS and layer in at_full_bits:
        losses.append(at_full_bits[layer])
    return round(sum(losses), 6) if losses or groups else None
