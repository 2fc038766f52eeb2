"""Makes what the demo uploads: a small network trained on scikit-learn's handwritten digits, and the digits as tables.

python -m service.demo_model FOLDER writes model.pt2, train.parquet and test.parquet and prints one JSON line.
The data are the 1,797 real 8x8 scans that ship inside scikit-learn (Alpaydin & Kaynak 1998), so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

SEED = 0
EPOCHS = 8
BATCH = 64
TEST_ROWS = 450
PEAK_LEARNING_RATE = 5e-3

Pixels = NDArray[np.uint8]  # (rows, 8, 8), 0..255
Labels = NDArray[np.int64]  # (rows,), 0..9


class DigitNet(nn.Module):
    """Five 3x3 convolutions with batch norm, two of them a residual block. Input (batch, 3, 8, 8) in [0, 1].

    Three equal channels because an encoded image is decoded to RGB wherever Bantam reads one.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem, self.stem_norm = _conv(3, width), nn.BatchNorm2d(width)
        self.inner, self.inner_norm = _conv(width, width), nn.BatchNorm2d(width)
        self.outer, self.outer_norm = _conv(width, width), nn.BatchNorm2d(width)
        self.deep, self.deep_norm = _conv(width, 2 * width), nn.BatchNorm2d(2 * width)
        self.last, self.last_norm = _conv(2 * width, 2 * width), nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(image)))
        y = torch.relu(self.inner_norm(self.inner(x)))
        x = torch.relu(self.outer_norm(self.outer(y)) + x)
        x = functional.max_pool2d(x, 2)
        x = torch.relu(self.deep_norm(self.deep(x)))
        x = torch.relu(self.last_norm(self.last(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def digits() -> tuple[Pixels, Labels, Pixels, Labels]:
    """Train and test rows, stratified by digit and shuffled with a fixed seed."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    train, test, train_labels, test_labels = train_test_split(
        pixels, labels.astype(np.int64), test_size=TEST_ROWS, stratify=labels, random_state=SEED
    )
    return train, train_labels, test, test_labels


def as_input(pixels: Pixels) -> Tensor:
    """(rows, 8, 8) bytes -> (rows, 3, 8, 8) float32 in [0, 1]."""
    return torch.from_numpy(pixels).float().div(255).unsqueeze(1).repeat(1, 3, 1, 1)


def shifted(batch: Tensor) -> Tensor:
    """Each batch moved by up to one pixel, the only augmentation that eight pixels bear."""
    down, right = (int(n) for n in torch.randint(-1, 2, (2,)))
    padded = functional.pad(batch, (1, 1, 1, 1))
    return padded[:, :, 1 + down : 9 + down, 1 + right : 9 + right]


def train(pixels: Pixels, labels: Labels) -> DigitNet:
    torch.manual_seed(SEED)
    model = DigitNet()
    x, y = as_input(pixels), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-2)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(x)), BATCH):
            loss = functional.cross_entropy(model(shifted(x[rows])), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, pixels: Pixels, labels: Labels) -> float:
    with torch.no_grad():
        return float((model(as_input(pixels)).argmax(1) == torch.from_numpy(labels)).float().mean())


def export(model: nn.Module, path: Path) -> None:
    """Writes a .pt2 whose batch size is free."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, path)


def write_table(path: Path, pixels: Pixels, labels: Labels) -> None:
    """Columns `image` (PNG bytes) and `label` (int64)."""
    pq.write_table(pa.table({"image": [_png(p) for p in pixels], "label": labels}), path)


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the network is too small to share out; more threads only wait for each other
    started = time.perf_counter()
    train_pixels, train_labels, test_pixels, test_labels = digits()
    model = train(train_pixels, train_labels)
    export(model, folder / "model.pt2")
    write_table(folder / "train.parquet", train_pixels, train_labels)
    write_table(folder / "test.parquet", test_pixels, test_labels)
    print(
        json.dumps(
            {
                "test_accuracy": accuracy(model, test_pixels, test_labels),
                "train_rows": len(train_labels),
                "test_rows": len(test_labels),
                "parameters": sum(p.numel() for p in model.parameters()),
                "seconds": round(time.perf_counter() - started, 1),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
