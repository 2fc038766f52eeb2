"""Where the search is compared: two networks trained here on scikit-learn's digits, and the shared ResNet-20.

A cell is a network and a seed. For digits the seed decides the split, the network and the order of its training, so
that five seeds are five problems; ResNet-20 is one file, and its seed decides the search alone. The digits are the
1,797 real 8x8 scans that ship inside scikit-learn (Alpaydin & Kaynak 1998), a third each for tuning, for validation and
for the test, and each scan at five places: as it is and moved by one pixel to each side. Small networks feel that, and
candidates are not told apart by a handful of rows. A scan stays in one split with all its places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from compressors.columns import describe_dataset
from compressors.programs import load_program
from search.inputs import DatasetFile, JobInputs, ModelFile
from search.spec import JobSpec

SHARE = 1 / 3  # of the digits that each split gets
PLACES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # pixels down and right
BATCH = 32
PEAK_LEARNING_RATE = 4e-3
CIFAR_VALIDATION = (45_000, 50_000)  # rows that the shared ResNet-20 was not adapted on

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What one network brings. seconds: of tuning that each contestant gets. samples: that a baseline tunes each of its
    candidates on. parts: of the budget, as in a job's specification. seeds: how many cells a full run has."""

    seconds: float
    samples: int
    budget: Mapping[str, float]
    seeds: int


PROBLEMS: dict[str, Problem] = {
    "digits-cnn": Problem(seconds=20, samples=24_000, budget={"size_ratio": 0.04}, seeds=5),
    "digits-mlp": Problem(seconds=20, samples=60_000, budget={"size_ratio": 0.0145}, seeds=5),
    "resnet20": Problem(seconds=240, samples=10_000, budget={"latency_ratio": 0.45, "size_ratio": 0.25}, seeds=2),
}


class DigitsCnn(nn.Module):
    """Four 3x3 convolutions with batch norm, 16, 32, 32 and 64 channels wide. Input (batch, 1, 8, 8) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = _conv(1, 16), nn.BatchNorm2d(16)
        self.second, self.second_norm = _conv(16, 32), nn.BatchNorm2d(32)
        self.third, self.third_norm = _conv(32, 32), nn.BatchNorm2d(32)
        self.fourth, self.fourth_norm = _conv(32, 64), nn.BatchNorm2d(64)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.first_norm(self.first(image)))
        x = torch.relu(self.second_norm(self.second(x)))
        x = functional.max_pool2d(x, 2)
        x = torch.relu(self.third_norm(self.third(x)))
        x = torch.relu(self.fourth_norm(self.fourth(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class DigitsMlp(nn.Module):
    """64-256-256-128-10. Input (batch, 64) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 256)
        self.second = nn.Linear(256, 256)
        self.third = nn.Linear(256, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.first(image))
        x = torch.relu(self.second(x))
        logits: Tensor = self.head(torch.relu(self.third(x)))
        return logits


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


_NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # shape of an image, epochs
    "digits-cnn": (DigitsCnn, (1, 8, 8), 8),
    "digits-mlp": (DigitsMlp, (64,), 12),
}


def cell_inputs(network: str, seed: int, folder: Path, data: Path, search: Mapping[str, Any]) -> JobInputs:
    """A job for this cell whose files lie in `folder` (made there if they are not there yet).

    data: folder of the shared ResNet-20 and CIFAR-10. search: fields of the specification's `search`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if network in _NETWORKS:
        model, rows, spec = _digits(network, seed, folder)
    else:
        model = data / "resnet20-cifar10.pt2"
        rows = {name: data / f"cifar10-{name}.parquet" for name in ("train", "test")}
        spec = {
            "train": "train",
            "test": "test",
            "inputs": ["image"],
            "target": "label",
            "validation_rows": CIFAR_VALIDATION,
        }
    return JobInputs(
        job_id=f"{network}-{seed}",
        spec=JobSpec.model_validate(
            {
                "model": network,
                "data": spec,
                "budget": dict(PROBLEMS[network].budget),
                "techniques": ["structured_pruning", "quantization", "distillation"],
                "search": {"seed": seed, "parallel": 1, **search},
            }
        ),
        model=ModelFile(path=model, sha256=_sha256(model), description=load_program(model).description),
        datasets={
            name: DatasetFile(path=path, sha256=_sha256(path), description=describe_dataset(path))
            for name, path in rows.items()
        },
        workspace=folder / "job",
        cache=folder / "cache",
    )


def _digits(network: str, seed: int, folder: Path) -> tuple[Path, dict[str, Path], dict[str, Any]]:
    factory, shape, epochs = _NETWORKS[network]
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32).reshape(-1, 8, 8), labels.astype(np.int64)
    kept, test, kept_labels, test_labels = train_test_split(
        images, labels, test_size=SHARE, stratify=labels, random_state=seed
    )
    tuning, validation, tuning_labels, validation_labels = train_test_split(
        kept, kept_labels, test_size=SHARE / (1 - SHARE), stratify=kept_labels, random_state=seed
    )
    parts = {
        "tuning": _moved(tuning, tuning_labels),
        "validation": _moved(validation, validation_labels),
        "test": _moved(test, test_labels),
    }
    rows = {name: folder / f"{name}.npz" for name in parts}
    model = folder / "model.pt2"
    if not model.exists():
        for name, (x, y) in parts.items():
            np.savez(rows[name], image=x.reshape(-1, *shape), label=y)
        images, labels = parts["tuning"]
        trained = _trained(factory, images.reshape(-1, *shape), labels, epochs, seed)
        partial = folder / "partial.pt2"
        torch.export.save(_export(trained, shape), partial)
        partial.replace(model)
    data = {"train": "tuning", "validation": "validation", "test": "test", "inputs": ["image"], "target": "label"}
    return model, rows, data


def _trained(factory: Callable[[], nn.Module], images: Array, labels: Array, epochs: int, seed: int) -> nn.Module:
    """Deterministic for a seed."""
    torch.manual_seed(seed)
    network = factory().train()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-2)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), BATCH):
            loss = functional.cross_entropy(network(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def _moved(images: Array, labels: Array) -> tuple[Array, Array]:
    """(n, 8, 8) -> (5 n, 8, 8), and their labels."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    places = [padded[:, 1 + down : 9 + down, 1 + right : 9 + right] for down, right in PLACES]
    return np.concatenate(places), np.tile(labels, len(PLACES))


def _export(network: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=4096)
    return torch.export.export(network, (torch.zeros(2, *shape),), dynamic_shapes={"image": {0: batch}})


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
