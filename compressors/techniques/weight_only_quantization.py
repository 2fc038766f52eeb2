"""Weight-only quantisation as a step of a recipe."""

from __future__ import annotations

from torch import fx, nn

from compressors.encodings.encoding import Encoding
from compressors.errors import UnsupportedModel
from compressors.folding import folded_copy
from compressors.integer_grids import GridSpec
from compressors.layer_weights import LayerWeight, check_known, selected_weights
from compressors.native_products import fits
from compressors.recipe import WeightOnlyQuantization
from compressors.registry import Context, register
from compressors.state import state_of
from compressors.weight_encoding import Rounding, encode_on_grids

_NAME = WeightOnlyQuantization.technique


@register(WeightOnlyQuantization)
def quantize_weights(model: fx.GraphModule, config: WeightOnlyQuantization, context: Context) -> fx.GraphModule:
    """A folded copy with encoded weights. A draft rounds to nearest on the full range.

    Raises InvalidRecipe for layers that do not exist, UnsupportedModel for a model without weights.
    """
    folded = folded_copy(model, context.example_inputs)
    weights = selected_weights(folded, config.layers, f"{_NAME}.layers")
    known = [name for weight in weights for name in weight.layers]
    for name in config.layer_bits:
        check_known(f"{_NAME}.layer_bits", name, known)
    specs = [
        GridSpec(
            bits=next((config.layer_bits[name] for name in weight.layers if name in config.layer_bits), config.bits),
            group_size=config.group_size,
            scheme=config.scheme,
            range="max" if context.draft else config.range,
        )
        for weight in weights
    ]
    rounding = Rounding(method=config.rounding, iterations=config.iterations)
    encode_on_grids(folded, list(zip(weights, specs, strict=True)), rounding, context, _NAME)
    if config.kernel == "native":
        state = state_of(folded)
        state.native = frozenset(w.name for w in weights if _is_native(folded, w, state.encodings[w.name]))
        if not state.native:
            raise UnsupportedModel(
                f"{_NAME}.kernel='native': no linear layer has a weight of its own whose rows are a multiple of "
                f"group_size={config.group_size}; use a smaller group_size, or kernel='decoded'"
            )
    return folded


def _is_native(model: fx.GraphModule, weight: LayerWeight, encoding: Encoding) -> bool:
    """A weight that other layers read decoded would be stored twice."""
    alone = len(weight.names) == 1 and weight.name != weight.layers[0]
    return alone and isinstance(model.get_submodule(weight.layers[0]), nn.Linear) and fits(encoding)
