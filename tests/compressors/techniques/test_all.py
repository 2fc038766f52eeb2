"""No technique without a registered function and without its conformance test."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressors.pipeline import TECHNIQUES
from compressors.recipe import STEPS
from compressors.recipes.step import Phase, Step, step
from compressors.registry import registered


@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.technique)
def test_it_is_registered_and_asked(kind: type[Step]) -> None:
    assert kind in registered()
    asked = (Path(__file__).parent / f"test_{kind.technique}.py").read_text()
    assert "TechniqueConformance" in asked
    assert kind.__name__ in asked


def test_every_technique_has_a_module() -> None:
    assert len(TECHNIQUES) == len(STEPS)


def test_a_second_declaration_raises() -> None:
    class Again(Step):
        technique = STEPS[0].technique
        phase = Phase.SHAPE

    with pytest.raises(ValueError, match="is declared already"):
        step(Again)
