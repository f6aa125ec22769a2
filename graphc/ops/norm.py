"""Softmax and the normalisations.

Decompositions reduce, broadcast back and go on elementwise, numerically safe (the maximum is subtracted, variances
take two passes), so that a row kernel can run them in place. Half precision is computed in f32, NumPy's meaning in
f64. Weights and biases are optional operands at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, Shape, floordiv
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, Op, OpError, Stacked
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import arith
from graphc.ops.composite import Composite, in_working_precision, spread_vector
from graphc.ops.errors import check_axis, check_kind, check_positive, check_vector
from graphc.ops.numerics import as_f64, rounded
from graphc.ops.sliding import relayout
from graphc.ops.unary import Exp, Log, Rsqrt


def _back(b: GraphBuilder, reduced: Value, shape: Shape, axes: tuple[int, ...]) -> Value:
    """What a reduction over `axes` gave, repeated along them."""
    kept = tuple(a for a in range(len(shape)) if a not in axes)
    return arith.as_spread(b, reduced, shape, kept)


@dataclass(frozen=True)
class _SoftmaxLike(Composite):
    """Base of softmax and its logarithm along `axis`."""

    arity: ClassVar[int | None] = 1
    family: ClassVar[str] = "norm"
    expensive: ClassVar[bool] = True
    axis: int

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The same, one axis further."""
        return Stacked(replace(self, axis=self.axis + 1))

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's type. Raises OpError E0206 or E0211."""
        (x,) = operands
        check_kind(self.name, x, "float", 0)
        check_axis(self.name, self.axis, x.rank, x.shape)
        return (x,)

    def _shifted(self, b: GraphBuilder, x: Value) -> tuple[Value, Shape]:
        """x minus its maximum along the axis, in working precision."""
        (wide,) = in_working_precision(b, x)
        shape = b.type_of(x).shape
        top = _back(b, arith.max(b, wide, self.axis), shape, (self.axis,))
        return arith.subtract(b, wide, top), shape

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same op along the axis the transpose brought here."""
        return replace(self, axis=permutation[self.axis]), permutation


@dataclass(frozen=True)
class Softmax(_SoftmaxLike):
    """exp(x) / sum(exp(x)) along `axis`."""

    name: ClassVar[str] = "softmax"

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64, with the maximum subtracted."""
        x = as_f64(operands[0])
        with np.errstate(all="ignore"):
            top = x.max(self.axis, keepdims=True, initial=-np.inf)
            powers = np.exp(x - top)
            return (rounded(powers / powers.sum(self.axis, keepdims=True), operands[0]),)

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """Maximum, difference, exp, sum, quotient."""
        shifted, shape = self._shifted(b, operands[0])
        powers = b(Exp(), shifted)
        total = _back(b, arith.sum(b, powers, self.axis), shape, (self.axis,))
        return (arith.convert(b, arith.divide(b, powers, total), b.type_of(operands[0]).dtype),)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """y (g - sum(g y)), in working precision."""
        y, g = in_working_precision(p.b, p.results[0], p.cotangent)
        type = p.b.type_of(p.results[0])
        total = arith.sum(p.b, arith.multiply(p.b, g, y), self.axis)
        centred = arith.subtract(p.b, g, _back(p.b, total, type.shape, (self.axis,)))
        return (arith.convert(p.b, arith.multiply(p.b, y, centred), type.dtype),)


@dataclass(frozen=True)
class LogSoftmax(_SoftmaxLike):
    """x - log(sum(exp(x))) along `axis`."""

    name: ClassVar[str] = "log_softmax"

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64, with the maximum subtracted."""
        x = as_f64(operands[0])
        with np.errstate(all="ignore"):
            shifted = x - x.max(self.axis, keepdims=True, initial=-np.inf)
            total = np.log(np.exp(shifted).sum(self.axis, keepdims=True))
            return (rounded(shifted - total, operands[0]),)

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """Maximum, difference, exp, sum, log, difference."""
        shifted, shape = self._shifted(b, operands[0])
        total = arith.sum(b, b(Exp(), shifted), self.axis)
        logs = _back(b, b(Log(), total), shape, (self.axis,))
        dtype = b.type_of(operands[0]).dtype
        return (arith.convert(b, arith.subtract(b, shifted, logs), dtype),)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """g - exp(y) sum(g), in working precision."""
        y, g = in_working_precision(p.b, p.results[0], p.cotangent)
        type = p.b.type_of(p.results[0])
        total = _back(p.b, arith.sum(p.b, g, self.axis), type.shape, (self.axis,))
        share = arith.multiply(p.b, p.b(Exp(), y), total)
        return (arith.convert(p.b, arith.subtract(p.b, g, share), type.dtype),)


def _centred(b: GraphBuilder, x: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
    """x minus its mean over `axes`, and the variance (biased, two passes) with the axes dropped."""
    shape = b.type_of(x).shape
    centred = arith.subtract(b, x, _back(b, arith.mean(b, x, axes), shape, axes))
    return centred, arith.mean(b, arith.multiply(b, centred, centred), axes)


def _scaled(b: GraphBuilder, x: Value, square: Value, eps: float, axes: tuple[int, ...]) -> Value:
    """x / sqrt(square + eps), square being a reduction of x over `axes`."""
    factor = b(Rsqrt(), arith.add(b, square, eps))
    return arith.multiply(b, x, _back(b, factor, b.type_of(x).shape, axes))


@dataclass(frozen=True)
class LayerNorm(Composite):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last `dims` dimensions (Ba et al. 2016).

    Operands (x, weight, bias); weight and bias have the shape of those dimensions and may be left out from the end.
    """

    name: ClassVar[str] = "layer_norm"
    family: ClassVar[str] = "norm"
    expensive: ClassVar[bool] = True
    operand_names: ClassVar[tuple[str, ...]] = ("x", "weight", "bias")
    dims: int
    eps: float

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The op itself: its dimensions are the last ones."""
        return None if any(each[1:]) else Stacked(self)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's type. Raises OpError E0201, E0206, E0207 or E0214."""
        self.check_count(operands)
        x = operands[0]
        check_kind(self.name, x, "float", 0)
        if not 1 <= self.dims <= x.rank:
            raise OpError(
                f"{self.name}: cannot normalise the last {self.dims} dimensions of {x}",
                operand=0,
                code="E0207",
            )
        inner = x.shape[x.rank - self.dims :]
        for slot, vector in enumerate(operands[1:], 1):
            check_vector(self.name, self.operand_names[slot], vector, x, inner, slot)
        return (x,)

    def _axes(self, rank: int) -> tuple[int, ...]:
        return tuple(range(rank - self.dims, rank))

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64, variance in two passes."""
        x, axes = as_f64(operands[0]), self._axes(operands[0].ndim)
        with np.errstate(all="ignore"):
            centred = x - x.mean(axes, keepdims=True)
            out = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + self.eps)
            return (rounded(_affine(out, operands[1:]), operands[0]),)

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """Mean, difference, mean of squares, rsqrt, product, weight, bias."""
        x, *vectors = in_working_precision(b, *operands)
        type = b.type_of(x)
        axes = self._axes(type.rank)
        out = _scaled(b, *_centred(b, x, axes), self.eps, axes)
        out = _with_affine(b, out, vectors, axes[0])
        return (arith.convert(b, out, b.type_of(operands[0]).dtype),)


@dataclass(frozen=True)
class RmsNorm(LayerNorm):
    """x / sqrt(mean(x^2) + eps) * weight over the last `dims` dimensions (Zhang & Sennrich 2019).

    Operands (x, weight); the weight may be left out.
    """

    name: ClassVar[str] = "rms_norm"
    operand_names: ClassVar[tuple[str, ...]] = ("x", "weight")

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64."""
        x, axes = as_f64(operands[0]), self._axes(operands[0].ndim)
        with np.errstate(all="ignore"):
            out = x / np.sqrt((x**2).mean(axes, keepdims=True) + self.eps)
            return (rounded(_affine(out, operands[1:]), operands[0]),)

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """Mean of squares, rsqrt, product, weight."""
        x, *vectors = in_working_precision(b, *operands)
        axes = self._axes(b.type_of(x).rank)
        square = arith.mean(b, arith.multiply(b, x, x), axes)
        out = _with_affine(b, _scaled(b, x, square, self.eps, axes), vectors, axes[0])
        return (arith.convert(b, out, b.type_of(operands[0]).dtype),)


def _affine(x: Array, vectors: tuple[Array, ...]) -> Array:
    """x times the first vector plus the second, where given; they line up with the last axes."""
    if vectors:
        x = x * as_f64(vectors[0])
    return x + as_f64(vectors[1]) if len(vectors) > 1 else x


def _with_affine(b: GraphBuilder, x: Value, vectors: list[Value], first: int) -> Value:
    """`_affine` as nodes; the vectors' dimensions start at axis `first`."""
    shape = b.type_of(x).shape
    if vectors:
        x = arith.multiply(b, x, spread_vector(b, vectors[0], shape, first))
    if len(vectors) > 1:
        x = arith.add(b, x, spread_vector(b, vectors[1], shape, first))
    return x


@dataclass(frozen=True)
class BatchNorm(Composite):
    """(x - mean) / sqrt(var + eps) * weight + bias with given statistics (Ioffe & Szegedy 2015, inference).

    Operands (x, mean, var, weight, bias), all but x one number per position of `axis`; weight and bias may be left
    out from the end.
    """

    name: ClassVar[str] = "batch_norm"
    family: ClassVar[str] = "norm"
    operand_names: ClassVar[tuple[str, ...]] = ("x", "mean", "var", "weight", "bias")
    required: ClassVar[int] = 3
    axis: int
    eps: float

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's type. Raises OpError E0201, E0206, E0211 or E0214."""
        self.check_count(operands)
        x = operands[0]
        check_kind(self.name, x, "float", 0)
        check_axis(self.name, self.axis, x.rank, x.shape, 0)
        for slot, vector in enumerate(operands[1:], 1):
            what = self.operand_names[slot]
            check_vector(self.name, what, vector, x, (x.shape[self.axis],), slot)
        return (x,)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64."""
        x, mean, var, *vectors = (as_f64(v) for v in operands)
        with np.errstate(all="ignore"):
            last = (np.moveaxis(x, self.axis, -1) - mean) / np.sqrt(var + self.eps)
            out = np.moveaxis(_affine(last, tuple(vectors)), -1, self.axis)
            return (np.ascontiguousarray(rounded(out, operands[0])),)

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """x times one vector plus another; both depend on parameters only and are computed at build time."""
        x, mean, var, *vectors = in_working_precision(b, *operands)
        scale = b(Rsqrt(), arith.add(b, var, self.eps))
        if vectors:
            scale = arith.multiply(b, scale, vectors[0])
        shift = arith.multiply(b, mean, scale)
        bias = vectors[1] if len(vectors) > 1 else 0.0
        shift = arith.subtract(b, bias, shift)
        out = _with_affine(b, x, [scale, shift], self.axis)
        return (arith.convert(b, out, b.type_of(operands[0]).dtype),)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """Two sums, of g and of g (x - mean), give the vectors' cotangents; in working precision."""
        b = p.b
        g, x, mean, var, *vectors = in_working_precision(b, p.cotangent, *p.operands)
        shape = b.type_of(x).shape
        axes = tuple(a for a in range(len(shape)) if a != self.axis)
        factor = b(Rsqrt(), arith.add(b, var, self.eps))
        scale = arith.multiply(b, factor, vectors[0]) if vectors else factor
        centred = arith.subtract(b, x, arith.as_spread(b, mean, shape, (self.axis,)))
        total = arith.sum(b, g, axes)
        moment = arith.multiply(b, arith.sum(b, arith.multiply(b, g, centred), axes), factor)
        cube = arith.multiply(b, arith.multiply(b, factor, scale), -0.5)
        found = [
            arith.multiply(b, g, arith.as_spread(b, scale, shape, (self.axis,))),
            arith.multiply(b, arith.multiply(b, total, scale), -1.0),
            arith.multiply(b, moment, cube),
            moment,
            total,
        ]
        pairs = zip(found, p.operands, strict=False)
        return tuple(arith.convert(b, f, b.type_of(v).dtype) for f, v in pairs)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same op along the axis the transpose of x brought here; the vectors stay."""
        return BatchNorm(permutation[self.axis], self.eps), permutation


@dataclass(frozen=True)
class GroupNorm(Composite):
    """Normalises every sample's groups of channels over channels and space (Wu & He 2018).

    Operands (x, weight, bias): x is N C *S, or N *S C with `channels_last`; weight and bias [C] may be left out from
    the end. `groups = C` is instance normalisation.
    """

    name: ClassVar[str] = "group_norm"
    family: ClassVar[str] = "norm"
    expensive: ClassVar[bool] = True
    spatial: ClassVar[bool] = True
    operand_names: ClassVar[tuple[str, ...]] = ("x", "weight", "bias")
    groups: int
    eps: float
    channels_last: bool = False

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's type. Raises OpError E0201, E0205-E0207, E0209 or E0214."""
        self.check_count(operands)
        x = operands[0]
        check_kind(self.name, x, "float", 0)
        if x.rank < 2:
            raise OpError(
                f"group_norm takes a batch and channels and got {x}", operand=0, code="E0205"
            )
        check_positive(self.name, "groups", (self.groups,))
        channels = x.shape[self._channel(x.rank)]
        if floordiv(channels, self.groups) * self.groups != channels:
            raise OpError(
                f"group_norm: {channels} channels of {x} do not divide into {self.groups} groups",
                operand=0,
                code="E0209",
            )
        for slot, vector in enumerate(operands[1:], 1):
            check_vector(self.name, self.operand_names[slot], vector, x, (channels,), slot)
        return (x,)

    def _channel(self, rank: int) -> int:
        return rank - 1 if self.channels_last else 1

    def _grouped(self, shape: Shape) -> tuple[tuple[DimLike, ...], tuple[int, ...]]:
        """The shape with channels split into groups, and the axes of one group."""
        rank, channel = len(shape), self._channel(len(shape))
        split = (self.groups, floordiv(shape[channel], self.groups))
        axes = tuple(a for a in range(1, rank + 1) if a != channel)
        return (*shape[:channel], *split, *shape[channel + 1 :]), axes

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64, variance in two passes."""
        x = operands[0]
        shape, axes = self._grouped(x.shape)
        with np.errstate(all="ignore"):
            grouped = as_f64(x).reshape(tuple(int(d) for d in shape if isinstance(d, int)))
            centred = grouped - grouped.mean(axes, keepdims=True)
            out = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + self.eps)
            last = np.moveaxis(out.reshape(x.shape), self._channel(x.ndim), -1)
            result = np.moveaxis(_affine(last, operands[1:]), -1, self._channel(x.ndim))
            return (np.ascontiguousarray(rounded(result, x)),)

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """A reshape to groups, the steps of `LayerNorm` over each, a reshape back, weight, bias."""
        x, *vectors = in_working_precision(b, *operands)
        shape = b.type_of(x).shape
        split, axes = self._grouped(shape)
        grouped = arith.reshape(b, x, split)
        out = _scaled(b, *_centred(b, grouped, axes), self.eps, axes)
        out = _with_affine(b, arith.reshape(b, out, shape), vectors, self._channel(len(shape)))
        return (arith.convert(b, out, b.type_of(operands[0]).dtype),)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """A change of x's layout moves behind the op; the vectors stay."""
        layout = relayout(permutation, self.channels_last)
        return None if layout is None else (replace(self, channels_last=layout), permutation)
