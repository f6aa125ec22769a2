"""Functions that make tensors from nothing but a shape."""

from __future__ import annotations

import math

import numpy as np

from graphc.frontend.functions.elementwise import dtype_of
from graphc.frontend.initialisers import Initializer
from graphc.frontend.kinds import Number
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.dim import Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import BroadcastInDim, Compare, Constant, Iota, Select, arith

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Creation")
Sizes = tuple[DimLike, ...]
Type = DType | str
Plain = bool | int | float


def _full(b: GraphBuilder, shape: DimLike | Sizes, value: Plain, dtype: DType) -> Value:
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if any(isinstance(s, int) and s < 0 for s in sizes):
        raise RejectError("a size cannot be negative", code="E0207", argument="shape")
    scalar = arith.constant(b, value, dtype)
    return b(BroadcastInDim(shape=sizes, dims=()), scalar) if sizes else scalar


@_add
def zeros(
    b: GraphBuilder, shape: DimLike | Sizes | None = None, dtype: Type = "f32"
) -> Value | Initializer:
    """A tensor of zeros. Without a shape, the initialiser of a `param`."""
    return Initializer.of("zeros") if shape is None else _full(b, shape, 0, dtype_of(dtype))


@_add
def ones(
    b: GraphBuilder, shape: DimLike | Sizes | None = None, dtype: Type = "f32"
) -> Value | Initializer:
    """A tensor of ones. Without a shape, the initialiser of a `param`."""
    return Initializer.of("ones") if shape is None else _full(b, shape, 1, dtype_of(dtype))


@_add
def full(b: GraphBuilder, shape: DimLike | Sizes, value: Plain, dtype: Type = "f32") -> Value:
    """A tensor of one number."""
    return _full(b, shape, value, dtype_of(dtype))


@_add
def zeros_like(b: GraphBuilder, x: Value) -> Value:
    """Zeros of the type of `x`."""
    return _full(b, b.type_of(x).shape, 0, b.type_of(x).dtype)


@_add
def ones_like(b: GraphBuilder, x: Value) -> Value:
    """Ones of the type of `x`."""
    return _full(b, b.type_of(x).shape, 1, b.type_of(x).dtype)


@_add
def arange(
    b: GraphBuilder,
    start: Number,
    stop: Number | None = None,
    step: Number = 1,
    dtype: Type | None = None,
) -> Value:
    """`start` (0 where only one number is given), `start + step`, ... up to and without `stop`.

    i64 for integers, f32 otherwise. A named dim can be a bound: `arange(T)`.
    """
    first, last = (0, start) if stop is None else (start, stop)
    whole = all(isinstance(v, (int, Dim)) for v in (first, last, step))
    kind = dtype_of(dtype) if dtype is not None else DType.I64 if whole else DType.F32
    if isinstance(step, Dim) or step == 0:
        raise RejectError("`step` of arange has to be a number other than 0", argument="step")
    count: DimLike
    if (
        whole
        and isinstance(step, int)
        and not isinstance(first, float)
        and not isinstance(last, float)
    ):
        span = last - first
        count = (span + (step - 1)) // step if step > 0 else (first - last + (-step - 1)) // -step
    elif isinstance(first, Dim) or isinstance(last, Dim):
        raise RejectError("arange from or to a named dim takes whole steps", argument="step")
    else:
        count = math.ceil((last - first) / step)
    if isinstance(count, int):
        count = max(0, count)
    x = b(Iota(dtype=kind, shape=(count,), axis=0))
    if step != 1:
        x = arith.multiply(b, x, step)
    if isinstance(first, Dim):
        return arith.add(b, x, arith.dim_scalar(b, first, kind))
    return x if first == 0 else arith.add(b, x, first)


@_add
def linspace(b: GraphBuilder, start: float, end: float, steps: int) -> Value:
    """`steps` evenly spaced numbers from `start` to `end`, both included, as f32."""
    if not 1 <= steps <= 2**20:
        raise RejectError("`steps` of linspace has to be between 1 and 2 ** 20", argument="steps")
    return b(Constant.of(np.linspace(start, end, steps, dtype=np.float32)))


@_add
def eye(b: GraphBuilder, n: DimLike, m: DimLike | None = None, dtype: Type = "f32") -> Value:
    """Ones on the diagonal, zeros elsewhere: [n, m]."""
    rows, columns = _grid(b, n, n if m is None else m)
    return arith.convert(b, b(Compare("eq"), columns, rows), dtype_of(dtype))


def _grid(b: GraphBuilder, n: DimLike, m: DimLike) -> tuple[Value, Value]:
    """Row and column numbers of an [n, m] matrix."""
    rows = b(Iota(dtype=DType.I64, shape=(n, m), axis=0))
    return rows, b(Iota(dtype=DType.I64, shape=(n, m), axis=1))


@_add
def causal_mask(b: GraphBuilder, query: DimLike, key: DimLike | None = None) -> Value:
    """bool [query, key], true where a position may attend: to itself and what came before it.

    With more keys than queries the queries are the last positions.
    """
    keys = query if key is None else key
    rows, columns = _grid(b, query, keys)
    offset = keys - query
    if isinstance(offset, Dim):
        rows = arith.add(b, rows, arith.dim_scalar(b, offset, DType.I64))
    elif offset:
        rows = arith.add(b, rows, offset)
    return b(Compare("le"), columns, rows)


def _triangle(b: GraphBuilder, x: Value, diagonal: int, direction: str, name: str) -> Value:
    kind = b.type_of(x)
    if kind.rank < 2:
        raise RejectError(f"{name} needs a matrix and gets {kind}", code="E0205", operand=0)
    rows, columns = _grid(b, kind.shape[-2], kind.shape[-1])
    keep = b(Compare(direction), columns, arith.add(b, rows, diagonal) if diagonal else rows)
    dims = (kind.rank - 2, kind.rank - 1)
    mask = b(BroadcastInDim(shape=kind.shape, dims=dims), keep) if kind.rank > 2 else keep
    return b(Select(), mask, x, _full(b, kind.shape, 0, kind.dtype))


@_add
def tril(b: GraphBuilder, x: Value, diagonal: int = 0) -> Value:
    """The lower triangle of the last two dimensions; zeros above."""
    return _triangle(b, x, diagonal, "le", "tril")


@_add
def triu(b: GraphBuilder, x: Value, diagonal: int = 0) -> Value:
    """The upper triangle of the last two dimensions; zeros below."""
    return _triangle(b, x, diagonal, "ge", "triu")


@_add
def tensor(
    b: GraphBuilder,
    values: tuple[Plain, ...] | tuple[tuple[Plain, ...], ...],
    dtype: Type | None = None,
) -> Value:
    """A constant from a list of numbers, or from a list of rows. f32, i64 or bool where no dtype is given."""
    rows = [v if isinstance(v, tuple) else (v,) for v in values]
    if len({len(r) for r in rows}) > 1:
        raise RejectError("all rows need one length", argument="values")
    array = np.asarray(values)
    kind = dtype_of(dtype) if dtype is not None else _natural(array.dtype.kind)
    return b(Constant.of(array.astype(kind.numpy)))


def _natural(kind: str) -> DType:
    return {"b": DType.BOOL, "i": DType.I64}.get(kind, DType.F32)
