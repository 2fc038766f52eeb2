"""Transformers in the ways they are commonly written: packed, separate and fused projections; masks made in the graph.

ViT uses PyTorch's own attention layer; the BERT-like encoder separate projections, a mask input and scaled dot-product
attention; the tagger PyTorch's whole encoder layer with a mask from padding ids; the GPT-like decoder one fused
projection, einsum and a stored causal mask; the Llama-like decoder rotary positions, RMS norms, gated feed-forward and
grouped keys.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.families.family import Family, Sample, images, joined, lengths_mask, tokens

VOCABULARY = 120
LENGTH = 24
WIDTH = 32
HEADS = 4


class VitBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Vit(nn.Module):
    """Dosovitskiy et al. 2021: patches, class token, learned positions, norm first."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.1)
        self.positions = nn.Parameter(torch.randn(1, 17, WIDTH) * 0.1)
        self.blocks = nn.Sequential(VitBlock(), VitBlock())
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        out: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return out


class BertLayer(nn.Module):
    """Devlin et al. 2019: norm after the sum. mask: (batch, 1, 1, length), 0 where a token counts, else very low."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-12)
        self.intermediate = nn.Linear(WIDTH, 3 * WIDTH)
        self.contract = nn.Linear(3 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = x.shape

        def heads(t: Tensor) -> Tensor:
            return t.view(batch, length, HEADS, width // HEADS).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            heads(self.query(x)), heads(self.key(x)), heads(self.value(x)), attn_mask=mask
        )
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        x = self.norm1(x + self.dropout(self.output(mixed)))
        out: Tensor = self.norm2(x + self.dropout(self.contract(F.gelu(self.intermediate(x)))))
        return out


class Bert(nn.Module):
    """Sentence classification: ids and a 0/1 mask in, the first token's pooled state out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.segments = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList([BertLayer(), BertLayer()])
        self.pooler = nn.Linear(WIDTH, WIDTH)
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        x = self.words(input_ids) + self.positions(positions) + self.segments(torch.zeros_like(input_ids))
        x = self.norm(x)
        mask = attention_mask[:, None, None, :].to(x.dtype)
        mask = (1.0 - mask) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        out: Tensor = self.classifier(torch.tanh(self.pooler(x[:, 0])))
        return out


class Tagger(nn.Module):
    """A label per token; padding is whatever has id 0. PyTorch's own encoder layers, sinusoidal positions."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        angles = torch.arange(LENGTH)[:, None] / 10000 ** (torch.arange(0, WIDTH, 2) / WIDTH)
        self.register_buffer("positions", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        for parameter in self.encoder.parameters():  # the layers are copies of one
            if parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)
        self.classifier = nn.Linear(WIDTH, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) * math.sqrt(WIDTH) + self.positions
        out: Tensor = self.classifier(self.encoder(x, src_key_padding_mask=tokens == 0))
        return out


class GptBlock(nn.Module):
    """Radford et al. 2019: norm first, one fused projection, a stored lower triangle as mask."""

    causal: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attend = nn.Linear(WIDTH, 3 * WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.expand = nn.Linear(WIDTH, 4 * WIDTH)
        self.contract = nn.Linear(4 * WIDTH, WIDTH)
        self.register_buffer("causal", torch.ones(LENGTH, LENGTH).tril().bool(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.size()
        query, key, value = (
            part.view(batch, length, HEADS, width // HEADS) for part in self.attend(self.norm1(x)).split(width, dim=2)
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(width // HEADS)
        scores = scores.masked_fill(~self.causal[:length, :length], float("-inf"))
        mixed = torch.einsum("bhqk,bkhd->bqhd", F.softmax(scores, dim=-1), value)
        x = x + self.project(mixed.reshape(batch, length, width))
        out: Tensor = x + self.contract(F.gelu(self.expand(self.norm2(x)), approximate="tanh"))
        return out


class Gpt(nn.Module):
    """Scores of the next token at every place; the output layer is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([GptBlock(), GptBlock()])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.words.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.words(input_ids) + self.positions(torch.arange(input_ids.size(1), device=input_ids.device))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm(x))
        return out


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Su et al. 2021, eq. 34: pairs (i, i + d / 2) of the last axis turned by the position's angle."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class LlamaBlock(nn.Module):
    """Touvron et al. 2023, with keys and values shared by two heads each (Ainslie et al. 2023)."""

    def __init__(self) -> None:
        super().__init__()
        size = WIDTH // HEADS
        self.norm1 = nn.RMSNorm(WIDTH, eps=1e-6)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, 2 * size, bias=False)
        self.value = nn.Linear(WIDTH, 2 * size, bias=False)
        self.output = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm2 = nn.RMSNorm(WIDTH, eps=1e-6)
        self.gate = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.down = nn.Linear(3 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = self.norm1(x)
        query = self.query(y).view(batch, length, HEADS, -1).transpose(1, 2)
        key = self.key(y).view(batch, length, 2, -1).transpose(1, 2)
        value = self.value(y).view(batch, length, 2, -1).transpose(1, 2)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        key, value = key.repeat_interleave(HEADS // 2, dim=1), value.repeat_interleave(HEADS // 2, dim=1)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        y = self.norm2(x)
        out: Tensor = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return out


class Llama(nn.Module):
    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        size = WIDTH // HEADS
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(0, size, 2) / size))
        self.blocks = nn.ModuleList([LlamaBlock(), LlamaBlock()])
        self.norm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(input_ids.shape[1]).float(), self.frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin())
        out: Tensor = self.head(self.norm(x))
        return out


def padded_tokens(batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Ids from 1 on, zeros behind the end of each row."""
    (ids,) = tokens(VOCABULARY, LENGTH, lowest=1)(batch, generator)
    return (ids * lengths_mask(batch, LENGTH, generator),)


MASK: Sample = lambda batch, generator: (lengths_mask(batch, LENGTH, generator),)  # noqa: E731

FAMILIES = (
    Family("vit", Vit, images(3, 32)),
    Family("bert", Bert, joined(tokens(VOCABULARY, LENGTH, lowest=1), MASK)),
    Family("tagger", Tagger, padded_tokens, task="token_classification", output="sequence"),
    Family("gpt", Gpt, tokens(VOCABULARY, LENGTH), task="language_modelling", output="sequence"),
    Family("llama", Llama, tokens(VOCABULARY, LENGTH), task="language_modelling", output="sequence"),
)
