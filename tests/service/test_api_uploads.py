from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from service.uploads import remove_stale_uploads
from tests.service.api import DATASET_BYTES, MODEL_BYTES, RunningApi


def left_over(settings: Settings) -> list[Path]:
    return list(settings.uploads_dir.glob("*"))


def test_a_model_is_kept_as_intake_wrote_it_and_answered_as_the_contract_says(api: RunningApi) -> None:
    response = api.upload("models", MODEL_BYTES, "net")
    assert response.status_code == 201, response.text
    body = response.json()
    assert {k: body[k] for k in ("name", "sha256", "format", "parameters", "bytes")} == {
        "name": "net",
        "sha256": hashlib.sha256(MODEL_BYTES).hexdigest(),
        "format": "pt2",
        "parameters": 42,
        "bytes": len(MODEL_BYTES),
    }
    assert {k: body["inputs"][0][k] for k in ("name", "shape", "dtype")} == {
        "name": "x",
        "shape": [None, 4],
        "dtype": "float32",
    }
    assert body["layers"] == [{"name": "fc", "kind": "Linear", "parameters": 42, "macs": 40}]
    assert response.headers["Location"] == f"/v1/models/{body['id']}"
    assert api.client.get(response.headers["Location"]).json() == body
    assert api.client.get("/v1/models").json() == {"items": [body], "next_cursor": None}
    kept = [p.read_bytes() for p in api.settings.blobs_dir.rglob("*") if p.is_file()]
    assert kept == [b"checked:" + MODEL_BYTES]
    assert left_over(api.settings) == []


def test_the_same_bytes_have_the_same_id(api: RunningApi) -> None:
    first = api.upload("models", MODEL_BYTES, "one")
    second = api.upload("models", MODEL_BYTES, "two")
    assert (first.status_code, second.status_code) == (201, 200)
    assert {**first.json(), "version": None} == {**second.json(), "version": None}
    assert [r.json()["version"]["name"] for r in (first, second)] == ["one", "two"]
    assert len(api.client.get("/v1/models").json()["items"]) == 1


def test_a_dataset_is_described_by_its_columns(api: RunningApi) -> None:
    response = api.upload("datasets", DATASET_BYTES, "rows")
    assert response.status_code == 201, response.text
    body = response.json()
    assert (body["rows"], body["format"], body["bytes"]) == (10, "npz", len(DATASET_BYTES))
    assert [c["name"] for c in body["columns"]] == ["x", "label"]
    assert api.client.get(f"/v1/datasets/{body['id']}").json() == body
    assert api.upload("datasets", DATASET_BYTES).json()["id"] == body["id"]
    assert left_over(api.settings) == []


def test_a_name_with_path_parts_is_only_a_label(sqlite_api: RunningApi) -> None:
    assert sqlite_api.upload("models", MODEL_BYTES, "../../root/x").json()["name"] == "../../root/x"
    assert sqlite_api.upload("models", b"other", None).json()["name"] == "x.bin"
    written = {p.relative_to(sqlite_api.settings.data_dir).parts[0] for p in sqlite_api.settings.data_dir.rglob("*")}
    assert written <= {"blobs", "uploads", "token", "bantam.sqlite3", "bantam.sqlite3-wal", "bantam.sqlite3-shm"}


@pytest.mark.parametrize(
    ("kind", "content", "word"), [("models", b"unsafe pickle", "pickle"), ("datasets", b"bad rows", "NaN")]
)
def test_a_refused_file_leaves_nothing_behind(sqlite_api: RunningApi, kind: str, content: bytes, word: str) -> None:
    response = sqlite_api.upload(kind, content)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["errors"][0]["field"] == "file"
    assert word in response.json()["errors"][0]["message"]
    assert sqlite_api.client.get(f"/v1/{kind}").json() == {"items": [], "next_cursor": None}
    assert left_over(sqlite_api.settings) == []


def test_what_is_no_upload_is_refused_with_the_remedy(sqlite_api: RunningApi) -> None:
    post = sqlite_api.client.post
    assert post("/v1/models", content=b"raw").status_code == 415
    assert post("/v1/models", json={"file": "x"}).status_code == 415
    assert post("/v1/models", files={"model": b"x"}).json()["errors"][0]["field"] == "model"
    assert post("/v1/models", files={"file": b""}).json()["errors"][0]["message"].startswith("empty")
    assert post("/v1/models", files=[("file", b"x"), ("file", b"y")]).status_code == 422
    assert post("/v1/models", files={"file": b"x"}, data={"name": "n" * 201}).json()["errors"][0]["field"] == "name"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    cut_off = b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\nbytes'
    assert post("/v1/models", content=cut_off, headers=headers).status_code == 400
    assert post("/v1/models", content=b"--b--\r\n", headers=headers).json()["errors"][0]["field"] == "file"
    assert left_over(sqlite_api.settings) == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_over_the_limit_is_refused_while_it_arrives(
    sqlite_settings: Settings, start_api: Callable[[Settings], RunningApi], chunked: bool
) -> None:
    api = start_api(sqlite_settings.model_copy(update={"max_model_bytes": 100_000}))
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(40):
            yield b"x" * 10_000
        yield b"\r\n--b--\r\n"

    content = body() if chunked else b"".join(body())
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = api.client.post("/v1/models", content=content, headers=headers)
    assert response.status_code == 413
    assert "100000 bytes" in response.json()["detail"]
    assert left_over(api.settings) == []


def test_a_broken_off_upload_leaves_nothing_behind(sqlite_api: RunningApi) -> None:
    host, port = sqlite_api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n"
            b"Authorization: Bearer " + sqlite_api.token.encode() + b"\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\nhalf'
        )
    assert sqlite_api.upload("models", MODEL_BYTES).status_code == 201
    assert left_over(sqlite_api.settings) == []


def test_what_a_killed_server_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, young, folder = tmp_path / "upload-old", tmp_path / "upload-young", tmp_path / "intake-old"
    folder.mkdir()
    for path in (old, young, folder / "model.pt2"):
        path.write_bytes(b"x")
    for path in (old, folder):
        os.utime(path, (1, 1))
    remove_stale_uploads(tmp_path)
    assert list(tmp_path.iterdir()) == [young]
