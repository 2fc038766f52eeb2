"""One module per technique: the function that applies its configuration. Importing this package registers them all."""

from __future__ import annotations

from compressors.techniques import (
    batch_norm_folding,
    batch_norm_reestimation,
    distillation,
    dynamic_quantization,
    float_format,
    nm_pruning,
    power_of_two,
    quantization,
    structured_pruning,
    unstructured_pruning,
    weight_only_quantization,
)

MODULES = (
    structured_pruning,
    unstructured_pruning,
    nm_pruning,
    distillation,
    batch_norm_reestimation,
    quantization,
    dynamic_quantization,
    weight_only_quantization,
    batch_norm_folding,
    float_format,
    power_of_two,
)
