"""Where trials run. One protocol, so that a search does not know whether that is here or on a cluster."""

from __future__ import annotations

from typing import Protocol

from search.work import Result, Work


class Executor(Protocol):
    """Runs works on `slots` slots; `tests/conformance/executor.py` tests the contract:

    - `submit` never blocks; it may be called while `free` > 0.
    - `poll` waits up to `timeout_s` seconds and returns every finished (work, result) since the last call, each once.
      A work whose process died comes back as Failed with `retry`; the slot is usable again.
    - The same work with the same inputs gives the same result on every implementation.
    - After `close` no process of this executor is left, also when works were running. Not thread-safe.
    """

    @property
    def slots(self) -> int: ...

    @property
    def free(self) -> int: ...

    def submit(self, work: Work) -> None: ...

    def poll(self, timeout_s: float) -> list[tuple[Work, Result]]: ...

    def abort(self, work: Work) -> None:
        """Kills what runs `work`, which then comes back as Failed with `retry`. Nothing if it has come back."""
        ...

    def close(self) -> None: ...
