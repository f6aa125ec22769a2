"""Functions that build graphs the way NumPy computes: `add(b, x, 1)`, `mean(b, x, -1)`, `matmul(b, x, y)`.

The first argument is the builder. An operand is a `Value` or a Python number, which takes the other operand's element
type; shapes broadcast; axes may count from the end. Element types never change silently. Wrong shapes raise OpError
naming both. What decompositions use as well is in `arith.py`, and offered here again.
"""

from __future__ import annotations

from graphc.ir.dim import Shape
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import OpError
from graphc.ops import binary, reduce, shape, unary
from graphc.ops.arith import (
    Axes,
    Operand,
    add,
    binary_op,
    broadcast_shapes,
    broadcast_to,
    compare,
    constant,
    convert,
    divide,
    max,
    maximum,
    mean,
    minimum,
    multiply,
    reduce_op,
    reshape,
    select,
    subtract,
    sum,
)
from graphc.ops.dot import DotGeneral
from graphc.ops.einsum import einsum
from graphc.ops.errors import show

__all__ = [
    "add",
    "broadcast_shapes",
    "broadcast_to",
    "compare",
    "constant",
    "convert",
    "divide",
    "einsum",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "multiply",
    "power",
    "reshape",
    "select",
    "subtract",
    "sum",
]


def power(b: GraphBuilder, x: Operand, y: Operand) -> Value:
    """x ** y. A small whole exponent multiplies (exact, and the only form for integers), 0.5 is sqrt."""
    if isinstance(x, Value) and isinstance(y, (int, float)) and not isinstance(y, bool):
        dtype = b.type_of(x).dtype
        if y == 0.5 and dtype.is_float:
            return b(unary.Sqrt(), x)
        if 1 <= y <= 16 and y == int(y) and (dtype.is_float or dtype.is_int):
            return _repeated(b, x, int(y))
    return binary_op(b, binary.Power(), x, y)


def _repeated(b: GraphBuilder, x: Value, n: int) -> Value:
    """x ** n for n >= 1 by squaring."""
    if n == 1:
        return x
    half = _repeated(b, x, n // 2)
    square = multiply(b, half, half)
    return multiply(b, square, x) if n % 2 else square


def min(b: GraphBuilder, x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The minimum over axes (all by default)."""
    return reduce_op(b, reduce.ReduceMin, x, axes, keepdims)


def matmul(b: GraphBuilder, x: Value, y: Value) -> Value:
    """NumPy's matmul: vectors are rows or columns, leading dimensions broadcast.

    Raises OpError E0203 for inner sizes that differ, E0202 for batches that do not broadcast, E0205 for scalars.
    """
    left, right = b.type_of(x), b.type_of(y)
    for slot, type in enumerate((left, right)):
        if not type.rank:
            raise OpError(
                f"matmul of {left} and {right}: a scalar has no rows; use *",
                operand=slot,
                code="E0205",
            )
    inner = right.shape[0 if right.rank == 1 else -2]
    if left.shape[-1] != inner:
        raise OpError(
            f"matmul of {left} and {right}: the last dimension of the first ({left.shape[-1]}) "
            f"is not the {'only' if right.rank == 1 else 'second to last'} one of the second "
            f"({inner})",
            operand=1,
            code="E0203",
            help=_matmul_help(left.shape, right.shape),
        )
    if left.rank == 1 or right.rank <= 2:  # no batch on one side: nothing to broadcast
        axis = 0 if right.rank == 1 else right.rank - 2
        return b(DotGeneral((), (), (left.rank - 1,), (axis,)), x, y)
    if right.rank > 2 and left.rank == 2:
        out = b(DotGeneral((), (), (1,), (right.rank - 2,)), x, y)  # [m, *batch, n]
        rank = right.rank
        return b(shape.Transpose((*range(1, rank - 1), 0, rank - 1)), out)
    batch = broadcast_shapes(left.shape[:-2], right.shape[:-2], what="matmul: batches")
    x = broadcast_to(b, x, (*batch, *left.shape[-2:]))
    y = broadcast_to(b, y, (*batch, *right.shape[-2:]))
    return b(DotGeneral.matrix(len(batch)), x, y)


def _matmul_help(left: Shape, right: Shape) -> str | None:
    if len(right) >= 2 and left[-1] == right[-1]:
        return f"transposing the second, {show((*right[:-2], right[-1], right[-2]))}, would fit"
    if len(left) >= 2 and len(right) >= 2 and left[-2] == right[-2]:
        return f"transposing the first, {show((*left[:-2], left[-1], left[-2]))}, would fit"
    return None
