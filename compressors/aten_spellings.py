"""Operators that are other spellings of simpler ones: rewritten at intake by PyTorch's own decompositions.

What stands here needs no rule of its own in pruning and no emitter in export. Operators that have those are left as
they are, and so are layers: decomposing a convolution or a norm would hide it from every technique.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram, default_decompositions

from compressors.archive_json import words

SPELLINGS = words(
    "addcdiv addcmul atleast_1d atleast_2d atleast_3d broadcast_to celu channel_shuffle column_stack "
    "cosine_similarity dsplit dstack gru_cell hardshrink hsplit hstack im2col lerp logaddexp logit lstm_cell moveaxis "
    "movedim narrow one_hot reshape_as rnn_relu_cell rnn_tanh_cell selu softshrink std_mean swapaxes swapdims "
    "tensordot threshold tile tril triu var_mean view_as vsplit vstack xlogy"
)


def plainly_spelled(program: ExportedProgram) -> ExportedProgram:
    """The same program in simpler operators, `program` itself if there is nothing to rewrite."""
    known: Any = None
    done: set[Any] = set()
    # Rewriting one may bring up another.
    while targets := _other_spellings(program) - done:
        known = known or default_decompositions()
        done |= targets
        program = program.run_decompositions({target: known[target] for target in targets if target in known})
    return program


def _other_spellings(program: ExportedProgram) -> set[Any]:
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, fx.GraphModule)]
    return {node.target for graph in graphs for node in graph.nodes if _name(node.target) in SPELLINGS}


def _name(target: object) -> str:
    return target._schema.name.removeprefix("aten::") if isinstance(target, torch._ops.OpOverload) else ""
