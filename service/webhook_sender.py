"""One signed POST to an address that was checked: no redirects, no proxies, an end to the time it takes.

Of the answer only the status is read; what a receiver writes is never kept, so that nothing can be read through it.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from service.addresses import AddressRefused, allowed_addresses, checked_url


@dataclass(frozen=True)
class Answer:
    """status: of the receiver; None if there was none. reason: why it counts as not delivered; None if it does."""

    status: int | None
    reason: str | None


class Sender:
    """Safe to share between threads."""

    def __init__(self, *, timeout_s: float, allow_private: bool) -> None:
        self._timeout_s = timeout_s
        self._allow_private = allow_private
        self._context = httpx.create_ssl_context()

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Never raises for what a receiver or the network does."""
        try:
            status = self._post(checked_url(url, allow_private=self._allow_private), headers, body)
        except AddressRefused as refusal:
            return Answer(None, str(refusal))
        except httpcore.TimeoutException:
            return Answer(None, f"no answer within {self._timeout_s:g} s")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return Answer(None, str(error) or type(error).__name__)
        if 200 <= status < 300:
            return Answer(status, None)
        hint = "; redirects are not followed, give the final URL" if 300 <= status < 400 else ""
        return Answer(status, f"answered {status}{hint}")

    def _post(self, url: httpx.URL, headers: Mapping[str, str], body: bytes) -> int:
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        backend = _CheckedNetwork(time.monotonic() + self._timeout_s, allow_private=self._allow_private)
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        sent = [(name, value) for name, value in headers.items()]
        with (
            httpcore.ConnectionPool(ssl_context=self._context, network_backend=backend) as pool,
            pool.stream("POST", target, headers=sent, content=body, extensions={"timeout": limits}) as answer,
        ):
            return answer.status


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to the addresses that a name was checked for. deadline: by time.monotonic, for all of the request."""

    def __init__(self, deadline: float, *, allow_private: bool) -> None:
        self._deadline = deadline
        self._allow_private = allow_private
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception | None = None
        for address in allowed_addresses(host, port, allow_private=self._allow_private):
            try:
                stream = self._network.connect_tcp(address, port, _left(self._deadline), socket_options=socket_options)
            except httpcore.NetworkError as error:
                failure = error
                continue
            return _TimedStream(stream, self._deadline)
        raise failure or httpcore.ConnectError(f"{host} has no address")


class _TimedStream(httpcore.NetworkStream):
    """A receiver that sends a byte now and then is cut off all the same."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secure = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _TimedStream(secure, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    """Raises httpcore.ReadTimeout once there is no time left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("time is over")
    return left
