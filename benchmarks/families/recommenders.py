"""Networks on tables and on several inputs: a perceptron, two recommenders, and images with text."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.families.convolutional import conv_bn_relu
from benchmarks.families.family import Family, Sample, floats, images, joined, tokens

USERS, ITEMS = 300, 200
TABLES = (50, 80, 120, 30)
BAG = 5
WORDS = 90


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(40, 64)
        self.bn1 = nn.BatchNorm1d(64)
        self.fc2 = nn.Linear(64, 48, bias=False)
        self.bn2 = nn.BatchNorm1d(48)
        self.dropout = nn.Dropout(0.3)
        self.fc3 = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.fc1(x)))
        x = F.relu(self.bn2(self.fc2(x)))
        out: Tensor = self.fc3(self.dropout(x))
        return out


class Ncf(nn.Module):
    """He et al. 2017 (NeuMF): a product of embeddings beside a tower over others; one score per pair."""

    def __init__(self) -> None:
        super().__init__()
        self.user_factors = nn.Embedding(USERS, 16)
        self.item_factors = nn.Embedding(ITEMS, 16)
        self.user_features = nn.Embedding(USERS, 24)
        self.item_features = nn.Embedding(ITEMS, 24)
        self.tower = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 16), nn.ReLU())
        self.predict = nn.Linear(32, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        product = self.user_factors(user) * self.item_factors(item)
        tower = self.tower(torch.cat([self.user_features(user), self.item_features(item)], dim=-1))
        out: Tensor = self.predict(torch.cat([product, tower], dim=-1)).view(-1)
        return out


class Dlrm(nn.Module):
    """Naumov et al. 2019: dense numbers, one id per table and a bag of ids; all pairs of feature vectors multiply."""

    rows: Tensor
    columns: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, 12) for count in TABLES)
        self.history = nn.EmbeddingBag(ITEMS, 12, mode="mean")
        self.bottom = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 12), nn.ReLU())
        vectors = len(TABLES) + 2
        rows, columns = torch.tril_indices(vectors, vectors, offset=-1)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)
        self.top = nn.Sequential(
            nn.Linear(12 + len(rows), 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)
        )

    def forward(self, dense: Tensor, sparse: Tensor, history: Tensor) -> Tensor:
        x = self.bottom(dense)
        vectors = [x, *(table(sparse[:, i]) for i, table in enumerate(self.tables)), self.history(history)]
        stacked = torch.stack(vectors, dim=1)
        pairs = torch.bmm(stacked, stacked.transpose(1, 2))[:, self.rows, self.columns]
        out: Tensor = self.top(torch.cat([x, pairs], dim=1)).squeeze(1)
        return out


class ImageText(nn.Module):
    """A picture and a sentence: a convolutional and a word tower, gated by each other, then a joint classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            conv_bn_relu(3, 16), nn.MaxPool2d(2), conv_bn_relu(16, 24), nn.MaxPool2d(2), conv_bn_relu(24, 32)
        )
        self.image_out = nn.Linear(32, 24)
        self.words = nn.Embedding(WORDS, 16, padding_idx=0)
        self.conv = nn.Conv1d(16, 24, 3, padding=1)
        self.text_out = nn.Linear(24, 24)
        self.fuse = nn.Linear(72, 32)
        self.fc = nn.Linear(32, 5)

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        picture = self.image_out(self.image(image).mean((2, 3)))
        text = F.relu(self.conv(self.words(tokens).transpose(1, 2))).amax(dim=2)
        text = self.text_out(text)
        joint = torch.cat([picture, text, picture * text], dim=1)
        out: Tensor = self.fc(F.relu(self.fuse(joint)))
        return out


def ids(*limits: int) -> Sample:
    """One tensor (batch,) of ids per limit."""
    return lambda batch, generator: tuple(torch.randint(0, n, (batch,), generator=generator) for n in limits)


def table_ids(batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """(batch, tables): one id per table."""
    return (torch.stack(ids(*TABLES)(batch, generator), dim=1),)


FAMILIES = (
    Family("mlp", Mlp, floats(40)),
    Family("ncf", Ncf, ids(USERS, ITEMS), task="ranking", output="scalar"),
    Family("dlrm", Dlrm, joined(floats(8), table_ids, tokens(ITEMS, BAG)), task="ranking", output="scalar"),
    Family("image_text", ImageText, joined(images(3, 16), tokens(WORDS, 10))),
)
