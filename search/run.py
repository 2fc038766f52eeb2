"""Entry of a search: runs one job to its end in this process and in the executor's processes."""

from __future__ import annotations

from search.inputs import JobInputs
from search.ledger import Ledger


def run_job(inputs: JobInputs, ledger: Ledger) -> None:
    """Runs (or goes on with) the job until it is finished, cancelled or paused, and says so to the ledger.

    Raises LeaseLost when another worker has taken the job over; anything else that goes wrong ends the job as failed
    with its reason in the ledger.
    """
    raise NotImplementedError
