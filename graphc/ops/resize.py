"""Spatial resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, Shape, floordiv
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import arith, sliding
from graphc.ops.binary import FloorDivide, Remainder
from graphc.ops.errors import check_kind, check_length, show
from graphc.ops.index import Take
from graphc.ops.numerics import as_f64, rounded, working
from graphc.ops.shape import concrete
from graphc.ops.source import Iota


@dataclass(frozen=True)
class Resize(Op):
    """x at another spatial `size`: nearest (any number of spatial dimensions) or bilinear (two).

    Positions are exact fractions, where PyTorch's `interpolate` rounds a scale to f32 first: nearest takes
    floor(i * in / out); bilinear samples (i + 1/2) * in / out - 1/2, limited to the tensor, or with `align_corners`
    i * (in - 1) / (out - 1). x is N C *S, or N *S C with `channels_last`.
    """

    name: ClassVar[str] = "resize"
    pattern: ClassVar[Pattern] = Pattern.WINDOW
    arity: ClassVar[int | None] = 1
    family: ClassVar[str] = "resize"
    spatial: ClassVar[bool] = True
    size: Shape
    mode: str = "nearest"
    align_corners: bool = False
    channels_last: bool = False

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's type in the new size. Raises OpError E0205-E0207."""
        (x,) = operands
        if self.mode not in ("nearest", "bilinear"):
            raise OpError(
                f'resize: mode is "nearest" or "bilinear", not "{self.mode}"', code="E0207"
            )
        check_kind(self.name, x, "any" if self.mode == "nearest" else "float", 0)
        if x.rank < 3 or (self.mode == "bilinear" and x.rank != 4):
            dims = "two spatial dimensions" if self.mode == "bilinear" else "spatial dimensions"
            raise OpError(
                f"{self.mode} resize takes a batch, channels and {dims} and got {x}",
                operand=0,
                code="E0205",
            )
        axes = sliding.spatial_axes(x.rank, self.channels_last)
        check_length(self.name, "size", self.size, len(axes), x.shape)
        for size, a in zip(self.size, axes, strict=True):
            if x.shape[a] == 0 or (isinstance(size, int) and size < 1):
                raise OpError(
                    f"resize: cannot resize {x} to {show(self.size)}", operand=0, code="E0207"
                )
        channels = x.shape[sliding.channel_axis(x.rank, self.channels_last)]
        return (x.with_shape(sliding.join(x.shape[0], channels, self.size, self.channels_last)),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """One axis after the other, weights in f64."""
        (x,) = operands
        sizes = concrete(self.size)
        out = x if self.mode == "nearest" else as_f64(x)
        for size, axis in zip(sizes, sliding.spatial_axes(x.ndim, self.channels_last), strict=True):
            n, i = x.shape[axis], np.arange(size)
            if self.mode == "nearest":
                out = np.take(out, i * n // size, axis)
                continue
            above, below = self._fraction(n, size)
            position = np.maximum(i * above[0] + above[1], 0)
            low = np.minimum(position // below, n - 1)
            high = np.minimum(low + 1, n - 1)
            steps = [1] * x.ndim
            steps[axis] = size
            weight = ((position % below) / below).reshape(steps)
            out = np.take(out, low, axis) * (1 - weight) + np.take(out, high, axis) * weight
        return (np.ascontiguousarray(rounded(out, x)),)

    def _fraction(self, n: int, size: int) -> tuple[tuple[int, int], int]:
        """Integers (a, b), c so that result position i samples (a * i + b) / c."""
        if self.align_corners:
            return (n - 1, 0), max(size - 1, 1)
        return (2 * n, n - size), 2 * size

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The nearest element, or the weighted sum of the four around the sampled position."""
        (x,) = operands
        axes = sliding.spatial_axes(x.rank, self.channels_last)
        channel = index[sliding.channel_axis(x.rank, self.channels_last)]
        sizes = [x.shape[a] for a in axes]
        places = [index[a] for a in axes]

        def element(at: Sequence[Expr]) -> Expr:
            return read(0, sliding.place(index[0], channel, at, self.channels_last))

        if self.mode == "nearest":
            return element(
                [
                    _nearest(e, i, n, size)
                    for i, n, size in zip(places, sizes, self.size, strict=True)
                ]
            )
        work = working(x.dtype)
        (top, bottom, down), (left, right, across) = (
            self._neighbours(e, i, n, size, work)
            for i, n, size in zip(places, sizes, self.size, strict=True)
        )

        def mix(a: Expr, b: Expr, weight: Expr) -> Expr:
            rest = e.binary("sub", e.constant(1, work), weight)
            return e.binary("add", e.binary("mul", a, rest), e.binary("mul", b, weight))

        def wide(at: Sequence[Expr]) -> Expr:
            value = element(at)
            return value if work is x.dtype else e.cast(value, work)

        upper = mix(wide([top, left]), wide([top, right]), across)
        lower = mix(wide([bottom, left]), wide([bottom, right]), across)
        value = mix(upper, lower, down)
        return value if work is x.dtype else e.cast(value, x.dtype)

    def _neighbours(
        self, e: Emitter, i: Expr, n: DimLike, size: DimLike, work: DType
    ) -> tuple[Expr, Expr, Expr]:
        """The positions around a sampled one, and the weight of the second."""
        zero, last = e.dim(0), e.dim(n - 1)
        if self.align_corners:
            position = i * e.dim(n - 1)
            below = e.dim(size - 1)
            if not isinstance(size, int) or size == 1:  # one element samples position 0
                below = e.binary("max", below, e.dim(1))
        else:
            position = e.binary("max", i * e.dim(n * 2) + e.dim(n - size), zero)
            below = e.dim(size * 2)
        low = e.binary("min", position // below, last)
        high = e.binary("min", low + 1, last)
        weight = e.binary("div", e.cast(position % below, work), e.cast(below, work))
        return low, high, weight

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """Through the same sampling, written as elements taken along one axis after the other."""
        b, x = p.b, p.operands[0]
        type = b.type_of(x)
        axes = sliding.spatial_axes(type.rank, self.channels_last)
        out = arith.convert(b, x, working(type.dtype)) if self.mode == "bilinear" else x
        sample = _taken if self.mode == "nearest" else self._mixed
        for size, axis in zip(self.size, axes, strict=True):
            out = sample(b, out, axis, size)
        return p.through([arith.convert(b, out, type.dtype)])

    def _mixed(self, b: GraphBuilder, x: Value, axis: int, size: DimLike) -> Value:
        """Weighted sums of two neighbours along an axis."""
        type = b.type_of(x)
        n, step = type.shape[axis], b(Iota(DType.I64, (size,), 0))
        scale, shift, below = (
            arith.dim_scalar(b, d, DType.I64)
            for d in ((n - 1, 0, size - 1) if self.align_corners else (n * 2, n - size, size * 2))
        )
        below = arith.maximum(b, below, 1)  # one element samples position 0
        position = arith.add(b, arith.multiply(b, step, scale), shift)
        position = arith.maximum(b, position, 0)
        last = arith.dim_scalar(b, n - 1, DType.I64)
        low = arith.minimum(b, arith.binary_op(b, FloorDivide(), position, below), last)
        high = arith.minimum(b, arith.add(b, low, 1), last)
        rest = arith.binary_op(b, Remainder(), position, below)
        weight = arith.divide(
            b, arith.convert(b, rest, type.dtype), arith.convert(b, below, type.dtype)
        )
        shape = (*type.shape[:axis], size, *type.shape[axis + 1 :])
        above = arith.as_spread(b, weight, shape, (axis,))
        under = arith.as_spread(b, arith.subtract(b, 1.0, weight), shape, (axis,))
        return arith.add(
            b,
            arith.multiply(b, b(Take(axis), x, low), under),
            arith.multiply(b, b(Take(axis), x, high), above),
        )

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """Nothing for nearest; 9 per element for bilinear: three mixtures of 3."""
        return 0 if self.mode == "nearest" else results[0].size * 9

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """A change of layout moves behind the op."""
        layout = sliding.relayout(permutation, self.channels_last)
        return None if layout is None else (replace(self, channels_last=layout), permutation)


def _nearest(e: Emitter, i: Expr, n: DimLike, size: DimLike) -> Expr:
    """floor(i * n / size), as a plain division where the factor is whole."""
    factor = floordiv(size, n)
    if factor * n == size:
        return i if factor == 1 else i // e.dim(factor)
    return i * e.dim(n) // e.dim(size)


def _taken(b: GraphBuilder, x: Value, axis: int, size: DimLike) -> Value:
    """Element floor(i * n / size) along an axis: repeated elements where the factor is whole."""
    shape = b.type_of(x).shape
    n = shape[axis]
    factor = floordiv(size, n)
    if factor * n == size:
        dims = tuple(a if a <= axis else a + 1 for a in range(len(shape)))
        repeated = arith.as_spread(b, x, (*shape[: axis + 1], factor, *shape[axis + 1 :]), dims)
        return arith.reshape(b, repeated, (*shape[:axis], size, *shape[axis + 1 :]))
    position = arith.multiply(b, b(Iota(DType.I64, (size,), 0)), arith.dim_scalar(b, n, DType.I64))
    whole = arith.dim_scalar(b, size, DType.I64)
    return b(Take(axis), x, arith.binary_op(b, FloorDivide(), position, whole))
