"""A job in a file (JSON or YAML). Its model and data may be files too: those are uploaded, and their ids put in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from service.client import Client
from service.references import name_in

DATA_ROLES = ("train", "validation", "test")
_FILES = {".pt2", ".parquet", ".npz", ".safetensors"}


class BadJobFile(Exception):
    """The file cannot be read as a job; the message says where and what to write instead."""


def read_job(path: Path) -> dict[str, Any]:
    """Raises BadJobFile."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadJobFile(f"{path}: {error.strerror or error}; give the path of a job file") from error
    except UnicodeDecodeError as error:
        raise BadJobFile(f"{path}: not a text file; write the job as JSON or YAML") from error
    try:
        document = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except json.JSONDecodeError as error:
        raise BadJobFile(f"{path}:{error.lineno}:{error.colno}: {error.msg}; correct the JSON there") from error
    except yaml.YAMLError as error:
        raise BadJobFile(f"{path}: {error}; correct the YAML there") from error
    if not isinstance(document, dict):
        raise BadJobFile(f"{path}: holds a {type(document).__name__}; a job is an object with model, data and budget")
    return document


def upload_files(
    client: Client, job: dict[str, Any], folder: Path, on_upload: Callable[[str, Path], None] = lambda *_: None
) -> dict[str, Any]:
    """A copy of the job in which paths have become ids. folder: relative paths start there, else in the current one.

    on_upload sees ('model' | 'models.<name>' | role, path) before each upload. Raises BadJobFile for a path that does
    not exist.
    """
    done = dict(job)
    uploaded: dict[Path, str] = {}

    def identifier(field: str, value: Any, upload: Callable[[Path], dict[str, Any]]) -> Any:
        path = _local_file(field, value, folder)
        if path is None:
            return value
        if path not in uploaded:
            on_upload(field, path)
            uploaded[path] = str(upload(path)["id"])
        return uploaded[path]

    if "model" in job:
        done["model"] = identifier("model", job["model"], client.upload_model)
    if isinstance(job.get("models"), dict):
        done["models"] = {
            name: identifier(f"models.{name}", value, client.upload_model) for name, value in job["models"].items()
        }
    if isinstance(job.get("data"), dict):
        data = dict(job["data"])
        for role in DATA_ROLES:
            if data.get(role) is not None:
                data[role] = identifier(f"data.{role}", data[role], client.upload_dataset)
        done["data"] = data
    return done


def _local_file(field: str, value: Any, folder: Path) -> Path | None:
    """The file that a value names; None if it is an id or `name@latest`."""
    if not isinstance(value, str):
        return None
    for candidate in (folder / value, Path(value)):
        if candidate.is_file():
            return candidate.resolve()
    if name_in(value) is None and (Path(value).suffix in _FILES or "/" in value):
        raise BadJobFile(f"{field}={value!r}: no such file in {folder} or here; correct the path, or give an id")
    return None
