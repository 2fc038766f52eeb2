"""A real HTTP server for tests, on a free port, with an intake that reads no real model."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import uvicorn

from compressors.descriptions import (
    DatasetDescription,
    ModelDescription,
)
from compressors.errors import InvalidData, UnsafeArchive
from search.spec import JobSpec
from service.app import create_app
from service.auth import ensure_token
from service.database import Database
from service.intake import Intake
from service.problems import FieldError
from service.settings import Settings
from service.tables import DEFAULT_PROJECT
from tests.service.rows import DATASET, MODEL, add_inputs

MODEL_BYTES = b"a model that the tests accept"
DATASET_BYTES = b"a dataset that the tests accept"


def _read_model(source: Path, destination: Path) -> ModelDescription:
    if source.read_bytes().startswith(b"unsafe"):
        raise UnsafeArchive("data.pkl: holds a pickle; export the model without it")
    destination.write_bytes(b"checked:" + source.read_bytes())
    return MODEL


def _read_dataset(path: Path) -> DatasetDescription:
    if path.read_bytes().startswith(b"bad"):
        raise InvalidData("column x, row 3: NaN; clean the column")
    return DATASET


def _fit(spec: JobSpec, model: ModelDescription, data: Mapping[str, DatasetDescription]) -> Sequence[FieldError]:
    known = {c.name for d in data.values() for c in d.columns}
    wanted = {"data.target": spec.data.target, "data.inputs[0]": spec.data.columns[0].column}
    return [FieldError(f, f"no column {c!r}; there are {sorted(known)}") for f, c in wanted.items() if c not in known]


class RunningApi:
    """client: authorised. open: without a token."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = create_app(settings, Intake(model=_read_model, dataset=_read_dataset, fit=_fit))
        self.state = self.app.state.bantam
        self.token = ensure_token(settings.token_file)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_config=None, ws="none", timeout_graceful_shutdown=2))
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()
        self._others: list[httpx.Client] = []
        self.open = httpx.Client(base_url=self.url, timeout=20)
        self.client = httpx.Client(base_url=self.url, timeout=20, headers={"Authorization": f"Bearer {self.token}"})

    @property
    def database(self) -> Database:
        database: Database = self.state.database
        return database

    def with_token(self, *scopes: str, project: str = "default", **fields: Any) -> httpx.Client:
        """A client with a fresh token; the project is made if it is not there."""
        if project != "default":
            made = self.client.post("/v1/projects", json={"id": project})
            assert made.status_code in (201, 409), made.text
        body = {"name": "test", "scopes": list(scopes), "project": project, **fields}
        answer = self.client.post("/v1/tokens", json=body)
        assert answer.status_code == 201, answer.text
        headers = {"Authorization": f"Bearer {answer.json()['token']}"}
        self._others.append(httpx.Client(base_url=self.url, timeout=20, headers=headers))
        return self._others[-1]

    def close(self) -> None:
        for client in (self.open, self.client, *self._others):
            client.close()
        self.state.stopping.set()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()
        assert not self._thread.is_alive()

    def upload(
        self,
        kind: str,
        content: bytes,
        name: str | None = "label",
        client: httpx.Client | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        data = {} if name is None else {"name": name}
        files = {"file": ("../../etc/x.bin", content)}
        return (client or self.client).post(f"/v1/{kind}", files=files, data=data, headers=headers)

    def spec(self, **change: Any) -> dict[str, Any]:
        """A valid specification on the rows that `add_inputs` makes."""
        return self.spec_in(DEFAULT_PROJECT, **change)

    def spec_in(self, project: str, **change: Any) -> dict[str, Any]:
        model, dataset = add_inputs(self.database, project)
        return {
            "name": "edge",
            "model": model,
            "data": {"train": dataset, "inputs": ["x"], "target": "label"},
            "budget": {"latency_ratio": 0.5},
            **change,
        }

    def submit(self, **change: Any) -> str:
        response = self.client.post("/v1/jobs", json=self.spec(**change))
        assert response.status_code == 202, response.text
        job_id: str = response.json()["id"]
        return job_id
