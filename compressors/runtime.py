"""What a runtime must offer: load an artifact from disk, run it. Measuring and scoring need nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Session(Protocol):
    """A loaded artifact. Not thread-safe: one caller at a time."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """All outputs for one batch, in the artifact's order.

        inputs: one array per input, in order; axis 0 is the batch, which may differ between calls.
        Raises InvalidData if number, rank, sizes or dtypes do not fit the artifact's inputs.
        """
        ...


class Runtime(Protocol):
    """Loads artifacts. Implementations hold no state between loads."""

    @property
    def name(self) -> str:
        """How job specifications call this runtime."""
        ...

    @property
    def version(self) -> str:
        """Version of the library that executes; part of the fingerprint of a measurement."""
        ...

    def load(self, path: Path, threads: int) -> Session:
        """Reads the artifact and prepares it to run on `threads` threads (>= 1).

        Raises FileNotFoundError if there is no such file, UnsupportedModel if the runtime cannot read it.
        """
        ...


def predict(session: Session, batches: Sequence[Sequence[Array]]) -> Array:
    """First output over all batches, joined along axis 0. batches: per batch, one array per input."""
    return np.concatenate([session.run(batch)[0] for batch in batches])
