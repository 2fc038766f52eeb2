"""Serves plotly.min.js out of the installed plotly package: the dashboard works offline, git holds no copy."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse

PLOTLY_PATH: Final = "/static/plotly.min.js"

# What the dashboard's pages need and no more. plotly writes style attributes, hence 'unsafe-inline' for styles only;
# it draws its "save as picture" through blob: and data: images.
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


def plotly_script() -> Path:
    """The script of the installed package, found without importing it. Raises FileNotFoundError with the remedy."""
    spec = find_spec("plotly")
    if spec is not None and spec.submodule_search_locations:
        path = Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
        if path.is_file():
            return path
    raise FileNotFoundError("plotly.min.js: not in this Python's plotly package; run `pip install 'plotly>=6.0'`")


@router.get(PLOTLY_PATH)
def plotly_min_js() -> FileResponse:
    """Include this router before `/static` is mounted: the first match wins."""
    return FileResponse(
        plotly_script(), media_type="text/javascript", headers={"Cache-Control": "public, max-age=86400"}
    )
