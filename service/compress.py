"""The process behind `bantam compress`: `python -m service.compress REQUEST`, a JSON document made by the command."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from compressors.errors import CompressorError
from compressors.recipe import Recipe
from search.compression import Compressed, DoesNotFit, Request, compress
from search.spec import JobSpec
from service import wording
from service.cli_options import REFUSED, complain, console, print_json


def main(document: str) -> int:
    asked = json.loads(document)
    try:
        with tempfile.TemporaryDirectory(prefix="bantam-compress-") as folder:
            found = compress(
                Request(
                    model=Path(asked["model"]),
                    recipe=Recipe.from_json(asked["recipe"]),
                    folder=Path(folder),
                    spec=_spec(asked),
                    datasets={name: Path(path) for name, path in asked["datasets"].items()},
                    models={name: Path(path) for name, path in asked["models"].items()},
                    seed=asked["seed"],
                    threads=asked["threads"],
                )
            )
    except ValidationError as error:
        for problem in error.errors():
            complain(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}")
        return REFUSED
    except DoesNotFit as error:
        for fault in error.problems:
            complain(f"{fault.field}: {fault.message}")
        return REFUSED
    except CompressorError as error:
        complain(error)
        return REFUSED
    output = Path(asked["output"])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(found.content)
    if asked["json"]:
        print_json(summary(found, output))
    else:
        _show(found, output)
    return 0


def _spec(asked: dict[str, Any]) -> JobSpec | None:
    if asked["spec"] is None:
        return None
    # A job needs a budget; here nothing is held against it.
    return JobSpec.model_validate(
        {**asked["spec"], "model": "model", "budget": {"latency_ratio": 1.0}, "search": {"seed": asked["seed"]}}
    )


def summary(found: Compressed, output: Path) -> dict[str, Any]:
    """What --json prints."""
    sides = {
        name: {
            "size_bytes": side.size_bytes,
            "parameters": side.parameters,
            "macs": side.macs,
            "latency_ms": side.latency_ms,
            "metric": side.metric,
        }
        for name, side in (("baseline", found.baseline), ("result", found.result))
    }
    return {
        **sides,
        "output": str(output),
        "sha256": hashlib.sha256(found.content).hexdigest(),
        "size_ratio": found.result.size_bytes / found.baseline.size_bytes,
        "latency_ratio": found.latency_ratio,
        "latency_ratio_ci": list(found.latency_ratio_ci),
        "noisy": found.noisy,
        "metric_name": found.metric_name,
        "metric_error": found.metric_error,
        "seconds": found.seconds,
    }


def _show(found: Compressed, output: Path) -> None:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("", "original", "compressed", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    before, after = found.baseline, found.result
    if before.metric is not None and after.metric is not None:
        error = f" ± {found.metric_error:.4f}" if found.metric_error else ""
        change = f"{after.metric - before.metric:+.4f}{error}"
        table.add_row(found.metric_name or "metric", f"{before.metric:.4f}", f"{after.metric:.4f}", change)
    low, high = found.latency_ratio_ci
    table.add_row(
        "latency",
        f"{before.latency_ms:.3f} ms",
        f"{after.latency_ms:.3f} ms",
        f"{found.latency_ratio:.3f} ({low:.3f} to {high:.3f}{', noisy' if found.noisy else ''})",
    )
    rows = (
        ("file", before.size_bytes, after.size_bytes, wording.file_size),
        ("parameters", before.parameters, after.parameters, wording.count),
        ("multiply-adds", before.macs, after.macs, wording.count),
    )
    for name, one, other, say in rows:
        table.add_row(name, say(one), say(other), f"{other / max(one, 1):.3f}")
    console.print(table)
    console.print(Text(f"written to {output} after {found.seconds:.1f} s"), highlight=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
