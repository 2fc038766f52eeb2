"""What can go wrong between a client and the service.

ClientError
├── ServiceProblem       the service answered with a problem document (RFC 9457)
├── ServiceUnreachable   no answer at all
├── DamagedDownload      the bytes that arrived are not those that the service announced
└── WaitTimeout          the job did not end in the time given
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class ClientError(Exception):
    """Root of all errors raised by `service.client`."""


@dataclass(frozen=True)
class FieldProblem:
    """One field that the service refused. field: dotted path such as 'budget.latency_ratio'; '' for the whole."""

    field: str
    message: str
    remedy: str | None = None

    def __str__(self) -> str:
        text = f"{self.field}: {self.message}" if self.field else self.message
        return f"{text}\n  -> {self.remedy}" if self.remedy else text


class ServiceProblem(ClientError):
    """The service refused the request. document: the problem document, or a stand-in made from the status line."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.document = dict(document)
        super().__init__(str(self))

    @property
    def title(self) -> str:
        return str(self.document.get("title") or f"HTTP {self.status}")

    @property
    def fields(self) -> Sequence[FieldProblem]:
        """The fields named by the document: its `errors` list, else its own `field`."""
        errors = self.document.get("errors")
        if isinstance(errors, list) and errors:
            return tuple(_field_problem(e) for e in errors if isinstance(e, Mapping))
        if self.document.get("field") or self.document.get("detail"):
            return (_field_problem(self.document),)
        return ()

    @property
    def remedy(self) -> str | None:
        given = self.document.get("remedy")
        if given:
            return str(given)
        if self.status == 401:
            return "give the token of the service's data folder: BANTAM_TOKEN=... or --token (see <data-dir>/token)"
        return None

    def __str__(self) -> str:
        lines = [f"{self.title} (HTTP {self.status})", *(str(f) for f in self.fields)]
        if self.remedy and not any(f.remedy == self.remedy for f in self.fields):
            lines.append(f"  -> {self.remedy}")
        return "\n".join(lines)


class ServiceUnreachable(ClientError):
    """Nothing answers at this address, or it stopped answering."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"cannot reach {url}: {why}\n  -> start the service with `bantam serve`, or name its address with --url "
            "or BANTAM_URL"
        )
        self.url = url


class DamagedDownload(ClientError):
    """expected, found: sha256 in hex. Nothing was left at the destination."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"sha256 is {found}, the service announced {expected}; download it again")
        self.expected = expected
        self.found = found


class WaitTimeout(ClientError):
    def __init__(self, job_id: str, state: str, timeout_s: float) -> None:
        super().__init__(
            f"job {job_id} is still {state} after {timeout_s:g} s; go on waiting with `bantam watch {job_id}`"
        )
        self.job_id = job_id


def _field_problem(document: Mapping[str, Any]) -> FieldProblem:
    field = document.get("field") or ""
    if not field and isinstance(document.get("pointer"), str):
        field = document["pointer"].lstrip("#/").replace("/", ".")
    message = document.get("message") or document.get("detail") or document.get("title") or "refused"
    remedy = document.get("remedy")
    return FieldProblem(str(field), str(message), str(remedy) if remedy else None)
