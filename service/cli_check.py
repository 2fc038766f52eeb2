"""`bantam check MODEL`: would the service take this model, and what does it see in it? Needs no running service."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from compressors.descriptions import LayerDescription, ModelDescription, TensorDescription
from compressors.errors import CompressorError
from compressors.intake import read_model
from service import wording
from service.cli_options import REFUSED, JsonOption, complain, console, print_json

SHOWN_LAYERS = 200


def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL.pt2", help="A program saved by torch.export.save.")],
    as_json: JsonOption = False,
) -> None:
    """Read a model as the service would, and print its inputs, layers, parameters and multiply-adds."""
    if not model.is_file():
        complain(f"{model}: no such file; give a .pt2 written by torch.export.save(torch.export.export(...), path)")
        raise typer.Exit(REFUSED)
    try:
        with tempfile.TemporaryDirectory(prefix="bantam-check-") as folder:
            description = read_model(model, Path(folder) / "model.pt2")
    except CompressorError as error:
        complain(f"{model}: {error}")
        raise typer.Exit(REFUSED) from error
    if as_json:
        print_json(description.to_json())
    else:
        _show(model, description)


def _show(path: Path, model: ModelDescription) -> None:
    macs = sum(layer.macs for layer in model.layers)
    console.print(Text(str(path), style="bold"), Text("can be compressed", style="green"))
    for role, tensors in (("input", model.inputs), ("output", model.outputs)):
        for tensor in tensors:
            console.print(Text(f"{role} {tensor.name}: {_shape(tensor)}"), highlight=False)
    console.print(
        Text(
            f"{len(model.layers)} layers, {wording.count(model.parameters)} parameters, {wording.count(macs)} "
            f"multiply-adds per sample, {wording.file_size(path.stat().st_size)}"
        ),
        highlight=False,
    )
    if not model.batch_is_dynamic:
        console.print("the batch size is fixed: export with a dynamic batch to score faster", style="yellow")
    console.print(_layers_table(model.layers[:SHOWN_LAYERS]))
    if len(model.layers) > SHOWN_LAYERS:
        console.print(f"and {len(model.layers) - SHOWN_LAYERS} more; --json lists all")


def _layers_table(layers: tuple[LayerDescription, ...]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("layer")
    table.add_column("kind")
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds", justify="right")
    for layer in layers:
        table.add_row(Text(layer.name), layer.kind, f"{layer.parameters:,}", f"{layer.macs:,}")
    return table


def _shape(tensor: TensorDescription) -> str:
    sizes = ", ".join("any" if n is None else str(n) for n in tensor.shape)
    return f"{tensor.dtype} ({sizes})"
