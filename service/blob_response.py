"""Answers with a blob: from a folder as the file it is, from any other store piece by piece. Range and ETag either way.

The ETag is the blob's sha256: its bytes never change.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from service.blobs import Blobs

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_MEDIA_TYPE = "application/octet-stream"


def blob_response(request: Request, store: Blobs, sha256: str, filename: str) -> Response:
    """filename: harmless in a header. Raises FileNotFoundError."""
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    headers = {"ETag": f'"{sha256}"', "Digest": f"sha-256={digest}", "Repr-Digest": f"sha-256=:{digest}:"}
    path = store.local(sha256)
    if path is not None:
        return FileResponse(path, media_type=_MEDIA_TYPE, filename=filename, headers=headers)
    size = store.size(sha256)
    headers |= {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=utf-8''{quote(filename)}",
    }
    try:
        part = wanted(request.headers, headers["ETag"], size)
    except ValueError:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    if part is None:
        headers["Content-Length"] = str(size)
        return StreamingResponse(store.read(sha256), media_type=_MEDIA_TYPE, headers=headers)
    start, stop = part
    headers |= {"Content-Length": str(stop - start), "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return StreamingResponse(store.read(sha256, start, stop), 206, media_type=_MEDIA_TYPE, headers=headers)


def wanted(headers: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """Bytes start:stop that a request asks for (RFC 9110, 14.2); None for all of them, which is also the answer to
    several ranges at once. Raises ValueError if there are no such bytes."""
    if headers.get("if-range", etag) != etag:
        return None
    asked = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if asked is None or asked.groups() == ("", ""):
        return None
    first, last = asked.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), size if not last else min(int(last) + 1, size)
    if start >= stop:
        raise ValueError(f"no bytes {start} to {stop}")
    return start, stop
