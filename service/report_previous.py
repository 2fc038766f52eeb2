"""A scheduled job against the schedule's last good one, as words for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service import wording

_VERDICTS = {"better": "better", "worse": "worse", "within_noise": "within noise", "unknown": "noise not known"}


def previous_in_words(previous: Mapping[str, Any] | None, metric_name: str) -> dict[str, Any] | None:
    """previous: as `service.comparison` makes it. rows: (what, before, now, verdict)."""
    if not previous:
        return None
    metric, latency, size = (previous[name] for name in ("metric", "latency_ratio", "size_bytes"))
    name = metric_name[:1].upper() + metric_name[1:]
    rows = [
        (f"{name}, {metric['split']}", wording.metric(metric["before"]), wording.metric(metric["after"]), metric),
        ("Latency, share", wording.ratio(latency["before"]), wording.ratio(latency["after"]), latency),
        ("Size of the file", wording.file_size(size["before"]), wording.file_size(size["after"]), size),
    ]
    front = previous["front"]
    notes = [
        text
        for holds, text in (
            (previous["newly_infeasible"], "The budget was met then and is not met now."),
            (previous["newly_feasible"], "The budget was not met then and is met now."),
            (previous["changed"], f"Asked for differently: {', '.join(previous['changed'])}."),
        )
        if holds
    ]
    notes.append(
        f"Front: {front['before']} trials then, {front['after']} now, {len(front['new'])} of them new recipes; "
        f"{front['beats']} earlier ones are beaten, {front['beaten']} of now would have been."
    )
    return {
        "job": previous["job"],
        "rows": [(what, before, now, _VERDICTS[row["verdict"]]) for what, before, now, row in rows],
        "notes": notes,
    }
