"""Every family of networks through intake, export and the techniques: one table, exit code 1 if a cell fails.

python -m benchmarks.coverage [--family NAME ...] [--json FILE]

Needs no data. Errors of intake and export are the largest difference relative to the largest output, at another batch
size than the one that was traced; those of techniques are relative to the spread of the outputs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.coverage_cells import COLUMNS, CellResult, Column, FamilyContext, checked
from benchmarks.families import FAMILIES

COLUMNS_ACROSS = 5  # side by side; the others follow below

Row = Mapping[str, CellResult]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=sorted(FAMILIES), help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    options = parser.parse_args(arguments)
    # Small networks run faster on one thread, and the sums do not depend on the machine's cores.
    torch.set_num_threads(1)
    began = time.monotonic()
    rows = coverage(options.family or list(FAMILIES), COLUMNS)
    show(rows, COLUMNS, time.monotonic() - began)
    if options.json is not None:
        document = {name: {key: asdict(cell) for key, cell in row.items()} for name, row in rows.items()}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(cell.ok for row in rows.values() for cell in row.values()) else 1


def coverage(names: Sequence[str], columns: Sequence[Column]) -> dict[str, Row]:
    """Results by family and column."""
    rows: dict[str, Row] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            context = FamilyContext(FAMILIES[name], Path(folder))
            rows[name] = {column.name: checked(column, context) for column in columns}
    return rows


def show(rows: Mapping[str, Row], columns: Sequence[Column], seconds: float) -> None:
    console = Console()
    for start in range(0, len(columns), COLUMNS_ACROSS):
        shown = columns[start : start + COLUMNS_ACROSS]
        table = Table(box=None, header_style="bold")
        table.add_column("family")
        for column in shown:
            table.add_column(column.title, justify="right")
        for name, row in rows.items():
            cells = [row[column.name] for column in shown]
            table.add_row(name, *(cell.text if cell.ok else f"[red]{cell.text}[/red]" for cell in cells))
        console.print(table)
        console.print()
    every = [(name, key, cell) for name, row in rows.items() for key, cell in row.items()]
    for word, chosen in (
        ("does not apply", [c for c in every if not c[2].applies]),
        ("FAILED", [c for c in every if not c[2].ok]),
    ):
        for name, key, cell in chosen:
            console.print(f"{name}, {key}: {word}: {cell.reason}", markup=False, highlight=False)
    failed = sum(not cell.ok for _, _, cell in every)
    console.print(f"{len(rows)} families, {len(every)} cells, {failed} failed, {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
