"""Errors of this room.

SearchError
├── ExecutorError     a process that runs trials could not be started or died
└── StageFailed       one stage of one candidate failed; the trial fails, the job goes on
"""


class SearchError(Exception):
    """Root of all errors raised by `search`."""


class ExecutorError(SearchError):
    """The executor cannot run work any more."""


class StageFailed(SearchError):
    """A stage failed. The message says which one, for which candidate, and why."""
