"""Which orders of steps are legal, and why the others are not.

A recipe runs from coarse to fine: what changes shapes, then what zeroes weights, then tuning, then number formats.
Shape, sparsity and tuning may alternate (prune, tune, prune further, tune), as long as no step undoes what an earlier
one fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step

_AFTER_CODES = "the codes of a number format describe final weights; put {later} before {earlier}"

# (earlier, later): why that order is refused.
_REFUSED: dict[tuple[Phase, Phase], str] = {
    **{
        (phase, Phase.STUDENT): "{later} replaces the whole network, so what {earlier} did would be lost; put it first"
        for phase in Phase
        if phase is not Phase.STUDENT
    },
    (Phase.SPARSITY, Phase.SHAPE): (
        "{earlier} fixes zeros at positions of weights that {later} moves or factorises; put {later} first"
    ),
    (Phase.FOLDING, Phase.TUNING): (
        "after {earlier} there are no batch norms left that would keep training stable; put {later} first"
    ),
    (Phase.FOLDING, Phase.STATISTICS): "after {earlier} there are no batch norms left; put {later} first",
    **{
        (Phase.ENCODING, phase): _AFTER_CODES
        for phase in (Phase.SHAPE, Phase.SPARSITY, Phase.TUNING, Phase.STATISTICS, Phase.FOLDING)
    },
    **{
        (Phase.CORRECTION, phase): _AFTER_CODES
        for phase in (Phase.SHAPE, Phase.SPARSITY, Phase.TUNING, Phase.STATISTICS, Phase.FOLDING, Phase.ENCODING)
    },
}


def check_order(steps: Sequence[type[Step]]) -> None:
    """Raises InvalidRecipe for a technique that stands twice without being repeatable, for an order that makes no
    sense, and for a correction with nothing before it to correct."""
    names = [step.technique for step in steps]
    for later, step in enumerate(steps):
        name, phase = names[later], step.phase
        if name in names[:later] and not step.repeatable:
            raise InvalidRecipe(f"recipe {names}: {name} may stand in it once")
        for earlier in range(later):
            reason = _REFUSED.get((steps[earlier].phase, phase))
            if reason is not None:
                why = reason.format(earlier=names[earlier], later=name)
                raise InvalidRecipe(f"recipe {names}: {name} cannot come after {names[earlier]}: {why}")
        encoded = any(s.phase is Phase.ENCODING for s in steps[:later])
        if phase is Phase.CORRECTION and not encoded:
            raise InvalidRecipe(
                f"recipe {names}: {name} repairs what a number format did, and none comes before it; "
                "add a step such as quantization in front of it"
            )
