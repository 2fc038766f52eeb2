"""python -m packed_reader MODEL.bantam OUTPUT(.onnx|.safetensors)"""

from __future__ import annotations

import sys
from pathlib import Path

from . import PackedFileError, decoded_tensors, expand, safetensors_bytes


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or Path(arguments[1]).suffix not in (".onnx", ".safetensors"):
        print("usage: python -m packed_reader MODEL.bantam OUTPUT.onnx|OUTPUT.safetensors", file=sys.stderr)
        return 2
    source, target = (Path(argument) for argument in arguments)
    try:
        content = expand(source.read_bytes())
        target.write_bytes(content if target.suffix == ".onnx" else safetensors_bytes(decoded_tensors(content)))
    except (OSError, PackedFileError) as error:
        print(f"error: {source}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
