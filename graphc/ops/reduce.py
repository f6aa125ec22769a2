"""Reductions over axes, which are dropped from the shape.

Float sums and products accumulate in f64 in NumPy and in f32 (f64 for f64) in kernels; integers wrap around. A
reduction over nothing gives the identity: 0, 1, -inf or the smallest integer, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Value
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read, Stacked
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops.errors import check_axes, check_axis, check_kind, show
from graphc.ops.numerics import accumulator, integer_range, rounded, working
from graphc.ops.shape import Pad, Transpose, inverse
from graphc.ops.source import Iota


def lowest(dtype: DType) -> float | int:
    """The identity of max: -inf, or the smallest integer."""
    return -np.inf if dtype.is_float else integer_range(dtype)[0]


def highest(dtype: DType) -> float | int:
    """The identity of min: inf, or the largest integer."""
    return np.inf if dtype.is_float else integer_range(dtype)[1]


def _spread(axes: Sequence[int], rank: int, kept: Sequence[Expr], k: Sequence[Expr]) -> list[Expr]:
    """The operand index for a result index and a position in the reduced box."""
    inner, outer = iter(k), iter(kept)
    return [next(inner) if axis in axes else next(outer) for axis in range(rank)]


def _moved(axes: Sequence[int], permutation: tuple[int, ...]) -> tuple[list[int], tuple[int, ...]]:
    """Reduced axes in front of a transpose, and the permutation of what is left."""
    before = sorted(permutation[a] for a in axes)
    left = [a for a in range(len(permutation)) if a not in before]
    kept = [p for i, p in enumerate(permutation) if i not in axes]
    return before, tuple(left.index(p) for p in kept)


@dataclass(frozen=True)
class Reduce(Op):
    """Base of the reductions. `function` is the emitter's reduction; `axes` are reduced and dropped."""

    pattern: ClassVar[Pattern] = Pattern.REDUCE
    arity: ClassVar[int | None] = 1
    family: ClassVar[str] = "reduce"
    kind: ClassVar[str] = "number"
    function: ClassVar[str]
    axes: tuple[int, ...]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The operand's type without the axes. Raises OpError E0206 or E0211."""
        (x,) = operands
        check_kind(self.name, x, self.kind, 0)
        check_axes(self.name, self.axes, x.rank, x.shape)
        return (x.with_shape(tuple(d for i, d in enumerate(x.shape) if i not in self.axes)),)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The same reduction, one axis further."""
        return Stacked(replace(self, axes=tuple(a + 1 for a in self.axes)))

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The reduction, accumulated in f64 for floats."""
        (x,) = operands
        dtype = DType.from_numpy(x.dtype)
        with np.errstate(all="ignore"):
            return (rounded(self.reduced(x, accumulator(dtype), self.axes), dtype),)

    def reduced(self, x: Array, dtype: DType, axes: tuple[int, ...]) -> Array:
        """NumPy's reduction of `x` in an element type to accumulate in."""
        raise TypeError(f"{type(self).__name__} has no NumPy meaning")

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """One `e.reduce` over the box of reduced axes, in f32 for f16 and bf16."""
        (x,) = operands
        work = working(x.dtype)
        extents = [x.shape[a] for a in sorted(self.axes)]

        def body(k: Sequence[Expr]) -> Expr:
            value = read(0, _spread(self.axes, x.rank, index, k))
            return value if work is x.dtype else e.cast(value, work)

        value = e.reduce(self.function, extents, body, work)
        return value if work is x.dtype else e.cast(value, x.dtype)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """One per operand element."""
        return operands[0].size

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same reduction of the axes the transpose brought here."""
        before, after = _moved(self.axes, permutation)
        return type(self)(tuple(before)), after


@dataclass(frozen=True)
class ReduceSum(Reduce):
    """The sum over `axes`."""

    name: ClassVar[str] = "reduce_sum"
    function: ClassVar[str] = "sum"

    def reduced(self, x: Array, dtype: DType, axes: tuple[int, ...]) -> Array:
        """Pairwise sums."""
        return np.asarray(np.sum(x, axis=axes, dtype=dtype.numpy))

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent, repeated."""
        return (p.spread(p.cotangent, p.b.type_of(p.operands[0]).shape, self.axes),)


@dataclass(frozen=True)
class ReduceProd(Reduce):
    """The product over `axes`."""

    name: ClassVar[str] = "reduce_prod"
    function: ClassVar[str] = "prod"

    def reduced(self, x: Array, dtype: DType, axes: tuple[int, ...]) -> Array:
        """Products in order."""
        return np.asarray(np.prod(x, axis=axes, dtype=dtype.numpy))

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent times the product of all other elements, exact where some are 0."""
        shape = p.b.type_of(p.operands[0]).shape
        order = (*(a for a in range(len(shape)) if a not in self.axes), *sorted(self.axes))
        moved = p.b(Transpose(order), p.operands[0])
        kept = tuple(shape[a] for a in order[: len(shape) - len(self.axes)])
        flat = (*kept, product(shape[a] for a in self.axes))
        others = _others(p, p.reshape(moved, flat))
        pulled = p.arithmetic(flat).binary("mul", p.spread(p.cotangent, flat, (len(kept),)), others)
        back = p.reshape(pulled, tuple(shape[a] for a in order))
        return (p.b(Transpose(inverse(order)), back),)


def _others(p: Pullback, x: Value) -> Value:
    """For each element the product of all others along the last axis.

    What lies before times what lies after, in log2(n) steps; one product of n elements for each where n is named.
    """
    shape = p.b.type_of(x).shape
    *lead, n = shape
    e, rest = p.arithmetic(shape), (0,) * len(lead)
    result: Value
    if not isinstance(n, int):
        square = (*shape, n)
        f = p.arithmetic(square)
        row, column = (p.b(Iota(DType.I64, square, axis)) for axis in (len(shape) - 1, len(shape)))
        repeated = p.spread(x, square, (len(shape) - 1,))
        one = f.constant(1.0, p.b.type_of(x).dtype)
        without = f.select(f.compare("eq", row, column), one, repeated)
        result = p.b(ReduceProd((len(shape),)), without)
        return result

    def shifted(value: Value, low: int) -> Value:
        return p.b(Pad((*rest, low), (*rest, -low), (*rest, 0), 1.0), value)

    def beyond(sign: int) -> Value:
        value, step = shifted(x, sign), 1
        while step < n:
            value = e.binary("mul", value, shifted(value, sign * step))
            step *= 2
        return value

    result = e.binary("mul", beyond(1), beyond(-1))
    return result


def _to_the_extremes(p: Pullback, axes: tuple[int, ...]) -> Value:
    """The cotangent of x where x equals the only result, divided by how many do; counted in working precision."""
    (x,), (y,) = p.operands, p.results
    type, kept = p.b.type_of(x), p.b.type_of(y).shape
    wide, inner, outer = working(type.dtype), p.arithmetic(type.shape), p.arithmetic(kept)
    hit = inner.compare("eq", x, p.spread(y, type.shape, axes))
    count = p.sum(inner.cast(hit, wide), axes)
    share = outer.cast(outer.binary("div", outer.cast(p.cotangent, wide), count), type.dtype)
    result: Value = inner.select(
        hit, p.spread(share, type.shape, axes), inner.constant(0.0, type.dtype)
    )
    return result


@dataclass(frozen=True)
class ReduceMax(Reduce):
    """The maximum over `axes`; NaN if there is one."""

    name: ClassVar[str] = "reduce_max"
    function: ClassVar[str] = "max"

    def reduced(self, x: Array, dtype: DType, axes: tuple[int, ...]) -> Array:
        """Maxima, the identity for nothing."""
        initial = lowest(DType.from_numpy(x.dtype))
        return np.asarray(np.max(x.astype(dtype.numpy), axis=axes, initial=initial))

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent in equal shares to all maxima (torch.amax)."""
        return (_to_the_extremes(p, self.axes),)


@dataclass(frozen=True)
class ReduceMin(Reduce):
    """The minimum over `axes`; NaN if there is one."""

    name: ClassVar[str] = "reduce_min"
    function: ClassVar[str] = "min"

    def reduced(self, x: Array, dtype: DType, axes: tuple[int, ...]) -> Array:
        """Minima, the identity for nothing."""
        initial = highest(DType.from_numpy(x.dtype))
        return np.asarray(np.min(x.astype(dtype.numpy), axis=axes, initial=initial))

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent in equal shares to all minima (torch.amin)."""
        return (_to_the_extremes(p, self.axes),)


@dataclass(frozen=True)
class ReduceAny(Reduce):
    """True where any element along `axes` is true."""

    name: ClassVar[str] = "reduce_any"
    function: ClassVar[str] = "any"
    kind: ClassVar[str] = "bool"

    def reduced(self, x: Array, dtype: DType, axes: tuple[int, ...]) -> Array:
        """Logical or."""
        return np.asarray(np.any(x, axis=axes))


@dataclass(frozen=True)
class ReduceAll(Reduce):
    """True where all elements along `axes` are true."""

    name: ClassVar[str] = "reduce_all"
    function: ClassVar[str] = "all"
    kind: ClassVar[str] = "bool"

    def reduced(self, x: Array, dtype: DType, axes: tuple[int, ...]) -> Array:
        """Logical and."""
        return np.asarray(np.all(x, axis=axes))


@dataclass(frozen=True)
class ArgReduce(Op):
    """Base of argmax and argmin: the i64 position along `axis`, which is dropped.

    The first of equal elements wins; the first NaN wins over everything (NumPy and PyTorch).
    """

    pattern: ClassVar[Pattern] = Pattern.REDUCE
    arity: ClassVar[int | None] = 1
    family: ClassVar[str] = "reduce"
    function: ClassVar[str]
    axis: int

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """i64 without the axis. Raises OpError E0206 (bool), E0211, or E0207 for an empty axis."""
        (x,) = operands
        check_kind(self.name, x, "number", 0)
        check_axis(self.name, self.axis, x.rank, x.shape)
        if x.shape[self.axis] == 0:
            raise OpError(
                f"{self.name}: axis {self.axis} of {show(x.shape)} has no elements",
                operand=0,
                code="E0207",
            )
        shape = x.shape[: self.axis] + x.shape[self.axis + 1 :]
        return (TensorType(DType.I64, shape),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The extreme value first, then the smallest position that holds it (or NaN)."""
        (x,) = operands
        work, size = working(x.dtype), x.shape[self.axis]

        def at(k: Sequence[Expr]) -> Expr:
            value = read(0, [*index[: self.axis], k[0], *index[self.axis :]])
            return value if work is x.dtype else e.cast(value, work)

        extreme = e.reduce(self.function, [size], at, work)

        def position(k: Sequence[Expr]) -> Expr:
            value = at(k)
            hit = e.compare("eq", value, extreme)
            if x.dtype.is_float:
                hit = e.binary("or", hit, e.unary("isnan", value))
            return e.select(hit, e.cast(k[0], DType.I64), e.cast(e.dim(size), DType.I64))

        return e.reduce("min", [size], position, DType.I64)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """One per operand element."""
        return operands[0].size

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The same op on the axis the transpose brought here."""
        before, after = _moved((self.axis,), permutation)
        return type(self)(before[0]), after


@dataclass(frozen=True)
class ArgMax(ArgReduce):
    """The position of the maximum."""

    name: ClassVar[str] = "arg_max"
    function: ClassVar[str] = "max"

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's argmax."""
        return (np.asarray(np.argmax(operands[0], axis=self.axis), np.int64),)


@dataclass(frozen=True)
class ArgMin(ArgReduce):
    """The position of the minimum."""

    name: ClassVar[str] = "arg_min"
    function: ClassVar[str] = "min"

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's argmin."""
        return (np.asarray(np.argmin(operands[0], axis=self.axis), np.int64),)
