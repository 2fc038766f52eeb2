"""Which machine and runtime a measurement belongs to: latencies compare only under one fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressors.runtime import Runtime

# Instruction sets for which runtimes have kernels of their own (x86 "flags", Arm "Features").
_RELEVANT_FLAGS = frozenset(
    [
        "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
        "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2", "fphp", "asimdhp",
    ]
)  # fmt: skip
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """cpu: model name. flags: instruction sets that matter for speed, sorted. cores: usable by this process."""

    cpu: str
    architecture: str
    flags: tuple[str, ...]
    cores: int
    runtime: str
    runtime_version: str
    threads: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "flags": list(self.flags), "key": self.key}

    @property
    def key(self) -> str:
        """16 hex digits; equal for equal fingerprints."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def take_fingerprint(runtime: Runtime, threads: int, cpu_info: Path = _CPU_INFO) -> Fingerprint:
    """The fingerprint of this machine. Where there is no `cpu_info` (not Linux), the platform's own words are taken."""
    fields = _first_processor(cpu_info)
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Fingerprint(
        cpu=fields.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        flags=tuple(sorted(flags & _RELEVANT_FLAGS)),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        runtime=runtime.name,
        runtime_version=runtime.version,
        threads=threads,
    )


def _first_processor(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    block = path.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
