"""How well the search spends its seconds, against random search, Optuna's TPE and NSGA-II over per-layer ratios.

python -m benchmarks.search_efficiency [--only digits-cnn,digits-mlp,resnet20] [--seeds N] [--seconds S] [--jobs N]
                                       [--contestants ...] [--ablate] [--data FOLDER] [--output FOLDER] [--docs]

Every contestant works in every cell (a network and a seed, see `search_cells`) for the same seconds of tuning
(`search_contest`), and answers with its best file within the budget by the validation split. `bantam` may use
structured pruning, quantisation and distillation, as the baselines (`search_baselines`) do; `bantam-all` whatever it
likes. --ablate compares the search with itself, one ingredient or all strategies but one removed. Standings are kept as
JSON, and a second run goes on where the first one ended. Tables, aggregates and curves (PNG) are made of all that are
there. The digits take about twenty minutes on two cores, ResNet-20 about as long again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.search_baselines import BASELINES, BaselineSearch
from benchmarks.search_cells import PROBLEMS, cell_inputs
from benchmarks.search_contest import Evaluator, Standing, TuningClock, quick_where_unlimited, warm_up
from benchmarks.search_figures import by_cell, closing_lines, draw, summary, table
from benchmarks.search_ours import ABLATIONS, MAX_TRIALS, max_seconds, run_ablated, run_ours, strategies
from search.inputs import JobInputs

ROOT = Path(__file__).resolve().parent.parent
CONTESTANTS = ("bantam", *BASELINES, "bantam-all")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """contestants: in the order in which they work. seconds, samples: left out, the network's own."""

    network: str
    seed: int
    contestants: tuple[str, ...]
    output: Path
    data: Path
    seconds: float | None = None
    samples: int | None = None

    @property
    def folder(self) -> Path:
        return self.output / f"{self.network}-{self.seed}"

    def path(self, contestant: str) -> Path:
        return self.folder / f"{contestant}.json"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "search-efficiency")
    parser.add_argument("--only", default=",".join(PROBLEMS), help="networks, separated by commas")
    parser.add_argument(
        "--seeds", type=int, help="how many, from --first-seed on; left out: 5 for digits, 2 for ResNet-20"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="of tuning for each contestant")
    parser.add_argument("--samples", type=int, help="on which baselines tune each of their candidates")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS))
    parser.add_argument(
        "--ablate", action="store_true", help="the search without one ingredient, and single strategies"
    )
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, one core each")
    parser.add_argument("--docs", action="store_true", help="write the curves to docs/images")
    options = parser.parse_args(arguments)
    contestants = tuple(options.contestants.split(","))
    if options.ablate:
        contestants = ("bantam", *ABLATIONS, *(f"strategy-{s}" for s in strategies() if s != "auto"))
    cells = [
        Cell(
            network=network,
            seed=seed,
            contestants=contestants,
            output=options.output,
            data=options.data,
            seconds=options.seconds,
            samples=options.samples,
        )
        for network in options.only.split(",")
        for seed in range(options.first_seed, options.first_seed + (options.seeds or PROBLEMS[network].seeds))
    ]
    _play_all(cells, options.jobs)
    report(cells, options.output, ROOT / "docs" / "images" if options.docs else options.output)


def report(cells: Sequence[Cell], output: Path, pictures: Path) -> None:
    """Prints tables and aggregates of the standings that these cells have, writes them as JSON and draws the curves."""
    paths = [cell.path(name) for cell in cells for name in cell.contestants]
    standings = by_cell(Standing.from_json(json.loads(p.read_text())) for p in paths if p.exists())
    networks = sorted({network for network, _ in standings})
    print(table(standings))
    ours = [c for c in ("bantam", "bantam-all") if any(c in found for found in standings.values())]
    summaries = {"all": [summary(standings, name) for name in ours]}
    for network in networks:
        mine = {cell: found for cell, found in standings.items() if cell[0] == network}
        summaries[network] = [summary(mine, name) for name in ours]
    for where, found in summaries.items():
        print(f"\n== {where}", *(closing_lines(one) for one in found), sep="\n")
    (output / "summary.json").write_text(json.dumps(summaries, indent=1))
    for path in draw(standings, pictures):
        print(f"curves: {path}")


def _play_all(cells: Sequence[Cell], jobs: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # of this process's children too
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        playing = {pool.submit(play, cell): cell for cell in cells}
        for done in as_completed(playing):
            done.result()


def play(cell: Cell) -> None:
    """Every contestant that has no standing yet, one after another, on one thread."""
    torch.set_num_threads(1)
    missing = [name for name in cell.contestants if not cell.path(name).exists()]
    problem = PROBLEMS[cell.network]
    seconds, samples = cell.seconds or problem.seconds, cell.samples or problem.samples
    search = {"max_seconds": max_seconds(seconds), "max_trials": MAX_TRIALS}
    inputs = cell_inputs(cell.network, cell.seed, cell.folder, cell.data, search)
    if missing:
        warm_up(inputs)
    for name in missing:
        workspace = cell.folder / "work" / name
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        own, clock = replace(inputs, workspace=workspace), TuningClock()
        with clock.counting(), quick_where_unlimited(inputs):
            standing = compete(name, own, clock, seconds=seconds, samples=samples)
        standing.write(cell.path(name))
        print(
            f"{cell.network} {cell.seed} {name}: {standing.answer} (test {standing.test}) after "
            f"{standing.tuning_s:.1f} tuning seconds, {standing.wall_s:.0f} s in all; {standing.reason}",
            flush=True,
        )
        shutil.rmtree(workspace)


def compete(name: str, inputs: JobInputs, clock: TuningClock, *, seconds: float, samples: int) -> Standing:
    """One contestant in one cell. inputs: with a workspace of its own and the three techniques allowed."""
    if name in BASELINES:
        return BaselineSearch(BASELINES[name], Evaluator(inputs, clock), seconds=seconds, samples=samples).run(name)
    if name in ABLATIONS:
        return run_ablated(inputs, clock, name, seconds=seconds, samples=samples)
    spec = inputs.spec
    if name == "bantam-all":
        spec = spec.model_copy(update={"techniques": None})
    elif name.startswith("strategy-"):
        search = spec.search.model_copy(update={"strategy": name.removeprefix("strategy-")})
        spec = spec.model_copy(update={"search": search})
    return run_ours(replace(inputs, spec=spec), clock, name, seconds=seconds)


if __name__ == "__main__":
    main()
