"""A real S3 server on loopback: localbucket, and the deletion of several objects at once, which it lacks."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import localbucket

BUCKET = "bantam"


class _Handler(localbucket.S3Handler):  # type: ignore[misc]  # the package has no types
    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        bucket, _, query = self.path.strip("/").partition("?")
        if query.rstrip("=") != "delete":
            super().do_POST()
            return
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        keys = re.findall("<Key>([^<]+)</Key>", body)
        for key in keys:
            (self.data_root / bucket / key).unlink(missing_ok=True)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        answer = f"<DeleteResult>{deleted}</DeleteResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def s3_server(folder: Path) -> Iterator[Mapping[str, str]]:
    """Serves the buckets that lie in a folder, one of them named BUCKET; the variables with which clients find it."""
    (folder / BUCKET).mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"data_root": folder}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
