"""The main job on ResNet-20 and CIFAR-10, over HTTP: an easy, an impossible and two real budgets, and a killed worker.

python -m benchmarks.main_job [--data FOLDER] [--output FOLDER] [--only easy,impossible,main,killed,tight]

FOLDER holds resnet20-cifar10.pt2, cifar10-train.parquet and cifar10-test.parquet. Starts a service of its own in an
empty data folder, prints each figure as it is known, and checks the main job's file with examples/verify_artifact.py.
Takes up to an hour on two cores; nothing else should run beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from service.client import Client
from service.demo import running_service

ROOT = Path(__file__).resolve().parent.parent
Json = dict[str, Any]

BUDGETS: dict[str, tuple[Json, float]] = {
    "easy": ({"latency_ratio": 0.6, "size_ratio": 0.4, "max_metric_drop": 0.005}, 1200),
    "impossible": ({"latency_ratio": 0.03}, 1200),
    "main": ({"latency_ratio": 0.45, "size_ratio": 0.25}, 1200),
    "killed": ({"latency_ratio": 0.45, "size_ratio": 0.25}, 1200),
    "tight": ({"latency_ratio": 0.40, "size_ratio": 0.21}, 1800),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "main-job")
    parser.add_argument("--only", default=",".join(BUDGETS))
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    console = Console()
    data_dir = options.output / "data"
    with running_service(data_dir, options.output / "service.log", console, keep=False) as url:
        token = (data_dir / "token").read_text().strip()
        with Client(url, token) as client:
            names = _upload(client, options.data)
            for name in options.only.split(","):
                _run(client, name, names, options)


def _upload(client: Client, data: Path) -> Json:
    return {
        "model": client.upload_model(data / "resnet20-cifar10.pt2")["id"],
        "train": client.upload_dataset(data / "cifar10-train.parquet")["id"],
        "test": client.upload_dataset(data / "cifar10-test.parquet")["id"],
    }


def _run(client: Client, name: str, names: Json, options: argparse.Namespace) -> None:
    budget, seconds = BUDGETS[name]
    spec = {
        "name": name,
        "model": names["model"],
        "data": {
            "train": names["train"],
            "test": names["test"],
            "inputs": ["image"],
            "target": "label",
            "validation_rows": [45000, 50000],
        },
        "budget": budget,
        # Another seed, so that the killed job computes its own tuning instead of finding the main job's.
        "search": {"max_seconds": seconds, "seed": 1 if name == "killed" else 0},
    }
    began = time.monotonic()
    job_id = client.submit(spec)["id"]
    on_change = _killer(client, job_id) if name == "killed" else None
    job = client.wait(job_id, on_change=on_change)
    _show(client, name, job, time.monotonic() - began)
    folder = options.output / name
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(client.report(job_id), indent=1))
    (folder / "report.html").write_text(client.report_html(job_id))
    for which in ("winner", "baseline"):
        client.download_artifact(job_id, folder / f"{which}.onnx", which=which)
    if name not in ("easy", "impossible"):
        subprocess.run(
            [
                sys.executable,
                str(ROOT / "examples" / "verify_artifact.py"),
                str(folder / "winner.onnx"),
                str(folder / "baseline.onnx"),
                str(options.data / "cifar10-test.parquet"),
            ],
            check=True,
        )


def _killer(client: Client, job_id: str) -> Callable[[Json], None]:
    """Kills the worker with SIGKILL once some trials are scored; prints what the job's rows looked like then."""
    done: list[float] = []

    def on_change(job: Json) -> None:
        trials = client.all_trials(job_id)
        scored = [t for t in trials if t["metric"] is not None]
        if done or len(scored) < 3:
            return
        done.append(time.monotonic())
        for process in psutil.Process().children(recursive=True):
            if "service.worker" in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
                states = {t["number"]: (t["state"], t["metric"], (t["fidelity"] or {}).get("samples")) for t in trials}
                print(f"killed the worker {process.pid} after {job['progress']['elapsed_s']} s; trials then: {states}")

    return on_change


def _show(client: Client, name: str, job: Json, seconds: float) -> None:
    trials = client.all_trials(job["id"])
    report = client.report(job["id"])
    print(f"\n== {name}: {job['state']}, {job['outcome']} after {seconds:.1f} s")
    print(f"   {job['reason']}")
    best, winner = job["best"], report["winner"]
    print(
        f"   validation {best['metric']:.4f} (uncompressed {job['baseline']['metric']:.4f}), "
        f"test {best['test_metric']:.4f} (uncompressed {report['test']['baseline_metric']:.4f})"
    )
    low, high = winner["latency"]["ratio_ci"]
    print(
        f"   latency {best['latency_ms']:.3f} ms, ratio {best['latency_ratio']:.4f} ({low:.4f} to {high:.4f}); "
        f"{best['size_bytes']} bytes, ratio {best['size_ratio']:.4f}"
    )
    for limit in report["limits"]:
        print(f"   {limit['field']}: {limit['value']:.4f}, over by {limit['excess']:.4f}; {limit['explanation']}")
    print(f"   trials: {report['counts']}; running rows left: {sum(t['state'] == 'running' for t in trials)}")
    gates = [
        sum(s["seconds"] for s in t["stages"] if s["name"] in ("shape", "export", "latency"))
        for t in trials
        if t["latency"] and not any(s["cached"] for s in t["stages"] if s["name"] == "latency")
    ]
    if gates:
        middle = statistics.median(gates)
        print(
            f"   gates (shape, export, bytes, latency; all attempts of a repair): median {middle:.2f} s of {len(gates)}"
        )
    told = report["explanation"]
    spent, foretold = told["spending"], told["predictions"]
    print(
        f"   seconds of all stages {spent['total_s']:.0f}, of them tuning candidates within the cost limits "
        f"{spent['feasible_tuning_share']:.1%}; candidates tuned though over them: {spent['tuned_over_budget']}"
    )
    print(
        f"   predicted before they were measured: {foretold['count']} candidates, median error of latency "
        f"{foretold['latency']['median_error']:.1%}, of size {foretold['size']['median_error']:.1%}"
    )


if __name__ == "__main__":
    main()
