"""Reads one uploaded dataset in a process of its own: `python -m service.dataset_child PATH MEMORY_BYTES`.

Decoding a stranger's images and tables must not block the API, fill its memory or bring it down. Prints one JSON
document: `{"description": …}` or `{"error": message}`.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from compressors.columns import describe_dataset
from compressors.errors import InvalidData


def main(path: str, memory_bytes: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    document: dict[str, Any]
    try:
        document = {"description": describe_dataset(Path(path)).to_json()}
    except InvalidData as error:
        document = {"error": str(error)}
    except MemoryError:
        document = {"error": f"needs more than {memory_bytes} bytes of memory; send a smaller or a split-up file"}
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
