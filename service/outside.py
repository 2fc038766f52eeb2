"""Whether what stopped a search has its cause outside the job: then trying it again, here or elsewhere, may help."""

from __future__ import annotations

import errno

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

_OF_THE_MACHINE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    }
)


def outside_reason(error: BaseException) -> str | None:
    """What is wrong with machine, network or database, in words for the job's owner; None for the job's own failure.

    Looks through what the exception was raised from.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OperationalError | InterfaceError | NoFreeConnection) or (
            isinstance(seen, DBAPIError) and seen.connection_invalidated
        ):
            return f"the database did not answer: {getattr(seen, 'orig', None) or seen}"
        if isinstance(seen, MemoryError):
            return "the worker ran out of memory"
        if isinstance(seen, ConnectionError | TimeoutError) or (
            isinstance(seen, OSError) and seen.errno in _OF_THE_MACHINE
        ):
            return f"{type(seen).__name__}: {seen}"
        seen = seen.__cause__
    return None
