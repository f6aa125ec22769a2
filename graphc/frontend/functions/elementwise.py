"""Functions of each element: arithmetic, powers, rounding, comparison, choice. Most also take plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.frontend.kinds import Number
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Op
from graphc.ops import (
    Abs,
    Ceil,
    Cosine,
    Erf,
    Exp,
    Expm1,
    Floor,
    IsNan,
    Log,
    Log1p,
    Negate,
    Not,
    RoundNearestEven,
    Rsqrt,
    Sign,
    Sine,
    Sqrt,
    arith,
    binary,
)

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Elementwise")
Operand = Value | Number


def _either(
    b: GraphBuilder, name: str, x: Operand, op: Op, plain: Callable[[float], float]
) -> Operand:
    """The op for a tensor, Python's function for a number."""
    if isinstance(x, Value):
        return b(op, x)
    if isinstance(x, Dim):
        raise RejectError(
            f"{name} needs a number, and `{x}` is only known at run time",
            code="E0216",
            argument="x",
        )
    try:
        return plain(x)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise RejectError(f"{name} of {x} does not exist", code="E0513", argument="x") from error


def _two(b: GraphBuilder, op: Op, x: Operand, y: Operand) -> Value:
    return arith.binary_op(b, op, _known(b, x, y), _known(b, y, x))


def _known(b: GraphBuilder, x: Operand, beside: Operand) -> Value | int | float:
    """An operand, a named dim as a scalar of the dtype of the tensor beside it."""
    if not isinstance(x, Dim):
        return x
    dtype = b.type_of(beside).dtype if isinstance(beside, Value) else DType.I64
    return arith.dim_scalar(b, x, dtype)


@_add
def exp(b: GraphBuilder, x: Operand) -> Operand:
    """The exponential."""
    return _either(b, "exp", x, Exp(), math.exp)


@_add
def expm1(b: GraphBuilder, x: Operand) -> Operand:
    """`exp(x) - 1`, exact for small x."""
    return _either(b, "expm1", x, Expm1(), math.expm1)


@_add
def log(b: GraphBuilder, x: Operand) -> Operand:
    """The natural logarithm."""
    return _either(b, "log", x, Log(), math.log)


@_add
def log1p(b: GraphBuilder, x: Operand) -> Operand:
    """`log(1 + x)`, exact for small x."""
    return _either(b, "log1p", x, Log1p(), math.log1p)


@_add
def sqrt(b: GraphBuilder, x: Operand) -> Operand:
    """The square root."""
    return _either(b, "sqrt", x, Sqrt(), math.sqrt)


@_add
def rsqrt(b: GraphBuilder, x: Operand) -> Operand:
    """`1 / sqrt(x)`."""
    return _either(b, "rsqrt", x, Rsqrt(), lambda v: 1 / math.sqrt(v))


@_add
def sin(b: GraphBuilder, x: Operand) -> Operand:
    """The sine."""
    return _either(b, "sin", x, Sine(), math.sin)


@_add
def cos(b: GraphBuilder, x: Operand) -> Operand:
    """The cosine."""
    return _either(b, "cos", x, Cosine(), math.cos)


@_add
def erf(b: GraphBuilder, x: Operand) -> Operand:
    """The error function."""
    return _either(b, "erf", x, Erf(), math.erf)


@_add
def floor(b: GraphBuilder, x: Operand) -> Operand:
    """Rounds down."""
    return _either(b, "floor", x, Floor(), math.floor)


@_add
def ceil(b: GraphBuilder, x: Operand) -> Operand:
    """Rounds up."""
    return _either(b, "ceil", x, Ceil(), math.ceil)


@_add
def round_(b: GraphBuilder, x: Operand) -> Operand:
    """Rounds to the nearest integer, halves to the even one."""
    return _either(b, "round", x, RoundNearestEven(), round)


@_add
def abs_(b: GraphBuilder, x: Operand) -> Operand:
    """The absolute value."""
    return _either(b, "abs", x, Abs(), abs)


@_add
def sign(b: GraphBuilder, x: Operand) -> Operand:
    """-1, 0 or 1."""
    return _either(b, "sign", x, Sign(), lambda v: (v > 0) - (v < 0))


@_add
def neg(b: GraphBuilder, x: Value) -> Value:
    """`-x`."""
    return b(Negate(), x)


@_add
def square(b: GraphBuilder, x: Value) -> Value:
    """`x * x`."""
    return _two(b, binary.Multiply(), x, x)


@_add
def pow_(b: GraphBuilder, x: Operand, exponent: Operand) -> Operand:
    """`x ** exponent`."""
    return _two(b, binary.Power(), x, exponent)


@_add
def maximum(b: GraphBuilder, x: Operand, other: Operand) -> Value:
    """The larger of two elements; NaN if either is."""
    return _two(b, binary.Maximum(), x, other)


@_add
def minimum(b: GraphBuilder, x: Operand, other: Operand) -> Value:
    """The smaller of two elements; NaN if either is."""
    return _two(b, binary.Minimum(), x, other)


@_add
def clamp(b: GraphBuilder, x: Value, min: Number | None = None, max: Number | None = None) -> Value:
    """Elements limited to `[min, max]`; either may be left out."""
    if min is not None:
        x = _two(b, binary.Maximum(), x, min)
    return x if max is None else _two(b, binary.Minimum(), x, max)


@_add
def where(b: GraphBuilder, condition: Value, x: Operand, other: Operand) -> Value:
    """`x` where the condition holds, `other` elsewhere; all three broadcast."""
    if not isinstance(x, Value) and not isinstance(other, Value):
        x = (
            arith.dim_scalar(b, x, DType.I64)
            if isinstance(x, Dim)
            else arith.constant(b, x, DType.F32)
        )
    return arith.select(b, condition, _known(b, x, other), _known(b, other, x))


@_add
def isnan(b: GraphBuilder, x: Value) -> Value:
    """True where an element is not a number."""
    return b(IsNan(), x)


@_add
def logical_and(b: GraphBuilder, x: Value, other: Value) -> Value:
    """True where both are."""
    return _two(b, binary.And(), x, other)


@_add
def logical_or(b: GraphBuilder, x: Value, other: Value) -> Value:
    """True where one is."""
    return _two(b, binary.Or(), x, other)


@_add
def logical_xor(b: GraphBuilder, x: Value, other: Value) -> Value:
    """True where exactly one is."""
    return _two(b, binary.Xor(), x, other)


@_add
def logical_not(b: GraphBuilder, x: Value) -> Value:
    """True where `x` is false."""
    return b(Not(), x)


@_add
def astype(b: GraphBuilder, x: Value, dtype: DType | str) -> Value:
    """The tensor with another element type: `astype(x, "f32")`. Floats lose their fraction toward zero."""
    return arith.convert(b, x, dtype_of(dtype))


def dtype_of(dtype: DType | str) -> DType:
    """The dtype of a name. Raises RejectError."""
    if isinstance(dtype, DType):
        return dtype
    try:
        return DType(dtype)
    except ValueError:
        names = ", ".join(d.value for d in DType)
        raise RejectError(
            f'there is no dtype "{dtype}"', argument="dtype", help=f"there are {names}"
        ) from None
