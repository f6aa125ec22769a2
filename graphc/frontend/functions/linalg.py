"""Products: matmul, einsum, linear, attention."""

from __future__ import annotations

import math

from graphc.frontend.layers.emit import add_along
from graphc.frontend.layers.emit import linear as linear_op
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import Attention, functional
from graphc.ops.arith import reshape

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Products")


@_add
def matmul(b: GraphBuilder, x: Value, other: Value) -> Value:
    """The matrix product of the last two dimensions, batches broadcast; the same as `x @ other`."""
    return functional.matmul(b, x, other)


@_add
def einsum(b: GraphBuilder, equation: str, *operands: Value) -> Value:
    """A sum of products in index notation: `einsum("bhqd,bhkd->bhqk", q, k)`."""
    if not operands:
        raise RejectError("einsum needs at least one tensor", code="E0215", argument="equation")
    return functional.einsum(b, equation, *operands)


@_add
def linear(b: GraphBuilder, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """`x @ weight.T + bias`, with weight [out, in]."""
    if b.type_of(weight).rank != 2:
        raise RejectError(
            f"`weight` is a matrix, not {b.type_of(weight)}", code="E0205", argument="weight"
        )
    y = linear_op(b, x, weight)
    return y if bias is None else add_along(b, y, bias, b.type_of(y).rank - 1)


@_add
def scaled_dot_product_attention(
    b: GraphBuilder,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Value:
    """`softmax(query @ key.T * scale + mask) @ value` over the last two dimensions (Vaswani et al. 2017).

    Inputs [..., T, d], [..., S, d], [..., S, e]. The mask is bool (true means may attend) or added. `scale` is
    1/sqrt(d) where it is left out. Source: `torch.nn.functional.scaled_dot_product_attention`.
    """
    kinds = [b.type_of(x) for x in (query, key, value)]
    rank = kinds[0].rank
    if rank not in (3, 4) or any(k.rank != rank for k in kinds):
        shapes = ", ".join(map(str, kinds))
        raise RejectError(
            f"attention needs three tensors [N, heads, T, d] and gets {shapes}", code="E0205"
        )
    depth = kinds[0].shape[-1]
    if scale is None:
        if not isinstance(depth, int):
            raise RejectError(
                f"`scale` has to be given: the depth is `{depth}`", code="E0216", argument="scale"
            )
        scale = 1 / math.sqrt(max(1, depth))
    parts = [query, key, value]
    if rank == 3:
        parts = [
            reshape(b, x, (k.shape[0], 1, *k.shape[1:])) for x, k in zip(parts, kinds, strict=True)
        ]
    if attn_mask is not None:
        mask = b.type_of(attn_mask).shape
        four = (
            (1,) * (4 - len(mask)) + mask if rank == 4 or len(mask) < 3 else (mask[0], 1, *mask[1:])
        )
        parts.append(reshape(b, attn_mask, four))
    out = b(Attention(scale=scale, causal=is_causal), *parts)
    kind = b.type_of(out)
    return reshape(b, out, (kind.shape[0], *kind.shape[2:])) if rank == 3 else out
