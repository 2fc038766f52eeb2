"""Static int8 quantisation of an exported graph: a pass of our own that writes integer operators.

The result names its integer kernels itself (QLinearConv, QGemm, QLinearAdd, ...) instead of leaving them to the
runtime's fusion of Quantize/Dequantize pairs, which silently falls back to float32 (a float bias is enough).
"""

from __future__ import annotations

import onnx

from compressors.calibration import Ranges
from compressors.errors import InvalidRecipe
from compressors.integer_operators import REWRITES
from compressors.onnx_graph import GraphView, needed_nodes
from compressors.quantized_graph import QuantizedGraph
from compressors.recipe import Quantization


def quantize_onnx(model: onnx.ModelProto, config: Quantization, ranges: Ranges) -> onnx.ModelProto:
    """Returns the int8 form of an exported float32 model; `model` is left untouched.

    Weights: int8 symmetric per output channel. Activations: uint8 affine per tensor, a Relu or Clip behind an operator
    folded into its range. Biases: int32, scale input * weight. The results of the last layers stay float32.
    ranges: from `collect_ranges` (or `placeholder_ranges`, for cost only) on this very model.
    Raises InvalidRecipe if config.float_layers names something that is not a layer of the model.
    """
    view = GraphView(model)
    layers = view.layer_names()
    unknown = sorted(set(config.float_layers) - set(layers))
    if unknown:
        raise InvalidRecipe(f"quantization.float_layers: {unknown[0]!r} is no layer; layers are {list(layers)}")
    graph = QuantizedGraph(view, ranges, frozenset(config.float_layers))
    for node in view.nodes:
        if id(node) in graph.absorbed:
            continue
        rewrite = REWRITES.get(node.op_type)
        if rewrite is None or graph.stays_float(node) or not rewrite(graph, node):
            graph.copy_node(node)
    for name in view.outputs:
        graph.real(name)
    nodes = needed_nodes(graph.emission.nodes, view.outputs)
    return graph.emission.finish(nodes, list(model.graph.input), list(model.graph.output))
