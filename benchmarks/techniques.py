"""Every technique at three levels on ResNet-20: bytes, latency ratio, test accuracy without and with a short tuning.

python -m benchmarks.techniques [--data FOLDER] [--output FOLDER] [--only ROW ...] [--samples N] [--seed N]

Beside a figure stands the one of a public tool that does the same thing, on the same rows and, where it is tuned, with
the same loop. Levels are fixed beforehand, and nothing is chosen by what the test split says. Results are written as
they are known to results.jsonl, and a second run goes on where the first one ended. Takes about an hour on two cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnx
from torch import fx

from benchmarks.technique_rows import ROWS, Level, Row
from compressors.artifact import build_artifact
from compressors.batch_norm_statistics import reestimate
from compressors.columns import describe_dataset
from compressors.latency import measure
from compressors.onnx_export import export_onnx, serialize
from compressors.pipeline import run_recipe
from compressors.programs import load_program
from compressors.recipe import Distillation, Recipe
from compressors.registry import Context
from search.inputs import DatasetFile, JobInputs, ModelFile
from search.spec import JobSpec
from search.variants import combined
from search.workbench import Workbench

ROOT = Path(__file__).resolve().parent.parent
TUNING = Distillation(samples=6400, learning_rate=0.02, temperature=4.0, alpha=0.9)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Figures of one file. tuned, tuned_seconds: None where the technique cannot be tuned afterwards, or is not."""

    size_bytes: int
    latency_ratio: float
    untuned: float
    tuned: float | None
    seconds: float
    tuned_seconds: float | None = None
    tuned_size_bytes: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "techniques")
    parser.add_argument("--only", action="append", metavar="ROW", help="this row alone; may be repeated")
    parser.add_argument("--samples", type=int, default=TUNING.samples, help="of each tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    log = options.output / "results.jsonl"
    known = {}
    if log.exists():
        known = {(r["row"], r["level"], r["tool"], r["seed"]): r for r in map(json.loads, log.read_text().splitlines())}
    bench = workbench(options.data, options.output, seed=options.seed, threads=options.threads)
    runner = Runner(bench, replace(TUNING, samples=options.samples), options.output)
    if ("original", "float32", "bantam", options.seed) not in known:
        _note(log, known, "original", "float32", "bantam", options.seed, runner.original())
    wanted = set(options.only or ())
    for row in ROWS:
        if wanted and row.name not in wanted:
            continue
        for level in row.levels:
            for tool in ("bantam", *row.public):
                if (row.name, level.label, tool, options.seed) in known:
                    continue
                try:
                    cell = runner.ours(row, level) if tool == "bantam" else runner.public(row, level, tool)
                except Exception as error:  # one cell must not end an hour of others; the table shows it
                    print(f"{row.name} {level.label} {tool}: {type(error).__name__}: {error}", flush=True)
                    continue
                _note(log, known, row.name, level.label, tool, options.seed, cell)
    print(table(known))


def workbench(data: Path, output: Path, *, seed: int, threads: int) -> Workbench:
    """Rows 0..44,999 of train for tuning and calibration, the test rows for scoring."""
    spec = JobSpec.model_validate(
        {
            "model": "resnet20",
            "data": {
                "train": "train",
                "test": "test",
                "inputs": ["image"],
                "target": "label",
                "validation_rows": [45000, 50000],
            },
            "budget": {"latency_ratio": 1.0},
            "search": {"seed": seed},
        }
    )
    files = {}
    for name in ("train", "test"):
        path = data / f"cifar10-{name}.parquet"
        files[name] = DatasetFile(path=path, sha256=f"cifar10-{name}", description=describe_dataset(path))
    program = data / "resnet20-cifar10.pt2"
    model = ModelFile(path=program, sha256="resnet20-cifar10", description=load_program(program).description)
    inputs = JobInputs(
        job_id="techniques", spec=spec, model=model, datasets=files, workspace=output, cache=output / "cache"
    )
    return Workbench(inputs, threads=threads)


class Runner:
    """Makes and measures one file after another."""

    def __init__(self, bench: Workbench, tuning: Distillation, folder: Path) -> None:
        self.bench, self.tuning, self._folder = bench, tuning, folder
        self._baseline = folder / "baseline.onnx"
        self._baseline.write_bytes(serialize(export_onnx(bench.program.module, bench.example)))

    def original(self) -> Cell:
        content = self._baseline.read_bytes()
        return Cell(size_bytes=len(content), latency_ratio=1.0, untuned=self._score(content), tuned=None, seconds=0.0)

    def ours(self, row: Row, level: Level) -> Cell:
        began = time.monotonic()
        plain = self._run(combined(level.statistics, level.steps))
        cell = self._cell(plain, began)
        if not row.tunable:
            return cell
        began = time.monotonic()
        return self._with_tuned(cell, self._run(combined([self.tuning], level.steps)), began)

    def public(self, row: Row, level: Level, tool: str) -> Cell:
        """A tool gives an ONNX file, or a module, which is then tuned by our loop like our own."""
        began = time.monotonic()
        made = row.public[tool](self.bench, level)
        if isinstance(made, onnx.ModelProto):
            return self._cell(serialize(made), began)
        if level.statistics:
            reestimate(made, self.bench.context.batches())
        cell = self._cell(serialize(build_artifact(made, self.bench.example)), began)
        if not row.tunable:
            return cell
        began = time.monotonic()
        tuned: fx.GraphModule = copy.deepcopy(made)
        assert self.bench.context.training is not None
        self.bench.context.training.tune(tuned, self.tuning, seed=self.bench.seed)
        return self._with_tuned(cell, serialize(build_artifact(tuned.eval(), self.bench.example)), began)

    def _cell(self, content: bytes, began: float) -> Cell:
        """began: when the making of the file began."""
        seconds = time.monotonic() - began
        latency = self._latency(content)
        return Cell(
            size_bytes=len(content),
            latency_ratio=latency,
            untuned=self._score(content),
            tuned=None,
            seconds=seconds,
        )

    def _with_tuned(self, cell: Cell, content: bytes, began: float) -> Cell:
        seconds = time.monotonic() - began
        return replace(cell, tuned=self._score(content), tuned_seconds=seconds, tuned_size_bytes=len(content))

    def _run(self, recipe: Recipe) -> bytes:
        context: Context = self.bench.context
        return serialize(build_artifact(run_recipe(self.bench.program.module, recipe, context), self.bench.example))

    def _score(self, content: bytes) -> float:
        path = self._folder / "candidate.onnx"
        path.write_bytes(content)
        return self.bench.evaluate(path, self.bench.splits.test, alone=True).metric

    def _latency(self, content: bytes) -> float:
        path = self._folder / "candidate.onnx"
        path.write_bytes(content)
        sessions = self.bench.session(path), self.bench.session(self._baseline)
        with self.bench.slot.exclusive():
            return measure(*sessions, self.bench.latency_inputs, seed=self.bench.seed).ratio


Known = dict[tuple[str, str, str, int], dict[str, object]]


def _note(log: Path, known: Known, row: str, level: str, tool: str, seed: int, cell: Cell) -> None:
    record = {"row": row, "level": level, "tool": tool, "seed": seed, **asdict(cell)}
    known[row, level, tool, seed] = record
    with log.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps(record), flush=True)


def table(known: Known) -> str:
    """Markdown; a public tool's line stands below ours."""
    lines = [
        "| technique | level | tool | bytes | latency ratio | test top-1 | after tuning |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in known.values():
        tuned = record["tuned"]
        lines.append(
            f"| {record['row']} | {record['level']} | {record['tool']} | {record['size_bytes']:,} "
            f"| {record['latency_ratio']:.3f} | {record['untuned']:.4f} | {'' if tuned is None else f'{tuned:.4f}'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
