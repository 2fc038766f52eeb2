"""LSTMs on int8 weights: ONNX Runtime's DynamicQuantizeLSTM, which quantises inputs and states step by step."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from compressors.integer_weights import IntegerWeights
from compressors.onnx_emission import MICROSOFT, Emission
from compressors.onnx_graph import attributes


def dynamic_lstm(emission: Emission, weights: IntegerWeights, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
    """Adds the integer form of an LSTM node, float32 in and out.

    inputs: names of the float32 inputs in the new graph; those of weights are not looked at. The kernel wants weights
    (directions, inputs, rows) with scales (directions, rows) or (directions,).
    """
    given = [*inputs, *[""] * (8 - len(inputs))]
    names, parameters = [], []
    for position in (1, 2):
        stored = weights.of_rows(str(node.input[position]))
        names.append(weights.emit(str(node.input[position]), stored.transposed()))
        parameters += [emission.constant(stored.scales), emission.constant(stored.zero_points)]
    emission.nodes.append(
        onnx.helper.make_node(
            "DynamicQuantizeLSTM",
            [given[0], *names, *given[3:], *parameters],
            list(node.output),
            domain=MICROSOFT,
            **attributes(node),
        )
    )
