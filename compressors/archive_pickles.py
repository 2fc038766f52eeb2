"""A look into the pickle of sample inputs without unpickling it.

torch.export.load unpickles sample inputs freely when the safe reader refuses them. The service never hands them to
torch at all; they are still inspected, so that a file which carries a payload is refused rather than quietly cleaned.
"""

from __future__ import annotations

import io
import pickletools
import re

from compressors.archive_container import ArchiveLimits, open_container
from compressors.archive_json import shorten
from compressors.errors import UnsafeArchive

_WHERE = "data/sample_inputs/model.pt"
_REMEDY = "export with plain tensors as example inputs and save again"
_HARMLESS = re.compile(
    r"torch\._utils _rebuild_(tensor_v2|tensor_v3|parameter)|torch(\.storage)? [A-Z][A-Za-z0-9]*Storage"
    r"|torch (Size|device|bool|u?int\d+|float\d+|bfloat16|complex\d+|float8_\w+)"
    r"|torch\.serialization _get_layout|collections OrderedDict",
    re.ASCII,
)
# Opcodes that look a name up in a way that cannot be read off the opcode itself, or build instances of classes.
_OPAQUE = frozenset({"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ", "NEWOBJ_EX"})


def check_sample_inputs(content: bytes, limits: ArchiveLimits) -> None:
    """content: the member as torch.save wrote it (a zip holding data.pkl), or nothing. Raises UnsafeArchive."""
    if not content:
        return
    try:
        with open_container(io.BytesIO(content), limits) as container:
            pickled = container.read("data.pkl", limits.pickle_bytes)
    except UnsafeArchive as error:
        raise UnsafeArchive(f"{_WHERE}: {error}; {_REMEDY}") from None
    for name in _looked_up(pickled):
        if _HARMLESS.fullmatch(name) is None:
            raise UnsafeArchive(
                f"{_WHERE}: the pickle calls {shorten(name)}; unpickling runs code of whoever wrote it; {_REMEDY}"
            )


def _looked_up(pickled: bytes) -> list[str]:
    names = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in _OPAQUE:
                raise UnsafeArchive(f"{_WHERE}: pickle instruction {opcode.name} can build any object; {_REMEDY}")
            if opcode.name == "GLOBAL":
                names.append(str(argument))
    except UnsafeArchive:
        raise
    except Exception as error:  # pickletools raises whatever a malformed operand leads to
        raise UnsafeArchive(f"{_WHERE}: not a readable pickle ({shorten(str(error))}); {_REMEDY}") from None
    return names
