"""The explanation of a search as the report's template wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service import explanation_words as words
from service.report_curves import curve_drawing
from service.report_heat import heat_drawing

Json = Mapping[str, Any]

_BEST_OF = {"latency_ratio": "best latency ratio so far", "size_ratio": "best size ratio so far"}


def explanation_view(report: Json, metric: str) -> dict[str, Any]:
    """Names that the template reads; what is not known is empty or None."""
    told: Json = report.get("explanation") or {}
    importance, layers = told.get("importance") or {}, told.get("layers") or {}
    curves = told.get("curves") or {}
    drawings = (
        curve_drawing("hypervolume of the front", curves.get("hypervolume")),
        curve_drawing(_BEST_OF.get(str(curves.get("best_of")), f"best {metric} so far"), curves.get("best")),
    )
    return {
        "importance": words.importance_rows(importance),
        "importance_note": words.importance_note(importance, metric) if importance else "",
        "layers": words.layer_rows(layers),
        "layers_summary": words.layers_summary(layers),
        "layers_measured": layers.get("measurements"),
        "layers_left_out": layers.get("left_out"),
        "rejected": words.rejection_lines(told.get("rejected") or {}, metric),
        "prices": words.price_lines(told.get("prices") or {}, metric),
        "predictions": words.prediction_line(told.get("predictions") or {}),
        "spending": words.spending_lines(told.get("spending") or {}),
        "curves": [drawing for drawing in drawings if drawing is not None],
        "heat": heat_drawing(report.get("sensitivity"), layers.get("rows") or ()),
    }
