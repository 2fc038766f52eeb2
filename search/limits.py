"""Says in words what stands between a model and its budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.cost_prediction import KERNEL_BLOCK
from search.profile import Profile
from search.records import Trial, Violation
from search.spec import JobSpec
from search.work import Confirmed


def explain(
    spec: JobSpec, profile: Profile, floors: Sequence[Trial], missed: tuple[Violation, ...], confirmed: Confirmed | None
) -> list[dict[str, Any]]:
    """One entry per violated field: {field, limit, value, excess, explanation}."""
    return [
        {
            "field": v.field,
            "limit": v.limit,
            "value": v.value,
            "excess": v.excess,
            "explanation": _explanation(spec, profile, floors, v, confirmed),
        }
        for v in missed
    ]


def _explanation(
    spec: JobSpec, profile: Profile, floors: Sequence[Trial], missed: Violation, confirmed: Confirmed | None
) -> str:
    if missed.field == "max_metric_drop":
        return (
            f"the best candidate inside the cost limits loses {missed.value:.4g}; allow {missed.value:.4g}, loosen "
            "the limits on latency or size, or give the search more seconds to tune"
        )
    if not floors:
        return (
            f"with techniques {', '.join(spec.allowed)} this is the least that was measured; allow structured_pruning "
            "to remove channels"
        )
    if not any(v.field == missed.field for v in min(floors, key=lambda t: len(t.violations)).violations):
        return (
            "the smallest candidates show that this limit can be met, but the search ended before one that meets all "
            "of the budget was tuned; give it more seconds or trials"
        )
    if missed.field.startswith("latency"):
        fastest = min(floors, key=lambda t: t.latency.ratio if t.latency is not None else 9.0)
        return _latency(spec, profile, fastest, missed, confirmed.kernels if confirmed is not None else {})
    least = min(floors, key=lambda t: t.size_bytes or 0)
    return (
        f"the smallest candidate (every one of {len(profile.groups)} groups of channels at its least) still takes "
        f"{least.size_bytes} bytes, {least.size_ratio:.3f} of the uncompressed file; what remains "
        f"are layers that no technique allowed here shrinks and the graph itself; "
        f"set {missed.field} to at least {missed.value:.4g}"
    )


def _latency(spec: JobSpec, profile: Profile, floor: Trial, missed: Violation, kernels: Mapping[str, int]) -> str:
    """The floor's time is mostly what the runtime needs to call its kernels one after another."""
    assert floor.latency is not None
    calls = sum(kernels.values())
    work = (floor.macs or 0) / max(profile.baseline.macs, 1)
    per_call = f" ({1000 * floor.latency.p50_ms / calls:.1f} microseconds each on average)" if calls else ""
    count = f"the {calls} kernels that the depth of this network needs" if calls else "the kernels of this network"
    return (
        f"the fastest of the smallest candidates (all {len(profile.groups)} groups of channels cut, "
        f"{work:.1%} of the multiply-adds left) still takes {floor.latency.p50_ms:.3g} ms, "
        f"{floor.latency.ratio:.3f} of the uncompressed model's {profile.baseline.latency_ms:.3g} ms. "
        f"{spec.target.runtime} runs {count} one after another{per_call}, and a kernel does not get faster below "
        f"{KERNEL_BLOCK} channels, so removing more does not help; set {missed.field} to at least "
        f"{missed.value:.3g}, or start from a model with fewer layers"
    )
