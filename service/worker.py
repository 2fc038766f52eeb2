"""The worker's process, `python -m service.worker`: the only one of the service that loads torch and the runtimes."""

from __future__ import annotations

from search.run import run_job
from service.job_worker import JobWorker, RunJob
from service.processes import die_with_parent, set_up_logging, stop_on_signals
from service.settings import Settings


def main(settings: Settings | None = None, search: RunJob = run_job) -> None:
    """Works until SIGTERM or SIGINT; the job at hand then goes back to the queue."""
    stop = stop_on_signals()
    die_with_parent()
    settings = settings or Settings()
    set_up_logging(settings)
    JobWorker(settings, search, stop).run()


if __name__ == "__main__":
    main()
