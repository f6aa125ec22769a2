"""Functions that join elements along dimensions. `dim=none` means all; `keepdim` leaves dimensions of size 1."""

from __future__ import annotations

import builtins
from typing import Any, cast

from graphc.frontend.kinds import Number
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.dim import Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import (
    ArgMax,
    ArgMin,
    Exp,
    Log,
    ReduceAll,
    ReduceAny,
    ReduceMax,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    Sqrt,
    arith,
)
from graphc.ops.reduce import Reduce

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Reductions")
Dims = int | tuple[int, ...] | None


def _reduce(b: GraphBuilder, kind: type[Reduce], x: Value, dim: Dims, keepdim: bool) -> Value:
    return arith.reduce_op(b, kind, x, dim, keepdim)


def _float(b: GraphBuilder, x: Value) -> Value:
    """Booleans and integers as f32, so that `mean(a == b)` is an accuracy."""
    return x if b.type_of(x).dtype.is_float else arith.convert(b, x, DType.F32)


@_add
def sum_(
    b: GraphBuilder, x: Value | tuple[Number, ...], dim: Dims = None, keepdim: bool = False
) -> Value | Number:
    """The sum of elements, or of a list of numbers."""
    if not isinstance(x, Value):
        if any(isinstance(i, Dim) for i in x) and any(isinstance(i, float) for i in x):
            raise RejectError(
                "a sum of dims and floats is not known yet", code="E0216", argument="x"
            )
        total: Number = builtins.sum(cast("tuple[int, ...]", x))  # Dims add like integers
        return total
    if b.type_of(x).dtype is DType.BOOL:
        x = arith.convert(b, x, DType.I64)
    return _reduce(b, ReduceSum, x, dim, keepdim)


@_add
def prod(
    b: GraphBuilder, x: Value | tuple[int, ...], dim: Dims = None, keepdim: bool = False
) -> Value | int:
    """The product of elements, or of a list of integers."""
    if isinstance(x, Value):
        return _reduce(b, ReduceProd, x, dim, keepdim)
    total = 1
    for item in x:
        total *= item
        if builtins.abs(total) >= 2**63:
            raise RejectError("the product is too large", code="E0513", argument="x")
    return total


@_add
def mean(b: GraphBuilder, x: Value, dim: Dims = None, keepdim: bool = False) -> Value:
    """The mean; of booleans, the share that is true."""
    return arith.mean(b, _float(b, x), dim, keepdim)


@_add
def var(
    b: GraphBuilder, x: Value, dim: Dims = None, correction: int = 1, keepdim: bool = False
) -> Value:
    """The variance, divided by `count - correction`."""
    centred = arith.subtract(b, x, arith.mean(b, x, dim, True))
    total = arith.sum(b, arith.multiply(b, centred, centred), dim, keepdim)
    kind = b.type_of(x)
    count: DimLike = -correction
    size: DimLike = 1
    for axis in arith.axes_of(dim, kind.shape, "var"):
        size = size * kind.shape[axis]
    return arith.divide(b, total, arith.dim_scalar(b, size + count, kind.dtype))


@_add
def std(
    b: GraphBuilder, x: Value, dim: Dims = None, correction: int = 1, keepdim: bool = False
) -> Value:
    """The standard deviation: the square root of `var`."""
    return b(Sqrt(), var(b, x, dim, correction, keepdim))


def _extreme(
    b: GraphBuilder, kind: type[Reduce], pick: Any, x: Any, other: Any, dim: Dims, keepdim: bool
) -> Any:
    if isinstance(x, Value):
        if other is not None:
            raise RejectError(
                f"{pick.__name__} reduces one tensor",
                argument="other",
                help=f"`{pick.__name__}imum(x, y)` compares two",
            )
        return _reduce(b, kind, x, dim, keepdim)
    items = tuple(x) if isinstance(x, (tuple, range)) else (x,) if other is None else (x, other)
    if not items or any(isinstance(i, Dim) for i in items):
        raise RejectError(
            f"{pick.__name__} needs numbers that are known", code="E0219", argument="x"
        )
    return pick(items)


Numbers = Value | Number | tuple[Number, ...]


@_add
def max_(
    b: GraphBuilder,
    x: Numbers,
    other: Number | None = None,
    dim: Dims = None,
    keepdim: bool = False,
) -> Value | Number:
    """The largest element of a tensor along `dim`; of plain numbers, the larger of two or the largest of a list."""
    result: Value | Number = _extreme(b, ReduceMax, builtins.max, x, other, dim, keepdim)
    return result


@_add
def min_(
    b: GraphBuilder,
    x: Numbers,
    other: Number | None = None,
    dim: Dims = None,
    keepdim: bool = False,
) -> Value | Number:
    """The smallest element of a tensor along `dim`; of plain numbers, the smaller of two or the smallest of a list."""
    result: Value | Number = _extreme(b, ReduceMin, builtins.min, x, other, dim, keepdim)
    return result


@_add
def any_(b: GraphBuilder, x: Value, dim: Dims = None, keepdim: bool = False) -> Value:
    """True where one element is."""
    return _reduce(b, ReduceAny, x, dim, keepdim)


@_add
def all_(b: GraphBuilder, x: Value, dim: Dims = None, keepdim: bool = False) -> Value:
    """True where all elements are."""
    return _reduce(b, ReduceAll, x, dim, keepdim)


def _arg(
    b: GraphBuilder, kind: type[ArgMax | ArgMin], x: Value, dim: int | None, keepdim: bool
) -> Value:
    shape = b.type_of(x).shape
    if dim is None:
        total: DimLike = 1
        for d in shape:
            total = total * d
        return b(kind(axis=0), arith.reshape(b, x, (total,)))
    axis = arith.axis_of(dim, shape, "dim")
    out = b(kind(axis=axis), x)
    return arith.reshape(b, out, (*shape[:axis], 1, *shape[axis + 1 :])) if keepdim else out


@_add
def argmax(b: GraphBuilder, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """The index of the largest element, the first of equals."""
    return _arg(b, ArgMax, x, dim, keepdim)


@_add
def argmin(b: GraphBuilder, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """The index of the smallest element, the first of equals."""
    return _arg(b, ArgMin, x, dim, keepdim)


@_add
def logsumexp(b: GraphBuilder, x: Value, dim: int, keepdim: bool = False) -> Value:
    """`log(sum(exp(x)))` along one dimension, without overflow."""
    top = arith.max(b, x, dim, True)
    total = arith.sum(b, b(Exp(), arith.subtract(b, x, top)), dim, True)
    out = arith.add(b, b(Log(), total), top)
    if keepdim:
        return out
    shape = list(b.type_of(x).shape)
    del shape[arith.axis_of(dim, b.type_of(x).shape, "dim")]
    return arith.reshape(b, out, tuple(shape))


@_add
def norm(b: GraphBuilder, x: Value, dim: Dims = None, keepdim: bool = False) -> Value:
    """The Euclidean norm."""
    return b(Sqrt(), arith.sum(b, arith.multiply(b, x, x), dim, keepdim))
