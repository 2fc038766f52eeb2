"""The upload form: how it is received within the limits, and as OpenAPI shows it (FastAPI cannot derive a stream)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import Request
from pydantic import BaseModel

from service.deps import State
from service.openapi import LOCATION, refusals
from service.tokens import Principal
from service.uploads import Upload, UploadLimits, received

MULTIPART: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "name": {"type": "string", "maxLength": 200, "description": "a label; left out: the file's"},
                    },
                }
            }
        },
    }
}


def upload_responses(view: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    known = {"model": view, "description": "these bytes are known"}
    return {200: {**known, "headers": LOCATION}, 201: {"headers": LOCATION}, **refusals(429, 507)}


@asynccontextmanager
async def uploading(request: Request, state: State, principal: Principal, most: int) -> AsyncIterator[Upload]:
    """most: bytes of the file, beside what holds for all uploads. Raises LimitReached, Problem."""
    settings = state.settings
    sizes = (most, settings.max_upload_bytes, settings.max_stored_bytes or most)
    limits = UploadLimits(bytes=min(sizes), total_s=settings.upload_s, idle_s=settings.upload_idle_s)
    async with state.uploads.one(principal.project_id), received(request, settings.uploads_dir, limits) as upload:
        yield upload
