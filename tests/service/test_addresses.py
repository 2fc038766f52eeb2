"""What the server calls and what it does not. 198.51.100.0/24 and 2001:db8::/32 are for documentation: not public."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from service.addresses import AddressRefused, allowed_addresses, check_address, checked_url
from service.webhook_sender import Sender
from tests.service.receiver import Receiver

PUBLIC = ("93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1")
REFUSED = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "0.0.0.0": "unspecified",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "169.254.169.254": "link-local",
    "169.254.170.2": "link-local",
    "100.64.0.1": "private",
    "100.100.100.200": "private",
    "168.63.129.16": "metadata",
    "192.0.0.192": "private",
    "192.88.99.1": "6to4",
    "198.18.0.1": "private",
    "198.51.100.7": "private",
    "224.0.0.1": "multicast",
    "240.0.0.1": "private",
    "255.255.255.255": "private",
    "::": "unspecified",
    "::1": "loopback",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fec0::1": "site-local",
    "fc00::1": "private",
    "fd00:ec2::254": "private",
    "ff02::1": "multicast",
    "2001:db8::1": "private",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:10.0.0.1": "private",
    "::ffff:169.254.169.254": "link-local",
    "::127.0.0.1": "loopback",
    "::a9fe:a9fe": "link-local",
    "64:ff9b::7f00:1": "loopback",
    "64:ff9b::a9fe:a9fe": "link-local",
    "64:ff9b:1::a00:1": "private",
    "2002:7f00:1::1": "loopback",
    "2002:a9fe:a9fe::1": "link-local",
    "2001:0:a00:1::1": "private",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_called(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(("address", "kind"), REFUSED.items())
def test_all_others_are_refused_by_kind(address: str, kind: str) -> None:
    with pytest.raises(AddressRefused, match=f"{kind}.*BANTAM_WEBHOOK_ALLOW_PRIVATE"):
        check_address(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]:8080/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://127.1/",
        "http://localhost/",
        "https://LOCALHOST./",
        "https://api.localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
    ],
)
def test_numbers_in_a_url_are_refused_before_anything_is_looked_up(url: str) -> None:
    with pytest.raises(AddressRefused, match="BANTAM_WEBHOOK_ALLOW_PRIVATE"):
        checked_url(url, allow_private=False)
    assert checked_url(url, allow_private=True).host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "/hook",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "https://",
        "https://user:password@example.org/",
        "https://example.org/#part",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://exa mple.org/",
        "http://0177.0.0.1/",
        "https://[::1/",
    ],
)
def test_what_is_no_address_of_a_receiver_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        checked_url(url, allow_private=True)


def test_a_name_is_refused_if_any_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["1.1.1.1", "10.0.0.1"]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *a, **k: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f, 80)) for f in found]
    )
    with pytest.raises(AddressRefused, match=r"10\.0\.0\.1 is a private"):
        allowed_addresses("rebinding.example", 80, allow_private=False)
    assert allowed_addresses("rebinding.example", 80, allow_private=True) == found


def test_it_connects_to_what_was_checked_and_looks_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that stands for another address at the second look: there is no second look."""
    lookups: list[str] = []
    real = socket.getaddrinfo

    def turncoat(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host == "turncoat.example":
            if options.get("flags"):
                raise socket.gaierror("a name, no number")
            lookups.append(host)
            host = "127.0.0.1" if len(lookups) == 1 else "127.0.0.2"
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", turncoat)
    with Receiver() as receiver:
        url = receiver.url.replace("127.0.0.1", "turncoat.example")
        answer = Sender(timeout_s=5, allow_private=True).post(url, {}, b"{}")
    assert (answer.status, answer.reason) == (204, None)
    assert lookups == ["turncoat.example"]
    assert receiver.received[0].headers["Host"].startswith("turncoat.example:")


def test_a_private_receiver_is_never_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **options: Any) -> Any:
        if host == "inside.example" and options.get("flags"):
            raise socket.gaierror("a name, no number")
        return real("127.0.0.1" if host == "inside.example" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    sender = Sender(timeout_s=5, allow_private=False)
    with Receiver() as receiver:
        for url in (receiver.url, receiver.url.replace("127.0.0.1", "inside.example")):
            answer = sender.post(url, {}, b"{}")
            assert answer.status is None
            assert "loopback" in (answer.reason or "")
    assert receiver.received == []


def test_redirects_are_not_followed() -> None:
    with Receiver(answer=lambda number: 307) as receiver:
        answer = Sender(timeout_s=5, allow_private=True).post(receiver.url, {}, b"{}")
    assert answer.status == 307
    assert "redirects are not followed" in (answer.reason or "")
    assert [r.path for r in receiver.received] == ["/hook"]


def test_a_receiver_that_drips_is_cut_off() -> None:
    with Receiver(answer=lambda number: None) as receiver:
        answer = Sender(timeout_s=0.4, allow_private=True).post(receiver.url, {}, b"{}")
    assert (answer.status, answer.reason) == (None, "no answer within 0.4 s")


def test_nobody_there_is_a_reason() -> None:
    with Receiver() as receiver:
        url = receiver.url
    answer = Sender(timeout_s=5, allow_private=True).post(url, {}, b"{}")
    assert answer.status is None
    assert "refused" in (answer.reason or "").lower()
    answer = Sender(timeout_s=5, allow_private=True).post("http://no.such.name.invalid/", {}, b"{}")
    assert answer.status is None and answer.reason


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert Sender(timeout_s=5, allow_private=True).post(receiver.url, {}, b"{}").status == 204
    assert (len(proxy.received), len(receiver.received)) == (0, 1)
