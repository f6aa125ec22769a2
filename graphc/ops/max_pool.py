"""Maxima over a sliding window, and how cotangents go back to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, OpError
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import arith, sliding
from graphc.ops.composite import Composite
from graphc.ops.errors import check_kind, check_same_dtype
from graphc.ops.numerics import as_f64, rounded
from graphc.ops.reduce import lowest
from graphc.ops.shape import Pad, Slice, embed
from graphc.ops.window import Window


@dataclass(frozen=True)
class MaxPool(Window):
    """The maximum of every window; NaN if there is one."""

    name: ClassVar[str] = "max_pool"
    function: ClassVar[str] = "max"

    def identity(self, dtype: DType) -> float | int:
        """-inf, or the smallest integer."""
        return lowest(dtype)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """Maxima of the windows."""
        (x,) = operands
        with np.errstate(all="ignore"):
            best = self._windows(x).max(self._taps())
        return (sliding.in_layout(best, self.channels_last),)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent to the first maximum of each window: see `MaxPoolGradient`."""
        op = MaxPoolGradient(
            self.window, self.strides, self.padding, self.dilation, self.channels_last
        )
        return (p.b(op, p.operands[0], p.cotangent),)

    def along(self, i: int) -> MaxPool:
        """Pooling of spatial dimension i alone."""

        def only(values: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(v if j == i else 1 for j, v in enumerate(values))

        padding = tuple(pad if j == i else (0, 0) for j, pad in enumerate(self.padding))
        return MaxPool(
            only(self.window),
            only(self.strides),
            padding,
            only(self.dilation),
            self.channels_last,
        )


@dataclass(frozen=True)
class MaxPoolGradient(Composite):
    """The cotangent of x, from (x, the cotangent of `MaxPool` of x with the same attributes).

    Each window gives its cotangent to its first maximum in row-major order, as PyTorch; what several windows give to
    one element adds up. Padding is never a maximum. A window with a NaN gives nothing. StableHLO writes it as
    `select_and_scatter`.

    The pooled values are no operand: maxima are found again, so that rounding what is stored in between can not make
    an element differ from the maximum it was.
    """

    name: ClassVar[str] = "max_pool_gradient"
    arity: ClassVar[int | None] = 2
    family: ClassVar[str] = "window"
    operand_names: ClassVar[tuple[str, ...]] = ("x", "cotangent")
    required: ClassVar[int] = 2
    spatial: ClassVar[bool] = True
    spatial_operands: ClassVar[int] = 2
    strided_operands: ClassVar[int] = 2
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: sliding.Padding
    dilation: tuple[int, ...]
    channels_last: bool = False

    @property
    def forward(self) -> MaxPool:
        """The pooling that this is the gradient of."""
        return MaxPool(self.window, self.strides, self.padding, self.dilation, self.channels_last)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The type of x. Raises OpError E0203 where the cotangent is not the result's, E0205-E0208."""
        x, cotangent = operands
        check_kind(self.name, x, "float", 0)
        check_same_dtype(self.name, operands)
        (result,) = self.forward.infer(x)
        if cotangent != result:
            raise OpError(
                f"{self.name}: pooling {x} gives {result} and its cotangent is {cotangent}",
                operand=1,
                code="E0203",
            )
        return (x,)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The number of the first maximum in each window, then one sum for each number. Sums in f64."""
        x, given = (sliding.channels_first(v, self.channels_last) for v in operands)
        taps, rank, ones = math.prod(self.window), len(self.window), (1,) * len(self.window)

        def flat(source: Array, fill: float | int) -> Array:
            around = sliding.padded(source, self.padding, ones, fill)
            found = sliding.windows(around, self.window, self.strides, self.dilation)
            return found.reshape(*found.shape[: 2 + rank], taps)

        with np.errstate(all="ignore"):
            values, there = flat(x, -np.inf), flat(np.ones_like(x, np.bool_), 0)
            best = values.max(-1, keepdims=True)
            hits = (values == best) & there
        first = np.where(hits.any(-1), hits.argmax(-1), -1)
        places = flat(np.arange(x.size).reshape(x.shape) + 1, 0)  # 0: padding
        total = np.zeros(x.size + 1, as_f64(given[:0]).dtype)
        for tap in range(taps):
            with np.errstate(all="ignore"):
                np.add.at(total, places[..., tap], np.where(first == tap, as_f64(given), 0))
        found = rounded(total[1:].reshape(x.shape), x)
        return (sliding.in_layout(found, self.channels_last),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """A comparison and an addition per window element."""
        return operands[1].size * math.prod(self.window) * 2

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """One axis after the other, so that a window of h times w takes h + w steps.

        The last axis is pooled first, and the first row that holds the maximum is found before the place in it.
        """
        x, cotangent = operands
        axes = list(sliding.spatial_axes(b.type_of(x).rank, self.channels_last))
        levels = [x]
        for i in range(len(axes) - 1, -1, -1):
            levels.append(b(self.forward.along(i), levels[-1]))
        for i, axis in enumerate(axes):
            whole, pooled = levels[-2 - i], levels[-1 - i]
            cotangent = self._to_the_first(b, i, axis, whole, pooled, cotangent)
        return (cotangent,)

    def _to_the_first(
        self, b: GraphBuilder, i: int, axis: int, x: Value, y: Value, cotangent: Value
    ) -> Value:
        """The cotangent of x, of which y is the pooling along `axis`, the spatial dimension i."""
        type, small = b.type_of(x), b.type_of(y).shape
        rank, (low, high), s = type.rank, self.padding[i], self.strides[i]

        def at(value: int) -> tuple[int, ...]:
            return tuple(value if a == axis else 0 for a in range(rank))

        source = x
        if low or high:
            # NaN equals nothing: padding is no maximum.
            source = b(Pad(at(low), at(high), at(0), math.nan), x)
        padded = b.type_of(source).shape
        steps = tuple(s if a == axis else 1 for a in range(rank))
        total, left = None, cotangent
        for k in range(self.window[i]):
            start = at(k * self.dilation[i])
            limit = tuple(
                start[a] + (d - 1) * s + 1 if a == axis else d for a, d in enumerate(small)
            )
            hit = arith.compare(b, "eq", b(Slice(start, limit, steps), source), y)
            taken = embed(b, arith.select(b, hit, left, 0.0), padded, start, steps)
            left = arith.select(b, hit, 0.0, left)
            total = taken if total is None else arith.add(b, total, taken)
        assert total is not None
        if low or high:
            return b(Pad(at(-low), at(-high), at(0), 0.0), total)
        return total
