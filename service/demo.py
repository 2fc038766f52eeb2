"""`bantam demo`: a whole search on real handwritten digits, over HTTP, in an empty folder.

Trains a small network (in a child process), starts the service beside it on a free port, uploads, posts a job, shows
its progress and leaves winner.onnx, report.html and front.png behind.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from service import wording
from service.cli_display import comparison_table, follow, state_text
from service.cli_options import FAILED, REFUSED, UNREACHABLE
from service.client import Client
from service.client_calls import FINAL_STATES
from service.client_errors import ClientError, ServiceUnreachable
from service.front_plot import write_front_png

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
INTERRUPTED: Final = 130

# int8 alone leaves 0.26 of the file's bytes, so the size limit asks for fewer channels as well.
BUDGET: Final = {"latency_ratio": 0.6, "size_ratio": 0.15, "max_metric_drop": 0.01}
MAX_SECONDS: Final = 60


class DemoFailed(Exception):
    """The demo cannot go on; the message says why and what to do."""


def job_of(model: str, train: str, test: str) -> dict[str, Any]:
    return {
        "name": "handwritten digits",
        "model": model,
        "task": "classification",
        "data": {"train": train, "test": test, "inputs": ["image"], "target": "label", "validation_fraction": 0.2},
        "target": {"runtime": "onnxruntime", "device": "cpu", "threads": 1, "batch_size": 1},
        "budget": dict(BUDGET),
        "objective": "metric",
        "search": {"max_trials": 24, "max_seconds": MAX_SECONDS, "parallel": 2, "seed": 0},
    }


def train(folder: Path, console: Console) -> None:
    """Writes model.pt2, train.parquet and test.parquet. Raises DemoFailed."""
    with console.status("training a small network on scikit-learn's handwritten digits"):
        done = subprocess.run(
            [sys.executable, "-m", "service.demo_model", str(folder)], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise DemoFailed(f"training ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    facts = json.loads(done.stdout.splitlines()[-1])
    console.print(
        f"trained on {facts['train_rows']} digits in {facts['seconds']} s: {facts['test_accuracy']:.4f} on "
        f"{facts['test_rows']} others, {wording.count(facts['parameters'])} parameters",
        highlight=False,
    )


@contextmanager
def running_service(data_dir: Path, log: Path, console: Console, *, keep: bool) -> Iterator[str]:
    """Yields the address of a service that answers; stops it at the end unless `keep`. Raises DemoFailed."""
    url = f"http://127.0.0.1:{free_port()}"
    settings = {"BANTAM_DATA_DIR": str(data_dir), "BANTAM_HOST": "127.0.0.1", "BANTAM_PORT": url.rpartition(":")[2]}
    # A database or token that the caller has set up for another service is none of the demo's business.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("BANTAM_")}
    with log.open("ab") as output:
        # Of its own group: Ctrl-C reaches only this process, which then stops the service in order.
        server = subprocess.Popen(
            [sys.executable, "-m", "service.start", "serve"],
            env={**inherited, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    left_running = False
    try:
        _wait_ready(url, server, log)
        yield url
        left_running = keep
    finally:
        if left_running:
            console.print(f"the service goes on at {url} (process {server.pid}); stop it with: kill {server.pid}")
        else:
            stop(server)


def _wait_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with Client(url) as client:
        while not client.is_ready():
            if server.poll() is not None:
                tail = log.read_text(errors="replace")[-2000:]
                raise DemoFailed(f"the service ended with status {server.returncode}:\n{tail}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"the service does not answer after {START_TIMEOUT_S:g} s; its log is {log}")
            time.sleep(0.1)


def stop(server: subprocess.Popen[bytes]) -> None:
    """SIGTERM, time to finish, then SIGKILL for it and whatever it started."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def search(client: Client, folder: Path, console: Console) -> dict[str, Any]:
    """Uploads, posts the job and follows it to its end. A job that an interrupted demo has left is not gone on with."""
    for left in client.jobs(limit=500):
        if left["state"] not in FINAL_STATES:
            client.cancel(str(left["id"]))
    model = client.upload_model(folder / "model.pt2", "digits")
    parts = [client.upload_dataset(folder / f"{name}.parquet", f"digits {name}") for name in ("train", "test")]
    console.print(f"uploaded the model ({wording.file_size(model['bytes'])}) and {sum(p['rows'] for p in parts)} rows")
    job = client.submit(job_of(model["id"], *(str(p["id"]) for p in parts)))
    limits = ", ".join(f"{name} {value:g}" for name, value in BUDGET.items())
    console.print(Text(f"job {job['id']}: {limits}, at most {MAX_SECONDS} s of search\n"), soft_wrap=True)
    return follow(client, str(job["id"]), console)


def keep_results(client: Client, job: dict[str, Any], folder: Path) -> list[Path]:
    """The winner, the uncompressed export, the report and the picture; returns what was written."""
    job_id, best = str(job["id"]), job.get("best") or {}
    written = [folder / name for name in ("winner.onnx", "baseline.onnx", "report.html", "front.png")]
    client.download_artifact(job_id, written[0])
    client.download_artifact(job_id, written[1], which="baseline")
    written[2].write_text(client.report_html(job_id), encoding="utf-8")
    trials = client.all_trials(job_id)
    write_front_png(written[3], trials, job.get("baseline"), (job.get("spec") or {}).get("budget"), best.get("trial"))
    return written


def run(folder: Path, console: Console, *, keep: bool) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    train(folder, console)
    data_dir = folder / "data"
    with running_service(data_dir, folder / "service.log", console, keep=keep) as url:
        with Client(url, (data_dir / "token").read_text().strip()) as client:
            console.print(
                f"watch it in a browser too: {url}/  (sign in with the text in {data_dir / 'token'})", soft_wrap=True
            )
            job = search(client, folder, console)
            console.print(Text(str(job["name"]), style="bold"), state_text(job))
            if job["state"] != "succeeded":
                raise DemoFailed(f"the search has {job['state']}: {job.get('reason')}; see {folder / 'service.log'}")
            files = keep_results(client, job, folder)
            findings = client.report(str(job["id"]))
        console.print(comparison_table(job, findings))
        for row in job["best"].get("violations") or ():
            console.print(Text(wording.violation(row), style="yellow"))
        console.print("\nwrote " + ", ".join(str(path) for path in files), highlight=False, soft_wrap=True)
    if not keep:
        console.print(
            f"look at the job again: bantam serve --data-dir {data_dir}, then open http://127.0.0.1:8080/",
            soft_wrap=True,
        )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bantam demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--keep", action="store_true", help="leave the service running")
    options = parser.parse_args(arguments)
    console = Console()
    # A polite `kill` ends the demo like Ctrl-C: the service is stopped on the way out.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(options.output, console, keep=options.keep)
    except KeyboardInterrupt:
        console.print("\nstopped; run `bantam demo` again to start afresh")
        return INTERRUPTED
    except DemoFailed as error:
        console.print(Text(f"error: {error}", style="red"), soft_wrap=True)
        return FAILED
    except ClientError as error:
        console.print(Text(f"error: {error}", style="red"), soft_wrap=True)
        return UNREACHABLE if isinstance(error, ServiceUnreachable) else REFUSED
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
