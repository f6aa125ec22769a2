"""Pooling: reductions over a sliding window. Windows at the edge see padding as the identity of the reduction.

Maxima are in `max_pool.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import arith, sliding
from graphc.ops.errors import check_kind
from graphc.ops.numerics import as_f64, rounded, working
from graphc.ops.shape import Pad


@dataclass(frozen=True)
class Window(Op):
    """Base of pooling over x, which is N C *S, or N *S C with `channels_last`.

    `window`, `strides`, `padding` ((low, high) pairs; negative crops) and `dilation` have one entry per spatial
    dimension. The output has floor((size + low + high - dilation * (window - 1) - 1) / stride) + 1 elements; PyTorch's
    `ceil_mode` is a larger high padding.
    """

    pattern: ClassVar[Pattern] = Pattern.WINDOW
    arity: ClassVar[int | None] = 1
    family: ClassVar[str] = "window"
    kind: ClassVar[str] = "number"
    spatial: ClassVar[bool] = True
    function: ClassVar[str] = "sum"
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: sliding.Padding
    dilation: tuple[int, ...]
    channels_last: bool = False

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The pooled type. Raises OpError E0205-E0208."""
        (x,) = operands
        check_kind(self.name, x, self.kind, 0)
        if x.rank < 3:
            raise OpError(
                f"{self.name} takes a batch, channels and spatial dimensions and got {x}",
                operand=0,
                code="E0205",
            )
        spatial = tuple(x.shape[a] for a in sliding.spatial_axes(x.rank, self.channels_last))
        out = sliding.check_window(
            self.name, x, spatial, self.window, self.strides, self.padding, self.dilation
        )
        channels = x.shape[sliding.channel_axis(x.rank, self.channels_last)]
        return (x.with_shape(sliding.join(x.shape[0], channels, out, self.channels_last)),)

    def identity(self, dtype: DType) -> float | int:
        """What padding counts as."""
        return 0

    def _windows(self, x: Array) -> Array:
        """[N, C, *out, *window], padding filled with the identity."""
        dtype = DType.from_numpy(x.dtype)
        first = sliding.channels_first(x, self.channels_last)
        ones = (1,) * len(self.window)
        source = sliding.padded(first, self.padding, ones, self.identity(dtype))
        return sliding.windows(source, self.window, self.strides, self.dilation)

    def _taps(self) -> tuple[int, ...]:
        rank = len(self.window)
        return tuple(range(2 + rank, 2 + 2 * rank))

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """One reduction over the window; padding is never read."""
        (x,) = operands
        work = working(x.dtype)
        value = self._reduced(e, x, index, read, work)
        return value if work is x.dtype else e.cast(value, x.dtype)

    def _reduced(
        self, e: Emitter, x: TensorType, index: Sequence[Expr], read: Read, work: DType
    ) -> Expr:
        channel = index[sliding.channel_axis(x.rank, self.channels_last)]

        def body(k: Sequence[Expr]) -> Expr:
            at, inside = self._tap(e, x, index, k)

            def term() -> Expr:
                value = read(0, sliding.place(index[0], channel, at, self.channels_last))
                return value if work is x.dtype else e.cast(value, work)

            fill = e.constant(self.identity(work), work)
            return term() if inside is None else e.guarded(inside, term, fill)

        return e.reduce(self.function, list(self.window), body, work)

    def _tap(
        self, e: Emitter, x: TensorType, index: Sequence[Expr], k: Sequence[Expr]
    ) -> tuple[list[Expr], Expr]:
        axes = sliding.spatial_axes(x.rank, self.channels_last)
        return sliding.tap(
            e,
            tuple(x.shape[a] for a in axes),
            [index[a] for a in axes],
            k,
            self.strides,
            self.padding,
            self.dilation,
            (1,) * len(axes),
            self.window,
        )

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """One per window element."""
        return results[0].size * math.prod(self.window)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """A change of layout moves behind the op."""
        layout = sliding.relayout(permutation, self.channels_last)
        return None if layout is None else (replace(self, channels_last=layout), permutation)


@dataclass(frozen=True)
class WindowSum(Window):
    """The sum of every window."""

    name: ClassVar[str] = "window_sum"

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """Sums in f64 for floats."""
        (x,) = operands
        with np.errstate(all="ignore"):
            sums = as_f64(self._windows(x)).sum(self._taps())
            return (sliding.in_layout(rounded(sums, x), self.channels_last),)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """Windows over the cotangent, its elements `strides` apart: each x is in the windows around it."""
        shape = p.b.type_of(p.operands[0]).shape
        axes = sliding.spatial_axes(len(shape), self.channels_last)
        spatial = tuple(shape[a] for a in axes)
        pads = sliding.padding_back(
            self.name, spatial, self.window, self.strides, self.padding, self.dilation
        )
        low, high, interior = ([0] * len(shape) for _ in range(3))
        for a, s, (before, after) in zip(axes, self.strides, pads, strict=True):
            low[a], high[a], interior[a] = before, after, s - 1
        spread = p.b(Pad(tuple(low), tuple(high), tuple(interior), 0.0), p.cotangent)
        rank = len(axes)
        op = WindowSum(
            self.window, (1,) * rank, ((0, 0),) * rank, self.dilation, self.channels_last
        )
        return (sliding.trimmed(p.b, p.b(op, spread), shape),)


@dataclass(frozen=True)
class AvgPool(Window):
    """The mean of every window.

    The divisor is `divisor` if given, else the window's size, or with `count_include_pad=False` the number of
    elements that are not padding (a window of padding only gives NaN). Attributes as in PyTorch, whose `ceil_mode`
    with `count_include_pad` is an explicit `Pad` before, and `count_include_pad=False` here.
    """

    name: ClassVar[str] = "avg_pool"
    kind: ClassVar[str] = "float"
    count_include_pad: bool = True
    divisor: int | None = None

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The pooled type. Raises OpError E0205-E0208, E0207 also for divisor 0."""
        if self.divisor == 0:
            raise OpError("avg_pool: divisor must not be 0", code="E0207")
        return super().infer(*operands)

    @property
    def fixed_divisor(self) -> int | None:
        """The divisor of every window if it is the same for all, else None."""
        if self.divisor is not None:
            return self.divisor
        pads = any(low > 0 or high > 0 for low, high in self.padding)
        return None if pads and not self.count_include_pad else math.prod(self.window)

    def _sum(self) -> WindowSum:
        return WindowSum(self.window, self.strides, self.padding, self.dilation, self.channels_last)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """Sums and quotients in f64."""
        (x,) = operands
        with np.errstate(all="ignore"):
            sums = as_f64(self._windows(x)).sum(self._taps())
            count: float | Array
            if self.fixed_divisor is not None:
                count = float(self.fixed_divisor)
            else:
                ones = np.ones_like(sliding.channels_first(x, self.channels_last)[:1, :1])
                plain = replace(self, channels_last=False)
                count = as_f64(plain._windows(ones)).sum(self._taps())
            return (sliding.in_layout(rounded(sums / count, x), self.channels_last),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The window's sum times a constant, or divided by a count of what is not padding."""
        (x,) = operands
        work = working(x.dtype)
        total = self._reduced(e, x, index, read, work)
        if self.fixed_divisor is not None:
            value = e.binary("mul", total, e.constant(1 / self.fixed_divisor, work))
        else:
            one, zero = e.constant(1, work), e.constant(0, work)

            def counted(k: Sequence[Expr]) -> Expr:
                _, inside = self._tap(e, x, index, k)
                return one if inside is None else e.select(inside, one, zero)

            count = e.reduce("sum", list(self.window), counted, work)
            value = e.binary("div", total, count)
        return value if work is x.dtype else e.cast(value, x.dtype)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """One per window element and one for the division."""
        return results[0].size * (math.prod(self.window) + 1)

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """A window sum, divided by the divisor or by the window sum of ones."""
        (x,) = operands
        total = b(self._sum(), x)
        if self.fixed_divisor is not None:
            return (arith.divide(b, total, float(self.fixed_divisor)),)
        type = b.type_of(x)
        channel = sliding.channel_axis(type.rank, self.channels_last)
        shape = tuple(1 if a in (0, channel) else d for a, d in enumerate(type.shape))
        ones = arith.broadcast_to(b, arith.constant(b, 1.0, type.dtype), shape)
        return (arith.divide(b, total, b(self._sum(), ones)),)
