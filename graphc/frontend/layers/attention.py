"""Multi-head attention with PyTorch's parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.frontend.draws import dropout
from graphc.frontend.layers.base import (
    KAIMING,
    ZEROS,
    Layer,
    LayerContext,
    agree,
    checked,
    fixed,
    layer_classes,
    need_float,
    need_rank,
    positive,
    type_of,
)
from graphc.frontend.layers.dropout import check_probability
from graphc.frontend.layers.emit import add_along, full, linear, reshape, slice_axis, transpose
from graphc.frontend.report import RejectError
from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Value
from graphc.ir.types import TensorType
from graphc.ops import And, Attention, Not, Select, arith


@dataclass(frozen=True)
class MultiheadAttention(Layer):
    """Scaled dot-product attention in `num_heads` heads, with projections (Vaswani et al. 2017).

    Applied to one tensor it attends to itself; to `(query, key, value)` it attends across. Inputs are [T, N, E], or
    [N, T, E] with `batch_first`. Options of the application: `attn_mask` (bool, true means may NOT attend; or a
    float that is added), [T, S] or [N * num_heads, T, S]; `key_padding_mask` (bool [N, S], true means ignored);
    `is_causal` (no mask needed). The weights are not returned; `dropout` of them are left out while training.

    Parameters `in_proj_weight [3E, E]` and `in_proj_bias [3E]` (or `q_proj_weight`, `k_proj_weight`, `v_proj_weight`
    where key or value have other widths), `out_proj.weight [E, E]`, `out_proj.bias [E]`. Source:
    `torch.nn.MultiheadAttention`.
    """

    num_heads: int
    dropout: float = 0.0
    bias: bool = True
    batch_first: bool = False
    embed_dim: int | None = checked()

    def apply(
        self,
        cx: LayerContext,
        query: Value,
        key: Value | None = None,
        value: Value | None = None,
        *,
        attn_mask: Value | None = None,
        key_padding_mask: Value | None = None,
        is_causal: bool = False,
    ) -> Value:
        """Applies the layer."""
        positive(cx, num_heads=self.num_heads)
        help = "the width is inferred: the first argument is `num_heads`"
        check_probability(cx, "dropout", self.dropout, help)
        kind = self._input(cx, query)
        width = fixed(cx, kind.shape[-1], "features")
        agree(cx, self.embed_dim, width, "features", "f32[..., {}]")
        if width % self.num_heads:
            raise RejectError(
                f"{cx.what} has {self.num_heads} heads, which do not divide {width} features",
                code="E0209",
                operand=0,
            )
        key = query if key is None else key
        value = key if value is None else value
        self._input(cx, key)
        self._input(cx, value)
        q, k, v = self._project(cx, query, key, value, width)
        heads = [self._heads(cx, x) for x in (q, k, v)]
        mask = self._mask(cx, heads, attn_mask, key_padding_mask)
        depth = width // self.num_heads
        op = Attention(scale=1 / math.sqrt(depth), causal=is_causal)
        if cx.training and self.dropout:
            weights = op.weights(cx.b, heads[0], heads[1], mask, smooth=True)
            weights = dropout(cx.b, weights, self.dropout, cx.random_key())
            out = op.weighted(cx.b, weights, heads[2])
        else:
            out = cx.b(op, *heads, *(() if mask is None else (mask,)))
        swapped = transpose(cx.b, out, (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3))
        merged = reshape(cx.b, swapped, kind.shape)
        weight = cx.parameter("out_proj.weight", (width, width), KAIMING, dtype=kind.dtype)
        y = linear(cx.b, merged, weight)
        if self.bias:
            y = add_along(
                cx.b, y, cx.parameter("out_proj.bias", (width,), ZEROS, dtype=kind.dtype), 2
            )
        return y

    def _input(self, cx: LayerContext, x: Value) -> TensorType:
        need_rank(cx, x, 3, "N, T, E" if self.batch_first else "T, N, E")
        return need_float(cx, x)

    def _project(
        self, cx: LayerContext, query: Value, key: Value, value: Value, width: int
    ) -> tuple[Value, Value, Value]:
        """q, k, v; one product for self-attention."""
        b, dtype = cx.b, type_of(cx, query).dtype
        widths = [fixed(cx, type_of(cx, x).shape[-1], "features") for x in (key, value)]
        together = widths == [width, width]
        bias = None
        if together:
            init = "xavier_uniform(gain=1.0)"
            weight = cx.parameter("in_proj_weight", (3 * width, width), init, dtype=dtype)
            weights = []
        else:
            weights = [
                cx.parameter(
                    f"{n}_proj_weight", (width, w), "xavier_uniform(gain=1.0)", dtype=dtype
                )
                for n, w in zip("qkv", (width, *widths), strict=True)
            ]
        if self.bias:
            bias = cx.parameter("in_proj_bias", (3 * width,), ZEROS, dtype=dtype)
        if together and query == key == value:
            y = linear(b, query, weight)
            if bias is not None:
                y = add_along(b, y, bias, 2)
            q, k, v = (slice_axis(b, y, 2, i * width, (i + 1) * width) for i in range(3))
            return q, k, v
        if together:
            weights = [slice_axis(b, weight, 0, i * width, (i + 1) * width) for i in range(3)]
        out: list[Value] = []
        for i, (x, w) in enumerate(zip((query, key, value), weights, strict=True)):
            y = linear(b, x, w)
            if bias is not None:
                y = add_along(b, y, slice_axis(b, bias, 0, i * width, (i + 1) * width), 2)
            out.append(y)
        return out[0], out[1], out[2]

    def _heads(self, cx: LayerContext, x: Value) -> Value:
        """[N, h, T, d] of [N, T, E] or [T, N, E]."""
        first, second, width = type_of(cx, x).shape
        depth = width // self.num_heads
        split = reshape(cx.b, x, (first, second, self.num_heads, depth))
        return transpose(cx.b, split, (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3))

    def _mask(
        self,
        cx: LayerContext,
        heads: list[Value],
        attn_mask: Value | None,
        key_padding_mask: Value | None,
    ) -> Value | None:
        """Both masks as one that broadcasts to [N, h, T, S]; bool means may attend, float is added."""
        b = cx.b
        n, h, t, _ = b.type_of(heads[0]).shape
        s = b.type_of(heads[1]).shape[2]
        parts: list[Value] = []
        if attn_mask is not None:
            kind = b.type_of(attn_mask)
            if kind.shape == (t, s):
                parts.append(reshape(b, attn_mask, (1, 1, t, s)))
            elif kind.shape == (n * h, t, s):
                parts.append(reshape(b, attn_mask, (n, h, t, s)))
            else:
                raise self._misfit("attn_mask", kind, (t, s), cx)
        if key_padding_mask is not None:
            kind = b.type_of(key_padding_mask)
            if kind.shape != (n, s):
                raise self._misfit("key_padding_mask", kind, (n, s), cx)
            parts.append(reshape(b, key_padding_mask, (n, 1, 1, s)))
        dtype = b.type_of(heads[0]).dtype
        if all(b.type_of(m).dtype is DType.BOOL for m in parts):
            allowed = [b(Not(), m) for m in parts]
            return arith.binary_op(b, And(), *allowed) if len(parts) == 2 else (*allowed, None)[0]
        added = [self._additive(cx, m, dtype) for m in parts]
        return arith.add(b, *added) if len(added) == 2 else added[0]

    def _additive(self, cx: LayerContext, mask: Value, dtype: DType) -> Value:
        """A bool mask as 0 and minus infinity; a float one as it is."""
        kind = cx.b.type_of(mask)
        if kind.dtype is DType.BOOL:
            low = full(cx.b, -math.inf, kind.shape, dtype)
            return cx.b(Select(), mask, low, full(cx.b, 0.0, kind.shape, dtype))
        if kind.dtype is not dtype:
            raise RejectError(
                f"a mask of {cx.what} is bool or {dtype}, not {kind.dtype}", code="E0206"
            )
        return mask

    def _misfit(
        self, name: str, kind: TensorType, wanted: tuple[DimLike, ...], cx: LayerContext
    ) -> RejectError:
        text = ", ".join(map(str, wanted))
        return RejectError(
            f"`{name}` of {cx.what} is {kind} and has to be [{text}]", code="E0202", argument=name
        )


LAYERS = layer_classes("Attention", MultiheadAttention)
"""The layers of this file."""
