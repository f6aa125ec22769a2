"""Small groups of ops that several layers emit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.dim import DimLike, Shape
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import (
    Add,
    BroadcastInDim,
    Constant,
    DotGeneral,
    Pad,
    Reshape,
    Slice,
    Transpose,
)


def scalar(b: GraphBuilder, value: float, dtype: DType) -> Value:
    """A constant of shape []."""
    return b(Constant.of(np.asarray(value, dtype.numpy)))


def full(b: GraphBuilder, value: float, shape: Shape, dtype: DType) -> Value:
    """A tensor of one number."""
    return b(BroadcastInDim(shape=shape, dims=()), scalar(b, value, dtype))


def along(b: GraphBuilder, vector: Value, shape: Shape, axis: int) -> Value:
    """A vector spread over `shape`, its elements along `axis`."""
    return b(BroadcastInDim(shape=shape, dims=(axis,)), vector)


def add_along(b: GraphBuilder, x: Value, vector: Value, axis: int) -> Value:
    """`x` plus a vector along one axis: a bias."""
    return b(Add(), x, along(b, vector, b.type_of(x).shape, axis))


def linear(b: GraphBuilder, x: Value, weight: Value) -> Value:
    """`x @ weight.T` over the last dimension; weight is [out, in]."""
    last = b.type_of(x).rank - 1
    op = DotGeneral(lhs_batch=(), rhs_batch=(), lhs_contract=(last,), rhs_contract=(1,))
    return b(op, x, weight)


def reshape(b: GraphBuilder, x: Value, shape: Sequence[DimLike]) -> Value:
    """`x` with another shape; nothing where it has that shape already."""
    shape = tuple(shape)
    return x if b.type_of(x).shape == shape else b(Reshape(shape=shape), x)


def transpose(b: GraphBuilder, x: Value, permutation: Sequence[int]) -> Value:
    """`x` with its axes permuted; nothing for the identity."""
    permutation = tuple(permutation)
    if permutation == tuple(range(len(permutation))):
        return x
    return b(Transpose(permutation=permutation), x)


def slice_axis(b: GraphBuilder, x: Value, axis: int, start: DimLike, limit: DimLike) -> Value:
    """`x[start:limit]` along one axis."""
    shape = b.type_of(x).shape
    starts: list[DimLike] = [0] * len(shape)
    limits = list(shape)
    starts[axis], limits[axis] = start, limit
    return b(Slice(start=tuple(starts), limit=tuple(limits), strides=(1,) * len(shape)), x)


def pad_axes(
    b: GraphBuilder, x: Value, padding: dict[int, tuple[int, int]], value: float = 0.0
) -> Value:
    """`x` padded by (low, high) per axis with a number; negative amounts crop."""
    kind = b.type_of(x)
    low = tuple(padding.get(i, (0, 0))[0] for i in range(kind.rank))
    high = tuple(padding.get(i, (0, 0))[1] for i in range(kind.rank))
    if not any(low) and not any(high):
        return x
    op = Pad(low=low, high=high, interior=(0,) * kind.rank, value=float(value))
    return b(op, x)
