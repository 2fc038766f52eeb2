"""Which network addresses the server may call on behalf of a client: public ones, unless the operator allows others.

Names are resolved and what they resolve to is checked; the caller connects to the checked address, not to the name, so
that an answer that changes in between changes nothing.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import httpx

LONGEST_URL: Final = 2000
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE: Final = IPv6Network("::/96")
# Public by their number, but only hosts inside a cloud reach them, or nobody does.
_SPECIAL: Final = {
    ip_network("168.63.129.16/32"): "a metadata address",  # Azure
    ip_network("192.0.0.0/24"): "a private or reserved address",  # Oracle's metadata service is one
    ip_network("192.88.99.0/24"): "a 6to4 relay",
    ip_network("fec0::/10"): "a site-local address",
}
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_REMEDY: Final = "the server calls public addresses only, unless BANTAM_WEBHOOK_ALLOW_PRIVATE is set"


class AddressRefused(Exception):
    """The server does not call this address."""


def checked_url(text: str, *, allow_private: bool) -> httpx.URL:
    """A URL that may be called if its name resolves to allowed addresses. Looks no name up. Raises AddressRefused."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise AddressRefused(f"not a URL ({error}); write one like https://example.org/hook") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise AddressRefused("write a URL like https://example.org/hook")
    if url.userinfo:
        raise AddressRefused("names a user or password; each request is signed instead, leave them out")
    if url.fragment:
        raise AddressRefused("has a fragment, which no server gets to see; leave it out")
    if url.port is not None and not 0 < url.port < 65536:
        raise AddressRefused("its port is not between 1 and 65535")
    host = url.raw_host.decode()
    if not _HOST.fullmatch(host):
        raise AddressRefused(f"{host!r} is no host name")
    if not allow_private:
        if host.rstrip(".").lower() == "localhost" or host.rstrip(".").lower().endswith(".localhost"):
            raise AddressRefused(f"{host} is the server itself; {_REMEDY}")
        try:
            numeric = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            return url  # a name: looked up and checked when it is called
        check_address(str(numeric[0][4][0]))
    return url


def allowed_addresses(host: str, port: int, *, allow_private: bool) -> list[str]:
    """What a host resolves to, if all of it may be called. Raises AddressRefused, OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise AddressRefused(f"{host!r} is no host name") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private:
        for address in addresses:
            check_address(address)
    return addresses


def check_address(address: str) -> None:
    """address: numbers, of IPv4 or IPv6. Raises AddressRefused."""
    kind = _refused(ip_address(address.partition("%")[0]))
    if kind is not None:
        raise AddressRefused(f"{address} is {kind}; {_REMEDY}")


def _refused(ip: IPv4Address | IPv6Address) -> str | None:
    for network, kind in _SPECIAL.items():
        if ip.version == network.version and ip in network:
            return kind
    for holds, kind in (
        (ip.is_unspecified, "the unspecified address"),
        (ip.is_loopback, "a loopback address"),
        (ip.is_link_local, "a link-local address (metadata services are such)"),
        (ip.is_multicast, "a multicast address"),
    ):
        if holds:
            return kind
    if isinstance(ip, IPv6Address):
        inner = [refused for found in _embedded(ip) if (refused := _refused(found)) is not None]
        if inner:
            return f"{inner[0]} inside IPv6"
        if ip.ipv4_mapped is not None:
            return None
    return None if ip.is_global else "a private or reserved address"


def _embedded(ip: IPv6Address) -> list[IPv4Address]:
    """IPv4 addresses that an IPv6 one leads to: mapped, compatible, 6to4, Teredo, NAT64."""
    last = IPv4Address(int(ip) & 0xFFFFFFFF)
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if any(ip in network for network in _NAT64) or (ip in _COMPATIBLE and int(ip) > 1):
        found.append(last)
    return [inner for inner in found if inner is not None]
