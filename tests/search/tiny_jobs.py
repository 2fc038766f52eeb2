"""A tiny trained network and its rows for every task: small enough for a whole search to end in seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from compressors.columns import describe_dataset
from compressors.programs import load_program
from compressors.tasks import Task, TaskOptions, task
from search.inputs import DatasetFile, JobInputs, ModelFile
from search.spec import JobSpec
from tests.files import encode_image
from tests.models import export_pt2

Array = npt.NDArray[Any]
ROWS = 600
LENGTH = 8
TOKENS = 12


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """inputs, target: as the network and the task take them. columns: as the dataset holds them, target as 'y'."""

    network: nn.Module
    inputs: Tensor
    target: Array
    columns: dict[str, Any]
    data: dict[str, Any]
    job: dict[str, Any] = field(default_factory=dict)
    options: TaskOptions | None = None


def tiny_job(name: str, folder: Path, **changes: Any) -> JobInputs:
    """name: of the task. Trains the network, exports it and writes the rows; some seconds."""
    tiny = _TINY[name]()
    subject = task(name, tiny.options).prepared(tiny.target)
    _train(tiny.network, subject, tiny.inputs, torch.from_numpy(tiny.target))
    folder.mkdir(parents=True, exist_ok=True)
    model = export_pt2(tiny.network, folder / "model.pt2", (tiny.inputs[:2],))
    rows = folder / "rows.parquet"
    pq.write_table(pa.table(tiny.columns), rows)
    document: dict[str, Any] = {
        "model": "m",
        "task": name,
        "data": {"train": "rows", "target": "y", "validation_fraction": 0.2, **tiny.data},
        "budget": {"size_ratio": 0.5},
        "search": {"max_seconds": 40, "parallel": 1, "max_trials": 5},
        **tiny.job,
    }
    document.update(changes)
    return JobInputs(
        job_id=name,
        spec=JobSpec.model_validate(document),
        model=ModelFile(path=model, sha256=_sha256(model), description=load_program(model).description),
        datasets={"rows": DatasetFile(path=rows, sha256=_sha256(rows), description=describe_dataset(rows))},
        workspace=folder / "job",
        cache=folder / "cache",
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _train(network: nn.Module, subject: Task, inputs: Tensor, target: Tensor, epochs: int = 30) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(epoch)
        for at in torch.randperm(len(inputs), generator=generator).split(50):  # type: ignore[no-untyped-call]
            loss = subject.loss(network(inputs[at]), target[at])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network.eval()


# --- networks ---------------------------------------------------------------------------------------------------------


def _perceptron(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, outputs))


class _Tokens(nn.Module):
    """(rows, length) ids -> (rows, length, outputs); each position sees the two before it as well."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(TOKENS, 16)
        self.hidden = nn.Linear(48, 96)
        self.output = nn.Linear(96, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        one = nn.functional.pad(x, (0, 0, 1, 0))[:, :LENGTH]
        two = nn.functional.pad(x, (0, 0, 2, 0))[:, :LENGTH]
        out: Tensor = self.output(torch.relu(self.hidden(torch.cat([x, one, two], dim=2))))
        return out


class _Pixels(nn.Module):
    """(rows, 3, 8, 8) -> (rows, 3 classes, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(3, 24, 3, padding=1)
        self.two = nn.Conv2d(24, 24, 3, padding=1)
        self.head = nn.Conv2d(24, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.two(torch.relu(self.one(x)))))
        return out


# --- rows -------------------------------------------------------------------------------------------------------------


def _features() -> tuple[Array, Array]:
    """(rows, 6) float32 and a smooth function of them, (rows, 3)."""
    x = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
    y = np.stack([x[:, 0] + np.sin(2 * x[:, 1]), x[:, 2] * x[:, 3], x[:, 4] - np.abs(x[:, 5])], axis=1)
    return x, y.astype(np.float32)


def _tabular(target: Array, outputs: int, **more: Any) -> Tiny:
    """target: (rows,) or (rows, outputs) as stored."""
    x, _ = _features()
    fields = {"x": list(x), "y": list(target) if target.ndim > 1 else target, **more.pop("columns", {})}
    options = more.get("options")
    kind = more.pop("task")
    return Tiny(
        network=_perceptron(outputs),
        inputs=torch.from_numpy(x),
        target=task(kind, options).as_target(target),
        columns=fields,
        data={"inputs": ["x"], **more.pop("data", {})},
        **more,
    )


def _regression() -> Tiny:
    return _tabular(200 + 50 * _features()[1][:, :2], 2, task="regression")


def _binary() -> Tiny:
    return _tabular(_features()[1][:, 0] > 0.3, 1, task="binary")


def _multi_label() -> Tiny:
    return _tabular((_features()[1] > [0.0, 0.5, 1.0]).astype(np.int64), 3, task="multi_label")


def _classification() -> Tiny:
    return _tabular(np.digitize(_features()[1][:, 0], [-0.7, 0.7]), 3, task="classification")


def _ranking() -> Tiny:
    grades = np.digitize(_features()[1][:, 0], [-0.5, 0.5, 1.5])
    return _tabular(
        grades,
        1,
        task="ranking",
        columns={"query": np.arange(ROWS) // 10},
        data={"group": "query"},
        job={"metric": "ndcg@5"},
        options=TaskOptions(metric="ndcg@5"),
    )


def _segmentation() -> Tiny:
    """The class of a pixel is the brightest of its channels, blurred; a border that does not count."""
    images = np.random.default_rng(0).integers(0, 256, (ROWS // 2, 8, 8, 3)).astype(np.uint8)
    blurred = images.astype(np.float32)
    blurred[:, 1:-1, 1:-1] += images[:, :-2, 1:-1].astype(np.float32) + images[:, 2:, 1:-1]
    masks = blurred.argmax(axis=3).astype(np.uint8)
    masks[:, 0] = 255
    return Tiny(
        network=_Pixels(),
        inputs=torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255),
        target=masks.astype(np.int64),
        columns={"x": [encode_image(i) for i in images], "y": [encode_image(m) for m in masks]},
        data={"inputs": ["x"]},
    )


def _sentences() -> tuple[list[list[int]], Array, Array]:
    """Sentences of different lengths from a noisy chain of tokens 1..11; their ids and targets when padded."""
    generator = np.random.default_rng(0)
    sentences = []
    for length in generator.integers(3, LENGTH + 3, ROWS):  # some are longer than what is kept
        tokens = [int(generator.integers(1, TOKENS))]
        while len(tokens) < length:
            follows = (3 * tokens[-1]) % (TOKENS - 1) + 1
            tokens.append(follows if generator.random() < 0.8 else int(generator.integers(1, TOKENS)))
        sentences.append(tokens)
    ids, target = np.zeros((ROWS, LENGTH), np.int64), np.full((ROWS, LENGTH), -100)
    for row, tokens in enumerate(sentences):
        kept = tokens[:LENGTH]
        ids[row, : len(kept)] = target[row, : len(kept)] = kept
    return sentences, ids, target


def _language_modelling() -> Tiny:
    sentences, ids, target = _sentences()
    return Tiny(
        network=_Tokens(TOKENS),
        inputs=torch.from_numpy(ids),
        target=target,
        columns={"y": sentences},
        data={"inputs": [{"column": "y", "pad_to": LENGTH}]},
    )


def _token_classification() -> Tiny:
    """The tag says whether a token is larger than the one before it, and by how much."""
    sentences, ids, padded = _sentences()
    steps = [np.digitize(np.diff(s, prepend=0), [-3, 1, 4]).tolist() for s in sentences]
    target = np.full_like(padded, -100)
    for row, tags in enumerate(steps):
        target[row, : len(tags[:LENGTH])] = tags[:LENGTH]
    return Tiny(
        network=_Tokens(4),
        inputs=torch.from_numpy(ids),
        target=target,
        columns={"x": sentences, "y": steps},
        data={"inputs": [{"column": "x", "pad_to": LENGTH}]},
    )


_TINY: dict[str, Callable[[], Tiny]] = {
    "classification": _classification,
    "binary": _binary,
    "multi_label": _multi_label,
    "regression": _regression,
    "ranking": _ranking,
    "segmentation": _segmentation,
    "token_classification": _token_classification,
    "language_modelling": _language_modelling,
}
NAMES = tuple(_TINY)
