"""The upload form as OpenAPI shows it; the routes read it as a stream, so FastAPI cannot derive it."""

from __future__ import annotations

from typing import Any, Final

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
