"""A real worker process whose search only pretends: `python -m tests.service.fake_worker`.

Each trial takes 50 ms and notes in the workspace that it was computed, so that a test sees what was computed twice.
"""

from __future__ import annotations

import time

from search.inputs import JobInputs
from search.ledger import Ledger
from search.records import Progress, Trial
from service.job_worker import JobWorker
from service.processes import die_with_parent, set_up_logging, stop_on_signals
from service.settings import Settings

TRIALS = 30


def slow_search(inputs: JobInputs, ledger: Ledger) -> None:
    """Goes on where an earlier coordinator stopped; obeys directives between two trials."""
    done = {t.number: t for t in ledger.trials() if t.state == "completed"}
    for number in range(TRIALS):
        match ledger.directive():
            case "cancel":
                ledger.finish("cancelled", outcome=None, reason="cancelled by its owner", report=None)
                return
            case "pause":
                ledger.finish("paused", outcome=None, reason="paused by its owner", report=None)
                return
            case "run":
                pass
        if number in done:
            continue
        ledger.put_trial(Trial(number=number, state="running"))
        time.sleep(0.05)
        with (inputs.workspace / "computed").open("a") as journal:
            journal.write(f"{number}\n")
        ledger.put_trial(Trial(number=number, state="completed", metric=number / TRIALS))
        ledger.put_progress(Progress(stage="search", finished=number + 1, planned=TRIALS))
    ledger.finish("succeeded", outcome="feasible", reason=None, report={"elapsed_s": ledger.elapsed_s()})


def main() -> None:
    stop = stop_on_signals()
    die_with_parent()
    settings = Settings()
    set_up_logging(settings)
    JobWorker(settings, slow_search, stop).run()


if __name__ == "__main__":
    main()
