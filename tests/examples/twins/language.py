"""The language models of `examples/` in PyTorch, with Hugging Face's parameter names where those are known."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TransformerEncoder(nn.Module):
    def __init__(
        self, vocab: int, width: int, heads: int, layers: int, feedforward: int, classes: int
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, feedforward, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens) * math.sqrt(self.embed.embedding_dim)
        steps, width = h.shape[1:]
        frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        angle = torch.arange(steps)[:, None] * frequency
        waves = torch.zeros(steps, width)
        waves[:, 0::2], waves[:, 1::2] = angle.sin(), angle.cos()
        h = h + waves
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h).mean(1))


class LSTMClassifier(nn.Module):
    def __init__(
        self, features: int, hidden: int, layers: int, bidirectional: bool, classes: int
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(hidden * (2 if bidirectional else 1), classes)

    def forward(self, x: Tensor) -> Tensor:
        _, (last, _) = self.lstm(x)
        h = torch.cat([last[-2], last[-1]], 1) if self.lstm.bidirectional else last[-1]
        return self.head(h)


def _container(**parts: nn.Module) -> nn.Module:
    """A module that is only a place in the parameter tree."""
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


class BertLayer(nn.Module):
    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        dense = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        out = _container(dense=nn.Linear(width, width), LayerNorm=nn.LayerNorm(width, 1e-12))
        self.attention = _container(self=_container(**dense), output=out)
        self.intermediate = _container(dense=nn.Linear(width, feedforward))
        self.output = _container(
            dense=nn.Linear(feedforward, width), LayerNorm=nn.LayerNorm(width, 1e-12)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, d = x.shape
        own = self.attention.self
        parts = [
            getattr(own, name)(x).view(n, t, self.heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        ]
        y = nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask)
        y = self.attention.output.dense(y.transpose(1, 2).reshape(n, t, d))
        h = self.attention.output.LayerNorm(x + y)
        f = self.output.dense(nn.functional.gelu(self.intermediate.dense(h)))
        return self.output.LayerNorm(h + f)


class BERT(nn.Module):
    def __init__(
        self,
        vocab: int,
        width: int,
        heads: int,
        layers: int,
        feedforward: int,
        positions: int,
        segment_types: int = 2,
    ) -> None:
        super().__init__()
        self.embeddings = _container(
            word_embeddings=nn.Embedding(vocab, width),
            position_embeddings=nn.Embedding(positions, width),
            token_type_embeddings=nn.Embedding(segment_types, width),
            LayerNorm=nn.LayerNorm(width, 1e-12),
        )
        stack = nn.ModuleList(BertLayer(width, heads, feedforward) for _ in range(layers))
        self.encoder = _container(layer=stack)
        self.pooler = _container(dense=nn.Linear(width, width))

    def forward(
        self, tokens: Tensor, segments: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        e = self.embeddings
        h = e.word_embeddings(tokens) + e.token_type_embeddings(segments)
        h = e.LayerNorm(h + e.position_embeddings.weight[: tokens.shape[1]])
        for layer in self.encoder.layer:
            h = layer(h, attention_mask[:, None, None, :])
        return h, self.pooler.dense(h[:, 0]).tanh()


class Conv1D(nn.Module):
    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, out) * 0.02)
        self.bias = nn.Parameter(torch.randn(out) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class GPT2Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = _container(c_attn=Conv1D(width, 3 * width), c_proj=Conv1D(width, width))
        self.mlp = _container(c_fc=Conv1D(width, 4 * width), c_proj=Conv1D(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = (
            p.view(n, t, self.heads, -1).transpose(1, 2)
            for p in self.attn.c_attn(self.ln_1(x)).split(d, dim=2)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn.c_proj(y.transpose(1, 2).reshape(n, t, d))
        hidden = nn.functional.gelu(self.mlp.c_fc(self.ln_2(x)), approximate="tanh")
        return x + self.mlp.c_proj(hidden)


class GPT2(nn.Module):
    def __init__(self, vocab: int, width: int, heads: int, layers: int, positions: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(positions, width)
        self.h = nn.ModuleList(GPT2Layer(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for layer in self.h:
            x = layer(x)
        return self.ln_f(x) @ self.wte.weight.T
