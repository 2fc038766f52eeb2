from __future__ import annotations

import json

import pytest

from service.client import BadSignature, verify_webhook
from service.webhook_signature import new_secret, signed_headers

BODY = json.dumps({"id": "e1", "type": "finished"}).encode()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_700_000_000


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of standardwebhooks.com."""
    body = b'{"test": 2432232314}'
    headers = signed_headers(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signed_event_is_read() -> None:
    secret = new_secret()
    headers = {name.upper(): value for name, value in signed_headers(secret, "e1", NOW, BODY).items()}
    assert verify_webhook(secret, headers, BODY, now=NOW + 10) == {"id": "e1", "type": "finished"}
    rotated = {**headers, "WEBHOOK-SIGNATURE": f"v1,AAAA {headers['WEBHOOK-SIGNATURE']}"}
    assert verify_webhook(secret, rotated, BODY, now=NOW)["id"] == "e1"


@pytest.mark.parametrize(
    ("change", "body", "now", "why"),
    [
        ({}, BODY + b" ", NOW, "not that of this body"),
        ({"webhook-timestamp": str(NOW + 1)}, BODY, NOW, "not that of this body"),
        ({"webhook-id": "e2"}, BODY, NOW, "not that of this body"),
        ({"webhook-signature": "v1,"}, BODY, NOW, "not that of this body"),
        ({"webhook-signature": ""}, BODY, NOW, "not that of this body"),
        ({"webhook-signature": "v1,\xe9\xff"}, BODY, NOW, "not that of this body"),
        ({}, BODY, NOW + 301, "301 s ago"),
        ({}, BODY, NOW - 301, "-301 s ago"),
        ({"webhook-timestamp": "soon"}, BODY, NOW, "no number"),
        ({"webhook-timestamp": "9" * 400}, BODY, NOW, "no number"),
    ],
)
def test_anything_else_is_refused(change: dict[str, str], body: bytes, now: float, why: str) -> None:
    headers = {**signed_headers(SECRET, "e1", NOW, BODY), **change}
    with pytest.raises(BadSignature, match=why):
        verify_webhook(SECRET, headers, body, now=now)


def test_other_secrets_and_missing_headers_are_refused() -> None:
    headers = signed_headers(SECRET, "e1", NOW, BODY)
    with pytest.raises(BadSignature, match="not that"):
        verify_webhook(new_secret(), headers, BODY, now=NOW)
    with pytest.raises(BadSignature, match="secret is damaged"):
        verify_webhook("whsec_???", headers, BODY, now=NOW)
    for name in headers:
        with pytest.raises(BadSignature, match=name):
            verify_webhook(SECRET, {k: v for k, v in headers.items() if k != name}, BODY, now=NOW)


def test_the_body_must_be_of_the_event_that_the_header_names() -> None:
    for body in (b"[]", b"no json", b'{"id": "e2"}'):
        with pytest.raises(BadSignature):
            verify_webhook(SECRET, signed_headers(SECRET, "e1", NOW, body), body, now=NOW)
