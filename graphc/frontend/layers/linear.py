"""Linear and Embedding: the layers that are one matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.frontend.layers.base import (
    KAIMING,
    Layer,
    LayerContext,
    agree,
    checked,
    fixed,
    layer_classes,
    need_float,
    positive,
    type_of,
    uniform_bound,
)
from graphc.frontend.layers.emit import add_along, linear
from graphc.frontend.report import RejectError
from graphc.ir.graph import Value
from graphc.ops import Take


@dataclass(frozen=True)
class Linear(Layer):
    """`x @ weight.T + bias` over the last dimension.

    Input `[..., in_features]`, output `[..., out_features]`. Parameters `weight [out_features, in_features]` and
    `bias [out_features]`, both uniform in ±1/sqrt(in_features). Source: `torch.nn.Linear`.
    """

    out_features: int
    bias: bool = True
    in_features: int | None = checked()

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        positive(cx, out_features=self.out_features)
        kind = need_float(cx, x)
        if kind.rank == 0:
            raise RejectError(
                f"{cx.what} needs at least one dimension and gets {kind}", code="E0205"
            )
        size = fixed(cx, kind.shape[-1], "input features")
        agree(cx, self.in_features, size, "features", "f32[..., {}]")
        weight = cx.parameter("weight", (self.out_features, size), KAIMING, dtype=kind.dtype)
        y = linear(cx.b, x, weight)
        if self.bias:
            bias = cx.parameter("bias", (self.out_features,), uniform_bound(size), dtype=kind.dtype)
            y = add_along(cx.b, y, bias, kind.rank - 1)
        return y


@dataclass(frozen=True)
class Embedding(Layer):
    """Rows of a table: integer indices `[...]` become `[..., embedding_dim]`.

    Parameter `weight [num_embeddings, embedding_dim]`, standard normal. An index outside of the table is an error
    at run time. `padding_idx` matters for training only. A shared embedding also has `emb.attend`, which multiplies
    by the same table, `[..., embedding_dim]` to `[..., num_embeddings]`: tied output weights. Source:
    `torch.nn.Embedding`; `attend` is `flax.linen.Embed.attend`.
    """

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None = None

    methods: ClassVar[tuple[str, ...]] = ("attend",)

    def _weight(self, cx: LayerContext) -> Value:
        positive(cx, num_embeddings=self.num_embeddings, embedding_dim=self.embedding_dim)
        return cx.parameter(
            "weight", (self.num_embeddings, self.embedding_dim), "normal(mean=0.0, std=1.0)"
        )

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Looks the indices up."""
        kind = type_of(cx, x)
        if not kind.dtype.is_int:
            raise RejectError(
                f"{cx.what} needs integer indices and gets {kind}", code="E0206", operand=0
            )
        return cx.b(Take(axis=0), self._weight(cx), x)

    def attend(self, cx: LayerContext, x: Value) -> Value:
        """Scores of every row of the table: `x @ weight.T`."""
        kind = need_float(cx, x)
        size = fixed(cx, kind.shape[-1], "input features")
        agree(cx, self.embedding_dim, size, "features", "f32[..., {}]")
        return linear(cx.b, x, self._weight(cx))


LAYERS = layer_classes("Linear", Linear, Embedding)
"""The layers of this file."""
