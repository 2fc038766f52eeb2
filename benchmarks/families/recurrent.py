"""Recurrent classifiers: one direction and layer, two directions and layers, and states given by the network."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.families.family import Family, floats, tokens

VOCABULARY = 120
LENGTH = 10


class LstmClassifier(nn.Module):
    """Token ids; the last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 24, padding_idx=0)
        self.lstm = nn.LSTM(24, 32, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(32, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(self.embedding(tokens))
        out: Tensor = self.fc(self.dropout(hidden[-1]))
        return out


class GruClassifier(nn.Module):
    """Features over time; the last output goes through a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(13, 32, batch_first=True)
        self.fc1 = nn.Linear(32, 24)
        self.fc2 = nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.gru(x)
        result: Tensor = self.fc2(F.relu(self.fc1(out[:, -1, :])))
        return result


class StackedLstm(nn.Module):
    """Two layers, two directions, dropout between the layers; the mean over time is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 20)
        self.lstm = nn.LSTM(20, 24, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
        self.fc = nn.Linear(48, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        out, _ = self.lstm(self.embedding(tokens))
        result: Tensor = self.fc(out.mean(1)).squeeze(-1)
        return result


class StackedGru(nn.Module):
    """Time first, two layers and directions; both directions' last states meet before the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(13, 16)
        self.gru = nn.GRU(16, 20, num_layers=2, bidirectional=True)
        self.fc = nn.Linear(40, 6)

    def forward(self, x: Tensor) -> Tensor:
        _, hidden = self.gru(F.relu(self.project(x)).transpose(0, 1))
        out: Tensor = self.fc(torch.cat([hidden[-2], hidden[-1]], dim=1))
        return out


class Forecaster(nn.Module):
    """Encoder and decoder: the encoder's states start a second LSTM, which answers one number per step."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(4, 24, batch_first=True)
        self.decoder = nn.LSTM(24, 24, batch_first=True)
        self.fc = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        out, states = self.encoder(x)
        again, _ = self.decoder(out[:, -8:], states)
        result: Tensor = self.fc(again).flatten(1)
        return result


FAMILIES = (
    Family("lstm", LstmClassifier, tokens(VOCABULARY, LENGTH)),
    Family("gru", GruClassifier, floats(LENGTH, 13)),
    Family("lstm_stacked", StackedLstm, tokens(VOCABULARY, 7), task="binary", output="scalar"),
    Family("gru_stacked", StackedGru, floats(7, 13)),
    Family("lstm_forecaster", Forecaster, floats(LENGTH, 4), task="regression"),
)
