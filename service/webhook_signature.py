"""Signatures of webhooks, as the Standard Webhooks specification (1.0.0) has them; libraries for it can check them too.

`webhook-signature: v1,<base64 of HMAC-SHA256(secret, "{webhook-id}.{webhook-timestamp}.{body}")>`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

_PREFIX = "whsec_"
_SECRET_BYTES = 32


class BadSignature(Exception):
    """The request is not to be believed; the message says why."""


def new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(secret: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """timestamp: seconds since the epoch, of this attempt."""
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{_signature(secret, event_id, str(timestamp), body)}",
    }


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, *, tolerance_s: float = 300.0, now: float | None = None
) -> dict[str, Any]:
    """The event, if the request comes from who knows the secret and is not an old one sent again.

    body: as it arrived, byte for byte. An event may arrive more than once: its `id` tells. Raises BadSignature.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        event_id, timestamp = given["webhook-id"], given["webhook-timestamp"]
        signatures = given["webhook-signature"].split()
    except KeyError as error:
        raise BadSignature(f"the header {error} is missing") from None
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16):
        raise BadSignature("webhook-timestamp is no number of seconds")
    age = (time.time() if now is None else now) - int(timestamp)
    if abs(age) > tolerance_s:
        raise BadSignature(f"it was signed {age:.0f} s ago; at most {tolerance_s:.0f} s are allowed")
    expected = f"v1,{_signature(secret, event_id, timestamp, body)}".encode()
    # Every one is compared, each in constant time: a receiver under attack tells nothing by how long it takes.
    matches = [hmac.compare_digest(expected, found.encode()) for found in signatures]
    if not any(matches):
        raise BadSignature("the signature is not that of this body and secret")
    try:
        event = json.loads(body)
    except ValueError as error:
        raise BadSignature("the body is not JSON") from error
    if not isinstance(event, dict) or event.get("id") != event_id:
        raise BadSignature("the body is of another event than its header")
    return event


def _signature(secret: str, event_id: str, timestamp: str, body: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise BadSignature("the secret is damaged; it reads whsec_ and base64") from error
    signed = f"{event_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
