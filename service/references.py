"""How a job names a model or dataset: by its id, or as `name@latest`, its newest upload. Imports nothing."""

from __future__ import annotations

from typing import Final

LATEST: Final = "@latest"


def name_in(reference: str) -> str | None:
    """`net` of `net@latest`; None for an id."""
    return reference.removesuffix(LATEST) if reference.endswith(LATEST) else None
