"""Sets limits on its own process and then becomes a Python module.

    python -m compressors.limited_process '{"cpu_s": 60}' MODULE ARGUMENTS

A launcher rather than `preexec_fn`, because the parent is a server with threads, where code between fork and exec may
deadlock. Limits survive the exec; so does the request to die together with the parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_NAMES = {
    "memory_bytes": resource.RLIMIT_DATA,
    "address_bytes": resource.RLIMIT_AS,
    "cpu_s": resource.RLIMIT_CPU,
    "written_bytes": resource.RLIMIT_FSIZE,
    "core_bytes": resource.RLIMIT_CORE,
}


def apply_limits(limits: dict[str, int]) -> None:
    """limits: any of memory_bytes (what the process allocates), address_bytes (with mapped files and libraries), cpu_s,
    written_bytes (per file), core_bytes. Limits that are lower already stay."""
    for name, value in limits.items():
        kind = _NAMES[name]
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def die_with_parent() -> None:
    """Linux only; elsewhere the wall-clock limit of the parent has to do."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def main(arguments: list[str]) -> None:
    limits, module, *rest = arguments
    die_with_parent()
    apply_limits(json.loads(limits))
    os.execv(sys.executable, [sys.executable, "-m", module, *rest])


if __name__ == "__main__":
    main(sys.argv[1:])
