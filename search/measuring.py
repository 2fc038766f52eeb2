"""Measures a shape beside the baseline on as quiet a machine as can be had within some seconds."""

from __future__ import annotations

import time
from pathlib import Path

from compressors.latency import LatencyResult, measure
from compressors.session_latency import measure_sessions
from search.workbench import Workbench

TRIES = 2
PAUSE_SECONDS = 0.5  # between tries; a neighbour that stays is not waited for


def measure_quietly(bench: Workbench, candidate: Path, baseline: Path) -> LatencyResult:
    """Tries again while the machine is noisy, letting go of the slot in between; the quietest try counts.

    The result's `noisy` says whether even that one was. One try takes about 0.3 s.
    """
    sessions = bench.session(candidate), bench.session(baseline)
    inputs, quiet = bench.latency_inputs, bench.quiet_baseline
    best: LatencyResult | None = None
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        with bench.slot.exclusive():
            found = measure(*sessions, inputs, seed=bench.seed + attempt, quiet_baseline_ms=quiet.known_ms)
        quiet.note(found.baseline_p50_ms)
        if best is None or found.baseline_p50_ms < best.baseline_p50_ms:
            best = found
        if not found.noisy and quiet.is_quiet(found.baseline_p50_ms):
            return found
    assert best is not None
    return best


def measure_for_publication(bench: Workbench, candidate: Path, baseline: Path) -> LatencyResult:
    """Over fresh sessions, with the interval that a repetition falls into. Takes 3 to 25 s."""
    inputs, quiet = bench.latency_inputs, bench.quiet_baseline
    with bench.slot.exclusive():
        found = measure_sessions(
            lambda: bench.session(candidate),
            lambda: bench.session(baseline),
            inputs,
            seed=bench.seed,
            quiet_baseline_ms=quiet.known_ms,
        )
    quiet.note(found.baseline_p50_ms)
    return found
