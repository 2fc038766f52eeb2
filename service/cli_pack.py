"""`bantam pack` and `bantam unpack`: an ONNX file in fewer bytes, for storing and sending. Need no running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.table import Table
from rich.text import Text

from compressors import packed_file
from compressors.errors import UnsupportedModel
from compressors.packed_reader import PackedFileError, decoded_tensors, expand, safetensors_bytes
from service import wording
from service.cli_options import REFUSED, JsonOption, complain, console, print_json

_SHOWN = 40


def pack(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A model, best one that Bantam compressed.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Left out: MODEL.bantam beside it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Pack an ONNX file: Huffman codes for weights, deflate for the rest. `bantam unpack` gives the same file back."""
    target = output or model.with_suffix(".bantam")
    try:
        result = packed_file.pack(model.read_bytes())
        target.write_bytes(result.content)
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}; correct the path")
    except UnsupportedModel as error:
        _refuse(f"{model}: {error}")
    if as_json:
        print_json(
            {
                "file": str(target),
                "packed_bytes": len(result.content),
                "onnx_bytes": result.onnx_bytes,
                "zip_bytes": result.zip_bytes,
                "ratio": result.ratio,
                "tensors": {
                    name: {"coding": coding, "onnx_bytes": before, "packed_bytes": after}
                    for name, (coding, before, after) in result.coded.items()
                },
            }
        )
    else:
        _show(target, result)


def unpack(
    packed: Annotated[Path, typer.Argument(metavar="MODEL.bantam", help="What `bantam pack` wrote.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="*.onnx: the file that was packed; *.safetensors: its decoded weights."),
    ] = None,
) -> None:
    """Expand a packed file to ONNX, bit for bit, or to safetensors."""
    target = output or packed.with_suffix(".onnx")
    if target.suffix not in (".onnx", ".safetensors"):
        _refuse(f"--output {target}: must end in .onnx or .safetensors")
    try:
        content = expand(packed.read_bytes())
        target.write_bytes(content if target.suffix == ".onnx" else safetensors_bytes(decoded_tensors(content)))
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}; correct the path")
    except PackedFileError as error:
        _refuse(f"{packed}: {error}")
    console.print(Text(f"{target}: {wording.file_size(target.stat().st_size)}"), soft_wrap=True, highlight=False)


def _show(target: Path, packed: packed_file.Packed) -> None:
    sizes = (("onnx", packed.onnx_bytes), ("zip", packed.zip_bytes), ("bantam", len(packed.content)))
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("", "bytes", "of onnx"):
        table.add_column(name, justify="right" if name else "left")
    for name, size in sizes:
        table.add_row(name, f"{size:,}", wording.ratio(size / packed.onnx_bytes))
    console.print(Text(str(target), style="bold"), soft_wrap=True)
    console.print(table)
    if packed.coded:
        tensors = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for name in ("tensor", "coding", "from", "to"):
            tensors.add_column(name, justify="right" if name in ("from", "to") else "left")
        for name, (coding, before, after) in list(packed.coded.items())[:_SHOWN]:
            tensors.add_row(Text(name), coding, f"{before:,}", f"{after:,}")
        console.print(tensors)
        if len(packed.coded) > _SHOWN:
            console.print(f"and {len(packed.coded) - _SHOWN} more; --json lists all")


def _refuse(message: str) -> NoReturn:
    complain(message)
    raise typer.Exit(REFUSED)
