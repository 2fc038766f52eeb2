"""Log lines of every process: text for people, or one JSON object a line, with the ids of what is being worked on.

`bound(job_id=..., trial=...)` labels everything logged within it, in this thread or task. What looks like a secret is
blanked in every line, whoever wrote it: tokens, `Authorization` values, passwords in URLs, and what `hide` was told.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, get_args

LogFormat = Literal["text", "json"]
FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
FORMAT_VARIABLE = "BANTAM_LOG_FORMAT"
LEVEL_VARIABLE = "BANTAM_LOG_LEVEL"
BLANK = "***"
_TALKATIVE = ("alembic", "uvicorn", "httpx", "httpcore", "urllib3")
_PATTERNS = (
    (re.compile(r"(bantam_[0-9a-zA-Z]+_)[0-9a-zA-Z_-]{16,}"), rf"\1{BLANK}"),
    (re.compile(r"(?i)\b((?:bearer|basic) +)[^\s\"',;]+"), rf"\1{BLANK}"),
    (re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+(@)"), rf"\1{BLANK}\2"),
)
_labels: ContextVar[Mapping[str, Any]] = ContextVar("bantam_log_labels", default={})  # noqa: B039 - never changed
_hidden: set[str] = set()


@contextmanager
def bound(**labels: Any) -> Iterator[None]:
    """Adds labels to every line of this thread or task until the end of the block; None leaves one out."""
    token = _labels.set({**_labels.get(), **{k: v for k, v in labels.items() if v is not None}})
    try:
        yield
    finally:
        _labels.reset(token)


def labels() -> Mapping[str, Any]:
    """What is bound here and now."""
    return _labels.get()


def hide(secret: str | None) -> None:
    """Blanks this very text in all further lines of the process. Short ones are left: they would blank words."""
    if secret and len(secret) >= 8:
        _hidden.update((secret, json.dumps(secret)[1:-1]))


def blanked(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    for secret in _hidden:
        text = text.replace(secret, BLANK)
    return text


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Labels in force, then what the caller gave as `extra={"fields": {...}}`."""
    return {**_labels.get(), **getattr(record, "fields", {})}


class TextFormatter(logging.Formatter):
    """`2026-11-25 04:50:00,123 INFO    bantam.worker: begins [job_id=j01]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s%(labels)s")

    def format(self, record: logging.LogRecord) -> str:
        words = [f"{name}={value}" for name, value in fields_of(record).items()]
        record.labels = f" [{' '.join(words)}]" if words else ""
        return blanked(super().format(record))


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC, ISO 8601), level, logger, message, labels, and `exception` with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return blanked(json.dumps(line, default=str))


def set_up(level: str, log_format: str) -> None:
    """Everything that this process logs goes to stderr in this form. Raises ValueError for an unknown level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for talkative in _TALKATIVE:
        logging.getLogger(talkative).setLevel(logging.WARNING)


def set_up_like_parent() -> None:
    """In a process that the worker has started: the same form as the worker's, by the variables that both inherit."""
    set_up(os.environ.get(LEVEL_VARIABLE, "info"), os.environ.get(FORMAT_VARIABLE, "text"))
