"""The general convolution (cross-correlation, as in all of deep learning), and its gradient by the weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, Shape, floordiv, product
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import sliding
from graphc.ops.conv_gradient import (
    batch_as_channels,
    data_gradient,
    exchanged_channels,
    exchanged_padding,
)
from graphc.ops.errors import check_kind, check_length, check_positive, check_same_dtype, plural
from graphc.ops.numerics import as_f64, rounded, working


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

    def spread(self, spatial: Shape) -> Shape:
        """Spatial sizes with the holes that `lhs_dilation` makes."""
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
        spatial = self.spread(tuple(x.shape[a] for a in axes))
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
        """Two convolutions, for every attribute: of the cotangent by the weight, and of x by the cotangent."""
        x, weight = p.operands
        back = forth = None
        if p.wanted[0]:
            back = data_gradient(p.b, self, p.b.type_of(x).shape, weight, p.cotangent)
        if p.wanted[1]:
            forth = self._weight_gradient(p.b, x, p.b.type_of(weight).shape, p.cotangent)
        return back, forth

    def _weight_gradient(self, b: GraphBuilder, x: Value, shape: Shape, cotangent: Value) -> Value:
        """With holes in x (a transposed convolution) x and the cotangent change roles: its windows meet x."""
        kernel = tuple(k for k in shape[2:] if isinstance(k, int))
        none = ((0, 0),) * len(kernel)
        rest = self.rhs_dilation, none, self.groups, self.channels_last
        if len(kernel) == len(self.strides) and set(self.lhs_dilation) == {1}:
            return b(ConvWeightGradient(kernel, self.strides, self.padding, *rest), x, cotangent)
        padding = exchanged_padding(b, self, x, shape, cotangent)
        if padding is None:
            return batch_as_channels(b, self, x, shape, cotangent)
        found = b(ConvWeightGradient(kernel, self.lhs_dilation, padding, *rest), cotangent, x)
        return exchanged_channels(b, found, self.groups)

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


@dataclass(frozen=True)
class ConvWeightGradient(Op):
    """The cotangent of a convolution's weight, [O, C/groups, *kernel], from (x, the cotangent of its result).

    It is a convolution too (see `batch_as_channels`), but one with a kernel as large as an image and few, scattered
    results, which wants other loops: a long reduction over all pixels of a batch.

    Attributes are the convolution's: x is N C *S and the cotangent N O *out, or both channels last. Negative padding
    crops x. `crop` are the elements before and after each spatial dimension of the cotangent that belong to a border
    it is stored with and count for nothing. Accumulates in f64 in NumPy and in f32 (f64 for f64) in kernels.
    """

    name: ClassVar[str] = "conv_weight_gradient"
    pattern: ClassVar[Pattern] = Pattern.CONTRACT
    arity: ClassVar[int | None] = 2
    family: ClassVar[str] = "conv"
    spatial: ClassVar[bool] = True
    spatial_operands: ClassVar[int] = 2
    spatial_result: ClassVar[bool] = False
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: sliding.Padding
    dilation: tuple[int, ...]
    crop: sliding.Padding
    groups: int = 1
    channels_last: bool = False

    @property
    def forward(self) -> ConvGeneral:
        """The convolution whose weight this is the gradient of."""
        ones = (1,) * len(self.kernel)
        return ConvGeneral(
            self.strides, self.padding, ones, self.dilation, self.groups, self.channels_last
        )

    def _inner(self, cotangent: TensorType) -> tuple[DimLike, ...]:
        """The cotangent's spatial sizes without its border."""
        axes = sliding.spatial_axes(cotangent.rank, self.channels_last)
        return tuple(
            cotangent.shape[a] - (low + high)
            for a, (low, high) in zip(axes, self.crop, strict=True)
        )

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The weight's type. Raises OpError E0203 where the cotangent is not the result's, E0205-E0209."""
        x, cotangent = operands
        check_kind(self.name, x, "number", 0)
        check_same_dtype(self.name, operands)
        if x.rank < 3 or cotangent.rank != x.rank or len(self.kernel) != x.rank - 2:
            raise OpError(
                f"{self.name} takes x and a cotangent of {len(self.kernel)} spatial dimensions "
                f"and got {x} and {cotangent}",
                code="E0205",
            )
        check_positive(self.name, "groups", (self.groups,))
        channel = sliding.channel_axis(x.rank, self.channels_last)
        channels, features = x.shape[channel], cotangent.shape[channel]
        per_group = floordiv(channels, self.groups)
        weight = x.with_shape((features, per_group, *self.kernel))
        (result,) = self.forward.infer(x, weight)
        inner = sliding.join(
            cotangent.shape[0], features, self._inner(cotangent), self.channels_last
        )
        if result.shape != inner:
            raise OpError(
                f"{self.name}: the convolution of {x} gives {result} and its cotangent is "
                f"{x.with_shape(inner)}",
                operand=1,
                code="E0203",
            )
        return (weight,)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """Cotangent times windows, one sample after the other."""
        x, cotangent = (sliding.channels_first(v, self.channels_last) for v in operands)
        g, rank = self.groups, len(self.kernel)
        borders = zip(cotangent.shape[2:], self.crop, strict=True)
        inside = tuple(slice(low, size - high) for size, (low, high) in borders)
        cotangent = cotangent[(slice(None), slice(None)) + inside]  # noqa: RUF005
        source = sliding.padded(x, self.padding, (1,) * rank, 0)
        view = sliding.windows(source, self.kernel, self.strides, self.dilation)
        channels, features = x.shape[1], cotangent.shape[1]
        per_group, out = channels // g, cotangent.shape[2:]
        order = (0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
        total = np.zeros((g, features // g, per_group * math.prod(self.kernel)), np.float64)
        total = total.astype(as_f64(x[:0]).dtype)
        with np.errstate(all="ignore"):
            for sample, given in zip(view, cotangent, strict=True):
                columns = sample.reshape(g, per_group, *out, *self.kernel).transpose(order)
                matrix = as_f64(columns.reshape(g, math.prod(out), -1))
                total += as_f64(given.reshape(g, features // g, -1)) @ matrix
        shape = (features, per_group, *self.kernel)
        return (rounded(total.reshape(shape), operands[0]),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """One sum over the batch and all output positions; padding is never read."""
        x, cotangent = operands
        work = working(x.dtype)
        axes = sliding.spatial_axes(x.rank, self.channels_last)
        feature, channel, *taps = index
        per_group = floordiv(
            cotangent.shape[sliding.channel_axis(x.rank, self.channels_last)], self.groups
        )
        if self.groups > 1:
            size = floordiv(x.shape[sliding.channel_axis(x.rank, self.channels_last)], self.groups)
            channel = channel + feature // e.dim(per_group) * e.dim(size)

        def wide(value: Expr) -> Expr:
            return value if work is x.dtype else e.cast(value, work)

        def body(k: Sequence[Expr]) -> Expr:
            n, *out = k
            at, inside = sliding.tap(
                e,
                tuple(x.shape[a] for a in axes),
                out,
                taps,
                self.strides,
                self.padding,
                self.dilation,
                (1,) * len(axes),
                self.kernel,
            )
            place = [o + low for o, (low, _) in zip(out, self.crop, strict=True)]

            def term() -> Expr:
                value = read(0, sliding.place(n, channel, at, self.channels_last))
                given = read(1, sliding.place(n, feature, place, self.channels_last))
                return e.binary("mul", wide(value), wide(given))

            return term() if inside is None else e.guarded(inside, term, e.constant(0, work))

        value = e.reduce("sum", [x.shape[0], *self._inner(cotangent)], body, work)
        return value if work is x.dtype else e.cast(value, x.dtype)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """It is linear in both: x and the cotangent each meet the weight's cotangent in a convolution."""
        x, cotangent = p.operands
        plain = replace(self, crop=((0, 0),) * len(self.kernel))
        if plain != self:
            inner = sliding.cropped(p.b, cotangent, self.crop, self.channels_last)
            return p.through(p.b.emit(plain, x, inner))
        shape, op = p.b.type_of(x).shape, self.forward
        back = data_gradient(p.b, op, shape, p.cotangent, cotangent) if p.wanted[0] else None
        return back, p.b(op, x, p.cotangent) if p.wanted[1] else None

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """Two per multiply-add; products with padding zeros count."""
        x, cotangent = operands
        return results[0].size * x.shape[0] * product(self._inner(cotangent)) * 2
