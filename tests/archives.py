"""Models that tests write to disk: a benign one, and the same with one thing made hostile."""

from __future__ import annotations

import copy
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"


class TinyNetwork(nn.Module):
    """3x8x8 images to 4 classes, with a constant, a buffer and a normalisation."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 4)
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.conv(image - self.mean))).mean((2, 3))
        logits: torch.Tensor = self.head(hidden) + torch.tensor([0.0, 0.1, 0.2, 0.3])
        return logits


def write_tiny_model(path: Path, *, dynamic_batch: bool = True) -> Path:
    """A real .pt2 of TinyNetwork, as a user would make it."""
    torch.manual_seed(0)
    shapes = {"image": {0: torch.export.Dim("batch")}} if dynamic_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(TinyNetwork().eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=shapes)
        torch.export.save(program, path)
    return path


Members = dict[str, bytes]


def read_members(path: Path) -> Members:
    """Members of a .pt2 by their name below the top folder."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write_members(path: Path, members: Mapping[str, bytes], root: str = "model") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{root}/{name}", content)
    return path


def edit_json(members: Members, name: str, change: Callable[[Any], None]) -> Members:
    """A copy of `members` with one JSON member changed in place by `change`."""
    document = copy.deepcopy(json.loads(members[name]))
    change(document)
    return {**members, name: json.dumps(document).encode()}


class TouchFile:
    """Unpickling an instance creates the file: the payload of the hostile archives."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def payload(marker: Path) -> bytes:
    """A plain pickle that creates `marker` when it is read."""
    return pickle.dumps(TouchFile(marker), protocol=2)


def torch_payload(marker: Path, protocol: int = 2) -> bytes:
    """The same as torch.save writes it; torch.load(weights_only=False) creates `marker`."""
    buffer = io.BytesIO()
    torch.save(((TouchFile(marker),), {}), buffer, pickle_protocol=protocol)
    return buffer.getvalue()


def first_weight(document: Any) -> dict[str, Any]:
    """The entry of one weight in the document of WEIGHTS."""
    entry: dict[str, Any] = document["config"]["conv.weight"]
    return entry


def add_constant(members: Members, path_name: str, content: bytes, *, use_pickle: bool) -> Members:
    """Adds a constant that torch.export.load reads from `path_name`."""

    def change(document: Any) -> None:
        document["config"]["extra"] = {
            "path_name": path_name,
            "is_param": False,
            "use_pickle": use_pickle,
            "tensor_meta": None,
        }

    return {**edit_json(members, CONSTANTS, change), f"data/constants/{path_name}": content}


def zip_bomb(path: Path, members: Members, size: int = 300_000_000) -> Path:
    """A weight of `size` zeros, deflated to a thousandth."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            if name == "data/weights/weight_0":
                with archive.open(f"model/{name}", "w") as target:
                    for _ in range(size // 1_000_000):
                        target.write(bytes(1_000_000))
            else:
                archive.writestr(f"model/{name}", content)
    return path
