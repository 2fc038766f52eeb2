"""Where to clip an activation: from a histogram of its values to the range that integers will cover.

A histogram has BINS equal bins over low..high, the extremes that were seen. levels: steps of the integer grid,
2^bits - 1.
"""

from __future__ import annotations

import numpy as np

from compressors.onnx_emission import Array

BINS = 2048
# Fractions of the full range that are tried. At 8 bits clipping below 0.3 always loses, at 2 to 4 bits it need not.
_SHRINKING = np.linspace(0.05, 1.0, 96)
_THRESHOLDS = 128  # that entropy tries


def histogram_of(content: Array, low: float, high: float) -> Array:
    """Counts of `content` in BINS equal bins over low..high, int64 (BINS,)."""
    if high <= low:
        counts = np.zeros(BINS, dtype=np.int64)
        counts[0] = content.size
        return counts
    positions = (content.reshape(-1) - np.float32(low)) * np.float32(BINS / (high - low))
    bins = np.minimum(positions.astype(np.int32), BINS - 1)
    filled: Array = np.bincount(bins, minlength=BINS)
    return filled


def percentile_range(histogram: Array, low: float, high: float, percentile: float) -> tuple[float, float]:
    """The range without the outer (100 - percentile) percent at either end, to the width of a bin."""
    total = histogram.sum()
    beyond = total * (1 - percentile / 100)
    width = (high - low) / BINS
    cumulated = np.cumsum(histogram)
    first = int(np.searchsorted(cumulated, beyond, side="right"))
    last = int(np.searchsorted(cumulated, total - beyond, side="left"))
    return low + first * width, low + (last + 1) * width


def least_squares_range(histogram: Array, low: float, high: float, levels: int) -> tuple[float, float]:
    """The shrunk range (both ends by one factor, towards 0) with the least squared error of clipping and rounding."""
    centres = low + (np.arange(BINS) + 0.5) * ((high - low) / BINS)
    best, best_error = (low, high), np.inf
    for factor in _SHRINKING:
        bottom, top = min(low, 0.0) * factor, max(high, 0.0) * factor
        step = max(top - bottom, 1e-12) / levels
        stored = bottom + np.round((np.clip(centres, bottom, top) - bottom) / step) * step
        error = float((histogram * (centres - stored) ** 2).sum())
        if error < best_error:
            best, best_error = (float(bottom), float(top)), error
    return best


def entropy_range(histogram: Array, low: float, high: float, levels: int) -> tuple[float, float]:
    """The range whose integers tell least apart from the values themselves, by Kullback-Leibler divergence.

    Migacz 2017, "8-bit inference with TensorRT", GTC, on magnitudes: for a threshold t, P is the histogram up to t with
    everything beyond counted in its last bin, Q the same bins without what is beyond, merged into as many groups as
    there are integers in 0..t and spread evenly again over the bins that are not empty. The threshold with the least
    KL(P || Q) clips both ends. Differences: 128 thresholds instead of 1,921, and values that are exactly 0, half of
    them behind a Relu, stand in neither P nor Q, because every threshold keeps them exactly.
    """
    magnitudes, reach = _magnitudes(histogram, low, high)
    if low < 0 < high:
        levels = max(levels // 2, 1)
    best, best_divergence = reach, np.inf
    for count in np.linspace(0, BINS, _THRESHOLDS + 1).astype(int)[1:]:
        if count <= levels and count < BINS:
            continue  # every bin has an integer of its own: nothing is rounded, and the divergence says nothing
        divergence = _divergence(magnitudes, int(count), levels)
        if divergence < best_divergence:
            best, best_divergence = reach * count / BINS, divergence
    return max(low, -best), min(high, best)


def _magnitudes(histogram: Array, low: float, high: float) -> tuple[Array, float]:
    """(counts of |value| in BINS bins over 0..reach, reach) without the bin that holds 0."""
    width = (high - low) / BINS
    centres = low + (np.arange(BINS) + 0.5) * width
    reach = max(abs(low), abs(high))
    counts = histogram.astype(np.float64)
    counts[np.abs(centres) <= width / 2] = 0
    bins = np.minimum((np.abs(centres) * (BINS / max(reach, 1e-30))).astype(int), BINS - 1)
    return np.bincount(bins, weights=counts, minlength=BINS), reach


def _divergence(magnitudes: Array, count: int, levels: int) -> float:
    """KL(P || Q) for the threshold behind the first `count` bins, in nats; infinite if nothing is left below it."""
    inside = magnitudes[:count]
    reference = inside.copy()
    reference[-1] += magnitudes[count:].sum()
    filled = inside > 0
    groups = np.arange(count) * levels // count
    totals = np.bincount(groups, weights=inside, minlength=levels)
    occupied = np.bincount(groups, weights=filled, minlength=levels)
    spread = np.where(filled, (totals / np.maximum(occupied, 1))[groups], 0.0)
    if not spread.any():
        return float("inf")
    p, q = reference / reference.sum(), spread / spread.sum()
    shown = p > 0
    return float((p[shown] * np.log(p[shown] / np.maximum(q[shown], 1e-12))).sum())
