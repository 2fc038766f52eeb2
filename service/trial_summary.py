"""A trial in one short line: what lists, figures and tables show of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_REASON = 160  # characters


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """Of a trial's document. Its length does not depend on how many layers or stages the trial has."""
    latency, fidelity = document.get("latency") or {}, document.get("fidelity") or {}
    steps = (document.get("recipe") or {}).get("steps") or ()
    stages = document.get("stages") or ()
    reason = document.get("reason")
    return {
        "number": document["number"],
        "state": document["state"],
        "reason": reason if reason is None or len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "…",
        "origin": document.get("origin", ""),
        "techniques": [step.get("technique", "") for step in steps],
        "metric": document.get("metric"),
        "latency_ms": latency.get("p50_ms"),
        "latency_ratio": latency.get("ratio"),
        "size_bytes": document.get("size_bytes"),
        "size_ratio": document.get("size_ratio"),
        "feasible": document.get("feasible"),
        "rung": fidelity.get("rung"),
        "seconds": round(sum(stage["seconds"] for stage in stages), 3) if stages else None,
    }
