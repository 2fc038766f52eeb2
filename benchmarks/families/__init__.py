"""One small network of every family that compression has to understand, by name.

`FAMILIES[name]` builds a network and its inputs; `exported(name)` is its torch.export program with a free batch
dimension, made once per process; `export_pt2` writes it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from benchmarks.families import convolutional, mobile, recommenders, recurrent, transformers
from benchmarks.families.family import Family

__all__ = ["FAMILIES", "Family", "export_pt2", "exported"]

_FILES = (convolutional, mobile, transformers, recurrent, recommenders)
FAMILIES: Mapping[str, Family] = {family.name: family for file in _FILES for family in file.FAMILIES}


@functools.cache
def exported(name: str) -> ExportedProgram:
    """The program of `FAMILIES[name].build()`; leave it unchanged. Raises KeyError for an unknown name."""
    family = FAMILIES[name]
    inputs = family.inputs(batch=2)
    batch = Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        # Recurrent layers keep a second list of their weights, which the exporter warns about.
        warnings.filterwarnings("ignore", message="The tensor attributes .* were assigned during export")
        return torch.export.export(family.build(), inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))


def export_pt2(name: str, path: Path) -> Path:
    """Writes the program called `name` to `path` and returns it."""
    with warnings.catch_warnings():
        # What is said of tied weights, which are stored once.
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        torch.export.save(exported(name), path)
    return path
