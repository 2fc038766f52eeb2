"""Static quantisation as a step: batch norms folded, ranges calibrated, the rest is left to the export."""

from __future__ import annotations

from torch import fx

from compressors.batch_norm import fold_batch_norm
from compressors.calibration import collect_ranges
from compressors.onnx_emission import array_of
from compressors.onnx_export import export_onnx
from compressors.recipe import Quantization
from compressors.registry import Context, register
from compressors.state import StaticQuantization, state_of
from compressors.static_quantization import check_layers


@register(Quantization)
def quantize(model: fx.GraphModule, config: Quantization, context: Context) -> fx.GraphModule:
    """A folded copy whose export is int8. Raises InvalidRecipe for layers that do not exist."""
    folded = fold_batch_norm(model)
    ranges = None
    if not context.draft:
        exported = export_onnx(folded, context.example_inputs)
        check_layers(exported, config)
        batches = ([array_of(tensor) for tensor in batch] for batch in context.batches())
        ranges = collect_ranges(exported, batches, config.observer, context.threads)
    state_of(folded).activations = StaticQuantization(config, ranges)
    return folded
