"""What compression has fixed about a model besides its graph and weights; it travels with the model through copies.

A technique that sparsifies or encodes leaves a note here, tuning and export obey it. Kept in `GraphModule.meta`, which
deep copies carry along. Parameters are named as the model names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from compressors.encodings.encoding import Encoding
from compressors.recipe import DynamicQuantization, Quantization

_KEY = "bantam"


@dataclass(frozen=True)
class StaticQuantization:
    """Activations become integers. ranges: (low, high) of every activation by its name in the exported float graph;
    None in a draft, whose file is only measured."""

    config: Quantization
    ranges: Mapping[str, tuple[float, float]] | None


@dataclass
class State:
    """masks: per parameter, True where a weight lives; tuning keeps the others at zero. encodings: how a parameter is
    stored in the artifact; the parameter holds exactly the decoded values. floats: what an encoded parameter held
    before, which corrections compare with. native: encoded parameters that the runtime multiplies with as they are
    stored (`compressors.native_products`). activations: how they become integers; None while they are float."""

    masks: dict[str, Tensor] = field(default_factory=dict)
    encodings: dict[str, Encoding] = field(default_factory=dict)
    floats: dict[str, Tensor] = field(default_factory=dict)
    native: frozenset[str] = frozenset()
    activations: StaticQuantization | DynamicQuantization | None = None


def state_of(model: nn.Module) -> State:
    """The model's state, which may be changed in place. A module without one, or of another kind, gets a fresh one."""
    meta = getattr(model, "meta", None)
    if not isinstance(meta, dict):
        return State()
    state: State = meta.setdefault(_KEY, State())
    return state
