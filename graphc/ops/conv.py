"""The general convolution (cross-correlation, as in all of deep learning)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, Shape, floordiv, product
from graphc.ir.graph import Value
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import sliding
from graphc.ops.errors import check_kind, check_length, check_positive, check_same_dtype, plural
from graphc.ops.numerics import as_f64, rounded, working
from graphc.ops.shape import Reverse, Transpose


@dataclass(frozen=True)
class ConvGeneral(Op):
    """Grouped convolution with strides, padding and dilation of both operands; operands (x, weight).

    x is N C *S, or N *S C with `channels_last`; weight is always O C/groups *K; the result has x's layout.
    `lhs_dilation` puts zeros between x's elements before padding: a transposed convolution is a convolution with
    `lhs_dilation = stride` of the flipped weight (Dumoulin & Visin 2016). Negative padding crops. Accumulates in f64
    in NumPy and in f32 (f64 for f64) in kernels.
    """

    name: ClassVar[str] = "conv_general"
    pattern: ClassVar[Pattern] = Pattern.CONTRACT
    arity: ClassVar[int | None] = 2
    family: ClassVar[str] = "conv"
    spatial: ClassVar[bool] = True
    strides: tuple[int, ...]
    padding: sliding.Padding
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    groups: int = 1
    channels_last: bool = False

    @staticmethod
    def simple(
        rank: int,
        *,
        strides: Sequence[int] | int = 1,
        padding: Sequence[tuple[int, int]] | int = 0,
        dilation: Sequence[int] | int = 1,
        groups: int = 1,
        channels_last: bool = False,
    ) -> ConvGeneral:
        """A convolution over `rank` spatial dimensions; single numbers count for all of them."""

        def each(value: Sequence[int] | int) -> tuple[int, ...]:
            return (value,) * rank if isinstance(value, int) else tuple(value)

        pads = ((padding, padding),) * rank if isinstance(padding, int) else tuple(padding)
        ones = (1,) * rank
        return ConvGeneral(each(strides), pads, ones, each(dilation), groups, channels_last)

    def _spread(self, spatial: Shape) -> Shape:
        return tuple(
            d if s == 1 or d == 0 else (d - 1) * s + 1
            for d, s in zip(spatial, self.lhs_dilation, strict=True)
        )

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The result in x's layout. Raises OpError E0203 (channels), E0205-E0209."""
        x, weight = operands
        check_kind(self.name, x, "number", 0)
        check_same_dtype(self.name, operands)
        if x.rank < 3:
            raise OpError(
                f"conv_general takes a batch, channels and spatial dimensions and got {x}",
                operand=0,
                code="E0205",
            )
        if weight.rank != x.rank:
            raise OpError(
                f"conv_general of {x} needs a weight of {plural(x.rank, 'dimension')} "
                f"and got {weight}",
                operand=1,
                code="E0205",
            )
        axes = sliding.spatial_axes(x.rank, self.channels_last)
        check_length(self.name, "lhs_dilation", self.lhs_dilation, len(axes), x.shape)
        check_positive(self.name, "lhs_dilation", self.lhs_dilation)
        check_positive(self.name, "groups", (self.groups,))
        channels = x.shape[sliding.channel_axis(x.rank, self.channels_last)]
        out_channels, per_group, *kernel = weight.shape
        for what, count, slot in (("input", channels, 0), ("output", out_channels, 1)):
            if floordiv(count, self.groups) * self.groups != count:
                raise OpError(
                    f"conv_general: {count} {what} channels of {operands[slot]} do not divide "
                    f"into {self.groups} groups",
                    operand=slot,
                    code="E0209",
                )
        if per_group * self.groups != channels:
            raise OpError(
                f"conv_general of {x} and weight {weight}: the weight is for "
                f"{per_group * self.groups} input channels and x has {channels}",
                operand=1,
                code="E0203",
                help="channels come second in x"
                if not self.channels_last
                else "channels come last in x",
            )
        spatial = self._spread(tuple(x.shape[a] for a in axes))
        out = sliding.check_window(
            self.name, x, spatial, kernel, self.strides, self.padding, self.rhs_dilation
        )
        return (x.with_shape(sliding.join(x.shape[0], out_channels, out, self.channels_last)),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """Windows times weights, one sample after the other, so that memory stays small."""
        x, weight = operands
        o, per_group, *kernel = weight.shape
        g, taps = self.groups, per_group * math.prod(kernel)
        source = sliding.padded(
            sliding.channels_first(x, self.channels_last), self.padding, self.lhs_dilation, 0
        )
        view = sliding.windows(source, kernel, self.strides, self.rhs_dilation)
        rank, out = len(kernel), view.shape[2 : 2 + len(kernel)]
        matrix = as_f64(weight).reshape(g, o // g, taps)
        result = np.empty((x.shape[0], o, *out), x.dtype)
        order = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
        with np.errstate(all="ignore"):
            for n, sample in enumerate(view):
                taps_first = sample.reshape(g, per_group, *out, *kernel).transpose(order)
                columns = np.array(taps_first, matrix.dtype, order="C")
                product = np.matmul(matrix, columns.reshape(g, taps, math.prod(out)))
                result[n] = rounded(product, x).reshape(o, *out)
        return (sliding.in_layout(result, self.channels_last),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """One sum over input channels and kernel positions; padding is never read."""
        x, weight = operands
        work = working(x.dtype)
        axes = sliding.spatial_axes(x.rank, self.channels_last)
        channel = index[sliding.channel_axis(x.rank, self.channels_last)]
        spatial = tuple(x.shape[a] for a in axes)
        o, per_group, *kernel = weight.shape
        first: Expr = None
        if self.groups > 1:
            first = channel // e.dim(floordiv(o, self.groups)) * e.dim(per_group)

        def wide(value: Expr) -> Expr:
            return value if work is x.dtype else e.cast(value, work)

        def body(k: Sequence[Expr]) -> Expr:
            at, inside = sliding.tap(
                e,
                spatial,
                [index[a] for a in axes],
                k[1:],
                self.strides,
                self.padding,
                self.rhs_dilation,
                self.lhs_dilation,
                kernel,
            )
            source = k[0] if first is None else first + k[0]

            def term() -> Expr:
                value = read(0, sliding.place(index[0], source, at, self.channels_last))
                return e.binary("mul", wide(value), wide(read(1, [channel, *k])))

            return term() if inside is None else e.guarded(inside, term, e.constant(0, work))

        value = e.reduce("sum", [per_group, *kernel], body, work)
        return value if work is x.dtype else e.cast(value, x.dtype)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """Two convolutions, for every attribute: of the cotangent by the weight, and of x by the cotangent.

        Dumoulin & Visin 2016; strides and dilations of x change places, for the weight those of the weight and strides.
        """
        return (
            self._data_gradient(p) if p.wanted[0] else None,
            self._weight_gradient(p) if p.wanted[1] else None,
        )

    def _data_gradient(self, p: Pullback) -> Value:
        """The flipped weight over the cotangent, with input and output channels of each group exchanged."""
        x, weight = p.operands
        shape = p.b.type_of(x).shape
        out, per_group, *kernel = p.b.type_of(weight).shape
        g, axes = self.groups, sliding.spatial_axes(len(shape), self.channels_last)
        taps = tuple(range(2, 2 + len(kernel)))
        flipped = p.b(Reverse(taps), weight) if any(k != 1 for k in kernel) else weight
        split = p.reshape(flipped, (g, floordiv(out, g), per_group, *kernel))
        swapped = p.b(Transpose((0, 2, 1, *(t + 1 for t in taps))), split)
        turned = p.reshape(swapped, (per_group * g, floordiv(out, g), *kernel))
        padding = sliding.padding_back(
            self.name,
            self._spread(tuple(shape[a] for a in axes)),
            kernel,
            self.strides,
            self.padding,
            self.rhs_dilation,
        )
        op = replace(self, strides=self.lhs_dilation, lhs_dilation=self.strides, padding=padding)
        return sliding.trimmed(p.b, p.b(op, p.cotangent, turned), shape)

    def _weight_gradient(self, p: Pullback) -> Value:
        """The cotangent as the weight over x, with batch and channels exchanged: N inputs per group, one per output."""
        x, cotangent = p.operands[0], p.cotangent
        if self.channels_last:
            rank = p.b.type_of(x).rank
            first = (0, rank - 1, *range(1, rank - 1))
            x, cotangent = p.b(Transpose(first), x), p.b(Transpose(first), cotangent)
        n, channels, *spatial = p.b.type_of(x).shape
        weight = p.b.type_of(p.operands[1]).shape
        g, rest = self.groups, tuple(range(2, len(weight)))
        grouped = p.reshape(x, (n, g, floordiv(channels, g), *spatial))
        turned = p.b(Transpose((2, 1, 0, *(a + 1 for a in rest))), grouped)
        source = p.reshape(turned, (floordiv(channels, g), n * g, *spatial))
        taps = p.b(Transpose((1, 0, *rest)), cotangent)
        padding = []
        for axis, size in enumerate(self._spread(tuple(spatial))):
            reach = (weight[2 + axis] - 1) * self.rhs_dilation[axis] + 1
            low, high = self.padding[axis]
            left = sliding.left_over(size, reach, self.strides[axis], (low, high))
            padding.append((low, high - (left or 0)))
        op = ConvGeneral(
            self.rhs_dilation, tuple(padding), self.lhs_dilation, self.strides, g, False
        )
        found = sliding.trimmed(p.b, p.b(op, source, taps), (weight[1], weight[0], *weight[2:]))
        return p.b(Transpose((1, 0, *rest)), found)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """Two per multiply-add; products with padding zeros count."""
        return results[0].size * product(operands[1].shape[1:]) * 2

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """A change of x's layout becomes one of the result's; the weight stays."""
        layout = sliding.relayout(permutation, self.channels_last)
        if layout is None:
            return None
        changed = ConvGeneral(
            self.strides, self.padding, self.lhs_dilation, self.rhs_dilation, self.groups, layout
        )
        return changed, permutation
