"""Fields of steps that tune with distillation while they do something else."""

from __future__ import annotations

from compressors.errors import InvalidRecipe


def check_tuning(technique: str, samples: int, learning_rate: float, temperature: float, alpha: float) -> None:
    """Raises InvalidRecipe for values that no tuning can have."""
    if samples < 1:
        raise InvalidRecipe(f"{technique}.samples={samples}: must be at least 1; use 20000")
    if not learning_rate > 0:
        raise InvalidRecipe(f"{technique}.learning_rate={learning_rate}: must be greater than 0; use 0.01")
    if not temperature > 0:
        raise InvalidRecipe(f"{technique}.temperature={temperature}: must be greater than 0; use 4")
    if not 0 <= alpha <= 1:
        raise InvalidRecipe(f"{technique}.alpha={alpha}: must lie in 0..1; use 0.9")
