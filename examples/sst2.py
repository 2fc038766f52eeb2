"""Trains a small text classifier on SST-2 and writes everything that a job needs: model, rows and the job itself.

python examples/sst2.py {transformer,lstm} --data FOLDER --output FOLDER [--epochs N]
    FOLDER with train.tsv, dev.tsv and test.tsv: `sentence<TAB>label`, no header.
bantam submit OUTPUT/job.yaml --watch

Words seen twice or more in the training sentences are the vocabulary; 0 pads, 1 stands for any other word.
"""

import argparse
import collections
import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

LENGTH = 48
PAD, UNKNOWN = 0, 1
WIDTH = 64
_WORD = re.compile(r"[a-z0-9']+|[^\sa-z0-9']")


class Encoder(nn.Module):
    """Token and position embeddings, two pre-norm transformer layers, the mean over real tokens."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, WIDTH, padding_idx=PAD)
        self.positions = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, ids: Tensor) -> Tensor:
        real = ids != PAD
        x = self.dropout(self.tokens(ids) + self.positions)
        for layer in self.layers:
            x = layer(x, real[:, None, None, :])
        weights = real.to(x.dtype)[:, :, None]
        mean = (self.norm(x) * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        out: Tensor = self.classifier(self.dropout(mean))
        return out


class EncoderLayer(nn.Module):
    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def split(projected: Tensor) -> Tensor:
            return projected.view(x.shape[0], LENGTH, self.heads, WIDTH // self.heads).transpose(1, 2)

        normed = self.norm1(x)
        attended = functional.scaled_dot_product_attention(
            split(self.query(normed)), split(self.key(normed)), split(self.value(normed)), attn_mask=mask
        )
        x = x + self.dropout(self.out(attended.transpose(1, 2).reshape(x.shape[0], LENGTH, WIDTH)))
        result: Tensor = x + self.dropout(self.down(self.dropout(functional.gelu(self.up(self.norm2(x))))))
        return result


class Lstm(nn.Module):
    """Embeddings, a bidirectional LSTM, the largest value over time."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, WIDTH, padding_idx=PAD)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.4)
        self.classifier = nn.Linear(2 * WIDTH, 2)

    def forward(self, ids: Tensor) -> Tensor:
        out, _ = self.lstm(self.dropout(self.tokens(ids)))
        hidden = out.masked_fill((ids == PAD)[:, :, None], -1.0)  # tanh times a gate lies above -1
        result: Tensor = self.classifier(self.dropout(hidden.amax(1)))
        return result


def initialize(table: nn.Embedding, ids: Tensor, labels: Tensor) -> None:
    """Small random numbers, but for the first of each word: its log-count ratio between the classes, which a few
    thousand sentences determine better than gradient descent does (Wang & Manning 2012, "Baselines and Bigrams")."""
    counts = torch.ones(2, table.num_embeddings)
    for label in (0, 1):
        for row in ids[labels == label]:
            counts[label, row.unique()] += 1
    shares = counts / counts.sum(1, keepdim=True)
    with torch.no_grad():
        table.weight.normal_(0, 0.1)
        table.weight[:, 0] = torch.log(shares[1] / shares[0])
        table.weight[PAD] = 0


def read(path: Path) -> tuple[list[list[str]], list[int]]:
    rows = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line]
    return [_WORD.findall(sentence.lower()) for sentence, _ in rows], [int(label) for _, label in rows]


def encoded(sentences: list[list[str]], vocabulary: dict[str, int]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    ids = np.full((len(sentences), LENGTH), PAD, dtype=np.int64)
    for row, words in zip(ids, sentences, strict=True):
        known = [vocabulary.get(word, UNKNOWN) for word in words[:LENGTH]]
        row[: len(known)] = known
    return ids


def accuracy(model: nn.Module, ids: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        hits = [
            (model(i).argmax(1) == y).sum()
            for i, y in zip(torch.split(ids, 256), torch.split(labels, 256), strict=True)
        ]
    return float(sum(hits)) / len(labels)


def train(model: nn.Module, rows: tuple[Tensor, Tensor], dev: tuple[Tensor, Tensor], epochs: int, seed: int) -> None:
    """Adam with a cosine schedule; words are dropped at random; the epoch that does best on dev is kept."""
    ids, labels = rows
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    steps, step = epochs * math.ceil(len(ids) / 64), 0
    best, kept = 0.0, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for epoch in range(epochs):
        model.train()
        for at in torch.split(torch.randperm(len(ids), generator=generator), 64):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1.0, step / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
            batch = ids[at]
            dropped = (torch.rand(batch.shape, generator=generator) < 0.15) & (batch != PAD)
            loss = functional.cross_entropy(model(batch.masked_fill(dropped, UNKNOWN)), labels[at], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
        found = accuracy(model, *dev)
        print(f"epoch {epoch + 1}: dev accuracy {found:.4f}")
        if found > best:
            best, kept = found, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("transformer", "lstm"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(chosen.seed)

    parts = {name: read(chosen.data / f"{name}.tsv") for name in ("train", "dev", "test")}
    counts = collections.Counter(word for sentence in parts["train"][0] for word in sentence)
    words = [word for word, count in counts.most_common() if count > 1]
    vocabulary = {word: index for index, word in enumerate(words, start=2)}
    tensors = {}
    for name, (sentences, labels) in parts.items():
        ids = encoded(sentences, vocabulary)
        pq.write_table(pa.table({"ids": list(ids), "label": labels}), chosen.output / f"{name}.parquet")
        tensors[name] = (torch.from_numpy(ids), torch.tensor(labels))

    kinds: dict[str, type[nn.Module]] = {"transformer": Encoder, "lstm": Lstm}
    model = kinds[chosen.kind](len(words) + 2)
    table = model.get_submodule("tokens")
    assert isinstance(table, nn.Embedding)
    initialize(table, *tensors["train"])
    train(model, tensors["train"], tensors["dev"], chosen.epochs, chosen.seed)
    weights = sum(p.numel() for p in model.parameters())
    print(f"test accuracy {accuracy(model, *tensors['test']):.4f}, {weights:,} weights")

    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model.eval(), (tensors["test"][0][:2],), dynamic_shapes=({0: batch},))
    torch.export.save(program, chosen.output / "model.pt2")
    job = {
        "name": f"sst2-{chosen.kind}",
        "model": "model.pt2",
        "task": "classification",
        "data": {
            "train": "train.parquet",
            "validation": "dev.parquet",
            "test": "test.parquet",
            "inputs": ["ids"],
            "target": "label",
        },
        "budget": {"latency_ratio": 0.667, "size_ratio": 0.5, "max_metric_drop": 0.015},
        "search": {"max_seconds": 600},
    }
    (chosen.output / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    print(f"wrote model.pt2, train, dev and test.parquet and job.yaml to {chosen.output}")


if __name__ == "__main__":
    main()
