"""The rows of the table of techniques: what is applied at which level, and which public tool stands beside it.

Three levels each, mild to strong, fixed before anything was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from torch import fx

from benchmarks.public_tools.onnxruntime_quantizer import quantize_dynamic, quantize_static
from benchmarks.public_tools.torch_prune import prune_globally
from benchmarks.public_tools.torch_pruning_uniform import prune_uniformly
from benchmarks.public_tools.torchao_weight_only import quantize_weights
from compressors.onnx_export import export_onnx
from compressors.recipe import BatchNormReestimation, step_from_json
from compressors.recipes.step import Step
from search.workbench import Workbench

INNER = [f"net.layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)]


@dataclass(frozen=True)
class Level:
    """label: as the table shows it. amount: the number behind it, for public tools. steps: of the recipe, tuning left
    out. shaken: batch-norm statistics no longer fit once the steps are done, so that without a tuning they are
    estimated anew."""

    label: str
    amount: float
    steps: tuple[Step, ...]
    shaken: bool = False

    @property
    def statistics(self) -> tuple[Step, ...]:
        return (BatchNormReestimation(),) if self.shaken else ()


Public = Callable[[Workbench, Level], onnx.ModelProto | fx.GraphModule]


@dataclass(frozen=True)
class Row:
    """tunable: the steps leave something to tune (shape or sparsity), before number formats are applied. public: tools
    that do the same, by name."""

    name: str
    levels: tuple[Level, ...]
    tunable: bool
    public: Mapping[str, Public] = field(default_factory=dict)


def step(technique: str, **fields: Any) -> Step:
    return step_from_json({"technique": technique, **fields})


def _float(bench: Workbench) -> onnx.ModelProto:
    return export_onnx(bench.program.module, bench.example)


def _torch_pruning(bench: Workbench, level: Level) -> fx.GraphModule:
    return prune_uniformly(bench.program.module, bench.example, level.amount)


def _torch_prune(bench: Workbench, level: Level) -> fx.GraphModule:
    return prune_globally(bench.program.module, level.amount)


def _onnxruntime_static(bench: Workbench, level: Level) -> onnx.ModelProto:
    return quantize_static(_float(bench), bench.calibration())


def _onnxruntime_dynamic(bench: Workbench, level: Level) -> onnx.ModelProto:
    return quantize_dynamic(_float(bench))


def _torchao(bench: Workbench, level: Level) -> fx.GraphModule:
    return quantize_weights(bench.program.module, int(level.amount))


def shape(label: str, amount: float, *steps: Step) -> Level:
    return Level(label, amount, steps, shaken=True)


def formatted(label: str, amount: float, *steps: Step) -> Level:
    return Level(label, amount, steps)


def inner(ratio: float) -> dict[str, float]:
    return dict.fromkeys(INNER, ratio)


SHORT: dict[str, Any] = {"samples": 6400, "learning_rate": 0.02}
GENTLE: dict[str, Any] = {"samples": 6400, "learning_rate": 0.002}
ENDS = ["net.layer1.2.conv2", "net.layer2.2.conv2", "net.layer3.2.conv2"]  # of the three stages
HALF = step("structured_pruning", ratios=inner(0.5))

ROWS: tuple[Row, ...] = (
    Row(
        "structured_pruning, inner channels",
        tuple(shape(f"{r:.0%}", r, step("structured_pruning", ratios=inner(r))) for r in (0.25, 0.5, 0.7)),
        tunable=True,
        public={"Torch-Pruning": _torch_pruning},
    ),
    Row(
        "structured_pruning, inner channels by whole groups",
        tuple(
            shape(f"{r:.0%}", r, step("structured_pruning", ratios=inner(r), importance="group_l2"))
            for r in (0.25, 0.5, 0.7)
        ),
        tunable=True,
    ),
    Row(
        "structured_pruning, global by Taylor",
        tuple(
            shape(f"{r:.0%}", r, step("structured_pruning", ratio=r, scope="global", importance="taylor"))
            for r in (0.15, 0.3, 0.45)
        ),
        tunable=True,
    ),
    Row(
        "width_scaling",
        tuple(shape(f"{f:g}", f, step("width_scaling", factor=f)) for f in (0.75, 0.5, 0.25)),
        tunable=True,
    ),
    Row(
        "depth_pruning",
        tuple(shape(f"{n} blocks", n, step("depth_pruning", count=n)) for n in (1, 2, 3)),
        tunable=True,
    ),
    Row(
        "low_rank",
        tuple(shape(f"{r:.0%}", r, step("low_rank", ratio=r, data_aware=True)) for r in (0.75, 0.6, 0.45)),
        tunable=True,
    ),
    Row(
        "unstructured_pruning",
        tuple(shape(f"{s:.0%}", s, step("unstructured_pruning", sparsity=s)) for s in (0.5, 0.7, 0.9)),
        tunable=True,
        public={"torch.nn.utils.prune": _torch_prune},
    ),
    Row(
        "nm_pruning",
        tuple(shape(f"{n}:{m}", n / m, step("nm_pruning", n=n, m=m)) for n, m in ((2, 4), (1, 4), (1, 8))),
        tunable=True,
    ),
    Row(
        "gradual_pruning",
        tuple(formatted(f"{s:.0%}", s, step("gradual_pruning", sparsity=s, **SHORT)) for s in (0.5, 0.7, 0.9)),
        tunable=False,
    ),
    Row(
        "l0_pruning",
        tuple(formatted(f"{s:.0%}", s, step("l0_pruning", sparsity=s, **SHORT)) for s in (0.5, 0.7, 0.9)),
        tunable=False,
    ),
    Row(
        "distillation, half of the inner channels",
        (
            formatted("labels alone", 0.5, HALF, step("distillation", alpha=0.0, **SHORT)),
            formatted("logits", 0.5, HALF, step("distillation", **SHORT)),
            formatted("logits, no labels", 0.5, HALF, step("distillation", alpha=1.0, **SHORT)),
            formatted("features", 0.5, HALF, step("distillation", features=ENDS, **SHORT)),
            formatted("attention maps", 0.5, HALF, step("distillation", attention=ENDS, **SHORT)),
            formatted("relations", 0.5, HALF, step("distillation", relation_weight=1.0, **SHORT)),
        ),
        tunable=False,
    ),
    Row(
        "weight_averaging",
        tuple(formatted(f"{n} copies", n, step("weight_averaging", copies=n, **GENTLE)) for n in (2, 3, 4)),
        tunable=False,
    ),
    Row(
        "quantization, int8",
        tuple(formatted(o, 8, step("quantization", observer=o)) for o in ("min_max", "percentile", "entropy", "mse")),
        tunable=False,
        public={"ONNX Runtime static": _onnxruntime_static},
    ),
    Row(
        "quantization, W4A8",
        (
            formatted("nearest", 4, step("quantization", weight_bits=4)),
            formatted("gptq", 4, step("quantization", weight_bits=4, rounding="gptq")),
            formatted("adaround", 4, step("quantization", weight_bits=4, rounding="adaround")),
            formatted(
                "adaround, trained",
                4,
                step("quantization", weight_bits=4, rounding="adaround"),
                step("quantization_aware_training", **GENTLE),
            ),
            formatted("trained", 4, step("quantization", weight_bits=4), step("quantization_aware_training", **GENTLE)),
        ),
        tunable=False,
    ),
    Row(
        "quantization, mixed",
        (
            formatted(
                "W3A8, trained",
                3,
                step("quantization", weight_bits=3, rounding="adaround"),
                step("quantization_aware_training", **GENTLE),
            ),
            formatted(
                "W4A4, trained",
                4,
                step("quantization", weight_bits=4, activation_bits=4),
                step("quantization_aware_training", **GENTLE),
            ),
            formatted(
                "W4A8, first and last W8",
                4,
                step(
                    "quantization",
                    weight_bits=4,
                    rounding="adaround",
                    layer_bits={"net.conv1": [8, 8], "net.linear": [8, 8]},
                ),
            ),
        ),
        tunable=False,
    ),
    Row(
        "dynamic_quantization",
        tuple(formatted(f"W{b}", b, step("dynamic_quantization", weight_bits=b)) for b in (8, 6, 4)),
        tunable=False,
        public={"ONNX Runtime dynamic": _onnxruntime_dynamic},
    ),
    Row(
        "weight_only_quantization",
        tuple(formatted(f"W{b}", b, step("weight_only_quantization", bits=b)) for b in (8, 4, 3)),
        tunable=False,
        public={"torchao": _torchao},
    ),
    Row(
        "weight_only_quantization, AdaRound",
        tuple(formatted(f"W{b}", b, step("weight_only_quantization", bits=b, rounding="adaround")) for b in (4, 3, 2)),
        tunable=False,
    ),
    Row(
        "weight_only_quantization, GPTQ",
        tuple(formatted(f"W{b}", b, step("weight_only_quantization", bits=b, rounding="gptq")) for b in (4, 3, 2)),
        tunable=False,
    ),
    Row(
        "bias_correction",
        tuple(
            formatted(f"W{b}", b, step("weight_only_quantization", bits=b), step("bias_correction")) for b in (4, 3, 2)
        ),
        tunable=False,
    ),
    Row(
        "cross_layer_equalization",
        tuple(
            formatted(
                f"W{b} per tensor",
                b,
                step("cross_layer_equalization"),
                step("quantization", weight_bits=b, weight_granularity="tensor"),
            )
            for b in (8, 6, 4)
        ),
        tunable=False,
    ),
    Row(
        "float_format",
        tuple(
            formatted(f, 0, step("float_format", format=f))
            for f in ("float16", "bfloat16", "float8_e4m3", "float8_e5m2")
        ),
        tunable=False,
    ),
    Row(
        "power_of_two",
        tuple(formatted(f"{b} bits", b, step("power_of_two", bits=b)) for b in (5, 4, 3)),
        tunable=False,
    ),
    Row(
        "weight_sharing",
        tuple(formatted(f"{b} bits", b, step("weight_sharing", bits=b)) for b in (5, 4, 3)),
        tunable=False,
    ),
    Row(
        "centroid_tuning",
        tuple(
            formatted(f"{b} bits", b, step("weight_sharing", bits=b), step("centroid_tuning", **GENTLE))
            for b in (4, 3, 2)
        ),
        tunable=False,
    ),
)
