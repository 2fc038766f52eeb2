"""One module per technique: the function that applies its configuration. Importing this package registers them all."""

from __future__ import annotations

from compressors.techniques import (
    batch_norm_folding,
    batch_norm_reestimation,
    centroid_tuning,
    cross_layer_equalization,
    depth_pruning,
    distillation,
    dynamic_quantization,
    float_format,
    low_rank,
    nm_pruning,
    power_of_two,
    quantization,
    structured_pruning,
    student,
    unstructured_pruning,
    weight_averaging,
    weight_only_quantization,
    weight_sharing,
    width_scaling,
)

MODULES = (
    batch_norm_folding,
    batch_norm_reestimation,
    centroid_tuning,
    cross_layer_equalization,
    depth_pruning,
    distillation,
    dynamic_quantization,
    float_format,
    low_rank,
    nm_pruning,
    power_of_two,
    quantization,
    structured_pruning,
    student,
    unstructured_pruning,
    weight_averaging,
    weight_only_quantization,
    weight_sharing,
    width_scaling,
)
