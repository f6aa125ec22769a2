"""NumPy's arithmetic on a builder: broadcasting, Python scalars, keepdims. The lower half of `functional.py`.

Decompositions and the frontend write graphs with these. An operand is a `Value` or a Python number, which takes the
other operand's element type. Nothing converts element types silently.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.dim import DimLike, Shape, product
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Op, OpError
from graphc.ops import binary, reduce, unary
from graphc.ops.errors import check_axis, show
from graphc.ops.numerics import integer_range, working
from graphc.ops.reshape import Reshape
from graphc.ops.shape import BroadcastInDim
from graphc.ops.source import Constant, DimValue

Scalar = int | float | bool
Operand = Value | Scalar
Axes = int | Sequence[int] | None


def constant(b: GraphBuilder, value: Scalar, dtype: DType) -> Value:
    """A scalar constant. Raises OpError E0206 when the value is no value of the element type."""
    if not dtype.is_float and isinstance(value, float) and not value.is_integer():
        raise OpError(
            f"{value} is no {dtype}", code="E0206", help="convert the tensor to f32 first"
        )
    if dtype.is_int:
        low, high = integer_range(dtype)
        if not low <= value <= high:
            raise OpError(f"{value} does not fit in {dtype} ({low} to {high})", code="E0206")
        value = int(value)
    with np.errstate(all="ignore"):
        return b(Constant.of(np.asarray(value).astype(dtype.numpy)))


def axis_of(axis: int, shape: Shape, op: str = "axis") -> int:
    """A non-negative axis for one that may count from the end. Raises OpError E0211."""
    rank = len(shape)
    if not -rank <= axis < rank:
        check_axis(op, axis, rank, shape)
    return axis % rank


def axes_of(axes: Axes, shape: Shape, op: str = "axes") -> tuple[int, ...]:
    """Sorted non-negative axes; None means all. Raises OpError E0211 for one out of range or named twice."""
    if axes is None:
        return tuple(range(len(shape)))
    each = [axes] if isinstance(axes, int) else list(axes)
    found = sorted(axis_of(a, shape, op) for a in each)
    if len(set(found)) != len(found):
        raise OpError(f"{op}: axes {show(each)} of {show(shape)} repeat", code="E0211")
    return tuple(found)


def broadcast_shapes(*shapes: Shape, what: str = "operands") -> Shape:
    """The common shape under NumPy's rules; named dims match only themselves and a literal 1.

    Raises OpError E0202 naming both shapes.
    """
    result: Shape = ()
    for slot, shape in enumerate(shapes):
        long, short = (result, shape) if len(result) >= len(shape) else (shape, result)
        merged = list(long)
        for i in range(1, len(short) + 1):
            a, c = long[-i], short[-i]
            if a != c and a != 1 and c != 1:
                raise OpError(
                    f"{what} of {show(result)} and {show(shape)} do not broadcast: "
                    f"dimension {-i} is {result[-i]} and {shape[-i]}",
                    operand=slot,
                    code="E0202",
                    help=_moved_axis_help(result, shape),
                )
            merged[-i] = c if a == 1 else a
        result = tuple(merged)
    return result


def _moved_axis_help(a: Shape, c: Shape) -> str | None:
    """Suggests trailing axes of 1 where the shorter shape fits the longer one further left."""
    long, short = (a, c) if len(a) >= len(c) else (c, a)
    for left in range(len(long) - len(short) - 1, -1, -1):
        window = long[left : left + len(short)]
        if all(s in (1, d) for s, d in zip(short, window, strict=True)):
            fixed = (*short, *([1] * (len(long) - len(short) - left)))
            return f"reshape {show(short)} to {show(fixed)} to line it up with {show(long)}"
    return None


def broadcast_to(b: GraphBuilder, x: Value, shape: Shape) -> Value:
    """x repeated to a shape under NumPy's rules; x itself when it has it. Raises OpError E0202."""
    type = b.type_of(x)
    if type.shape == tuple(shape):
        return x
    if type.rank > len(shape):
        raise OpError(
            f"{show(type.shape)} does not broadcast to {show(shape)}: too many dimensions",
            operand=0,
            code="E0202",
        )
    lead = len(shape) - type.rank
    return b(BroadcastInDim(tuple(shape), tuple(range(lead, len(shape)))), x)


def dtype_among(b: GraphBuilder, operands: Sequence[Operand], op: str) -> DType:
    """The element type Python numbers take. Raises OpError E0201 when there are only numbers."""
    for x in operands:
        if isinstance(x, Value):
            return b.type_of(x).dtype
    raise OpError(f"{op} needs at least one tensor")


def together(b: GraphBuilder, op: str, *operands: Operand) -> list[Value]:
    """Operands as values of one shape. Raises OpError E0202 or E0206."""
    dtype = dtype_among(b, operands, op)
    values = [x if isinstance(x, Value) else constant(b, x, dtype) for x in operands]
    shape = broadcast_shapes(*(b.type_of(v).shape for v in values), what=f"{op}: operands")
    return [broadcast_to(b, v, shape) for v in values]


def binary_op(b: GraphBuilder, op: Op, x: Operand, y: Operand) -> Value:
    """An elementwise op of two operands, broadcast to each other."""
    return b(op, *together(b, op.name, x, y))


def add(b: GraphBuilder, x: Operand, y: Operand) -> Value:
    """x + y."""
    return binary_op(b, binary.Add(), x, y)


def subtract(b: GraphBuilder, x: Operand, y: Operand) -> Value:
    """x - y."""
    return binary_op(b, binary.Subtract(), x, y)


def multiply(b: GraphBuilder, x: Operand, y: Operand) -> Value:
    """x * y."""
    return binary_op(b, binary.Multiply(), x, y)


def divide(b: GraphBuilder, x: Operand, y: Operand) -> Value:
    """x / y for floats."""
    return binary_op(b, binary.Divide(), x, y)


def maximum(b: GraphBuilder, x: Operand, y: Operand) -> Value:
    """The larger one; NaN if either is."""
    return binary_op(b, binary.Maximum(), x, y)


def minimum(b: GraphBuilder, x: Operand, y: Operand) -> Value:
    """The smaller one; NaN if either is."""
    return binary_op(b, binary.Minimum(), x, y)


def compare(b: GraphBuilder, direction: str, x: Operand, y: Operand) -> Value:
    """x direction y as bool; direction is eq, ne, lt, le, gt or ge."""
    return binary_op(b, binary.Compare(direction), x, y)


def select(b: GraphBuilder, pred: Value, on_true: Operand, on_false: Operand) -> Value:
    """on_true where pred holds, else on_false; all three broadcast."""
    dtype = dtype_among(b, (on_true, on_false), "select")
    x, y = (v if isinstance(v, Value) else constant(b, v, dtype) for v in (on_true, on_false))
    shape = broadcast_shapes(*(b.type_of(v).shape for v in (pred, x, y)), what="select: operands")
    return b(binary.Select(), *(broadcast_to(b, v, shape) for v in (pred, x, y)))


def convert(b: GraphBuilder, x: Value, dtype: DType) -> Value:
    """x in another element type; x itself when it has it."""
    return x if b.type_of(x).dtype is dtype else b(unary.Convert(dtype), x)


def reshape(b: GraphBuilder, x: Value, shape: Sequence[DimLike]) -> Value:
    """x in another shape; x itself when it has it. Raises OpError E0210."""
    return x if b.type_of(x).shape == tuple(shape) else b(Reshape(tuple(shape)), x)


def reduce_op(
    b: GraphBuilder, kind: type[reduce.Reduce], x: Value, axes: Axes, keepdims: bool
) -> Value:
    """A reduction, whose axes stay as 1 with `keepdims`."""
    shape = b.type_of(x).shape
    which = axes_of(axes, shape, kind.name)
    out = b(kind(which), x) if which else x
    if not keepdims:
        return out
    return reshape(b, out, [1 if a in which else d for a, d in enumerate(shape)])


def sum(b: GraphBuilder, x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The sum over axes (all by default)."""
    return reduce_op(b, reduce.ReduceSum, x, axes, keepdims)


def max(b: GraphBuilder, x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The maximum over axes (all by default)."""
    return reduce_op(b, reduce.ReduceMax, x, axes, keepdims)


def dim_scalar(b: GraphBuilder, dim: DimLike, dtype: DType) -> Value:
    """A dimension as a scalar: a constant, or a `DimValue` where it has names."""
    return constant(b, dim, dtype) if isinstance(dim, int) else b(DimValue(dtype, dim))


def mean(b: GraphBuilder, x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The mean over axes (all by default); floats only, and NaN over nothing."""
    type = b.type_of(x)
    which = axes_of(axes, type.shape, "mean")
    count = product(type.shape[a] for a in which)
    wide = working(type.dtype)  # a half-precision sum would overflow
    total = sum(b, convert(b, x, wide), which, keepdims)
    return convert(b, divide(b, total, dim_scalar(b, count, wide)), type.dtype)


def as_spread(b: GraphBuilder, x: Value, shape: Shape, dims: tuple[int, ...]) -> Value:
    """x with its dimension i as dimension `dims[i]` of a shape: what a reduction over the others dropped, back."""
    return b(BroadcastInDim(tuple(shape), dims), x)
