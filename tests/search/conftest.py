"""A small network trained on handwritten digits, and its rows: made once per test run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from compressors.columns import describe_dataset
from compressors.programs import load_program
from search.inputs import DatasetFile, JobInputs, ModelFile
from search.spec import JobSpec
from tests.files import encode_image, write_parquet
from tests.models import BasicBlock, conv_bn, export_pt2

EPOCHS = 8


class DigitResNet(nn.Module):
    """Residual blocks whose shortcuts are a slice and a channel pad; input (batch, 3, 8, 8), ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.layer1 = BasicBlock(16, 16, 1)
        self.layer2 = BasicBlock(16, 32, 2)
        self.linear = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(functional.relu(self.stem(x))))
        out: Tensor = self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return out


@dataclass(frozen=True)
class Digits:
    """model: a trained DigitResNet as .pt2; train, test: parquet of PNG and label."""

    model: Path
    train: Path
    test: Path

    def job(self, workspace: Path, cache: Path, **changes: object) -> JobInputs:
        document: dict[str, object] = {
            "model": "m",
            "data": {
                "train": "train",
                "test": "test",
                "inputs": ["image"],
                "target": "label",
                "validation_fraction": 0.2,
            },
            "budget": {"size_ratio": 0.09},
            "search": {"max_seconds": 90, "parallel": 2, "max_trials": 6},
        }
        document.update(changes)
        workspace.mkdir(parents=True, exist_ok=True)
        return JobInputs(
            job_id="job",
            spec=JobSpec.model_validate(document),
            model=ModelFile(
                path=self.model, sha256=_sha256(self.model), description=load_program(self.model).description
            ),
            datasets={name: _dataset(path) for name, path in (("train", self.train), ("test", self.test))},
            workspace=workspace,
            cache=cache,
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _dataset(path: Path) -> DatasetFile:
    return DatasetFile(path=path, sha256=_sha256(path), description=describe_dataset(path))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    folder = tmp_path_factory.mktemp("digits")
    data = load_digits()
    pixels = np.repeat((data.images * 15.9).astype(np.uint8)[..., None], 3, axis=3)
    order = np.random.default_rng(0).permutation(len(pixels))
    parts = {"train": order[:1300], "test": order[1300:]}
    for name, rows in parts.items():
        write_parquet(
            folder / f"{name}.parquet",
            {"image": [encode_image(pixels[r]) for r in rows], "label": data.target[rows].astype(np.int64)},
        )
    torch.manual_seed(0)
    model = DigitResNet()
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2)[parts["train"]]).float() / 255
    labels = torch.from_numpy(data.target[parts["train"]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch)).split(64):  # type: ignore[no-untyped-call]
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    export_pt2(model.eval(), folder / "model.pt2", (images[:2],))
    return Digits(folder / "model.pt2", folder / "train.parquet", folder / "test.parquet")
