"""NumPy arithmetic that NumPy lacks: erf, the widening of half precision, the emitter over arrays.

Half-precision floats are computed in f32 and rounded once at the end of each op, here and in compiled kernels.
Nothing here warns: division by zero, overflow and invalid operations give infinities and NaN, as IEEE 754 says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir.dtype import DType
from graphc.ir.op import Array, Expr

_HALF = (DType.F16, DType.BF16)


def working(dtype: DType) -> DType:
    """The element type an op computes in: f32 for f16 and bf16, else the type itself."""
    return DType.F32 if dtype in _HALF else dtype


def accumulator(dtype: DType) -> DType:
    """The element type NumPy sums and contractions accumulate in: f64 for every float, else the type itself."""
    return DType.F64 if dtype.is_float else dtype


def integer_range(dtype: DType) -> tuple[int, int]:
    """The smallest and the largest value of an integer type."""
    bits = 8 * dtype.bytes
    return (0, 2**bits - 1) if dtype is DType.U8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def widen(x: Array) -> Array:
    """f16 and bf16 arrays as f32; others as they are."""
    return x.astype(working(DType.from_numpy(x.dtype)).numpy, copy=False)


def as_f64(x: Array) -> Array:
    """Float arrays as f64, to accumulate in; others as they are."""
    return x.astype(accumulator(DType.from_numpy(x.dtype)).numpy, copy=False)


def rounded(x: Any, like: Array | DType) -> Array:
    """A result in the element type of `like`, always a fresh or owned array."""
    dtype = like.numpy if isinstance(like, DType) else like.dtype
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(dtype, copy=False)


_STEP = 1 / 16  # distance of the expansion points
_LIMIT = 6.0  # erf is 1 to the last bit of a double from 5.93 on
_DEGREE = 10  # |x - point| <= 1/32 makes the next Taylor term smaller than 2**-53


def _erf_table() -> Array:
    """Taylor coefficients of erf at every expansion point, highest degree first.

    erf' = 2/sqrt(pi) exp(-x^2), whose n-th derivative is (-1)^n H_n(x) exp(-x^2) with the physicists' Hermite
    polynomials H_(n+1) = 2x H_n - 2n H_(n-1).
    """
    points = np.arange(int(_LIMIT / _STEP) + 1) * _STEP
    table = np.empty((_DEGREE + 1, len(points)))
    for column, x in enumerate(points):
        scale = 2 / math.sqrt(math.pi) * math.exp(-x * x)
        previous, hermite = 0.0, 1.0
        coefficients = [math.erf(x)]
        for n in range(_DEGREE):
            coefficients.append((-1) ** n * hermite * scale / math.factorial(n + 1))
            previous, hermite = hermite, 2 * x * hermite - 2 * n * previous
        table[:, column] = coefficients[::-1]
    return table


_ERF = _erf_table()


def erf(x: Array) -> Array:
    """The error function, within 1e-15 of the truth (relative), in the precision of `x`; NaN stays NaN.

    Taylor expansion around the nearest multiple of 1/16; there the values come from `math.erf`.
    """
    wide = np.asarray(x, np.float64)
    size = np.minimum(np.abs(wide), _LIMIT)
    column = np.rint(np.where(np.isnan(size), 0.0, size) / _STEP).astype(np.intp)
    h = size - column * _STEP
    total = _ERF[0][column]
    for row in _ERF[1:]:
        total = total * h + row[column]
    signed: Array = np.copysign(total, wide)
    return signed.astype(np.asarray(x).dtype, copy=False)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow for any finite x."""
    z = np.exp(-np.abs(x))
    positive: Array = np.where(x >= 0, 1 / (1 + z), z / (1 + z))
    return positive.astype(np.asarray(x).dtype, copy=False)


def power(a: Array, b: Array) -> Array:
    """a ** b as IEEE 754's pow: NumPy takes a shortcut over sqrt for a scalar 0.5, which gives NaN for -inf."""
    shape = np.broadcast_shapes(np.shape(a), np.shape(b))
    dense = np.array(np.broadcast_to(b, shape), ndmin=1)
    result: Array = np.power(np.atleast_1d(a), dense)
    return result.reshape(shape)


UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: np.reciprocal(np.sqrt(x)),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "not": np.invert,
    "isnan": np.isnan,
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": power,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


class ArrayEmitter:
    """The arithmetic half of `Emitter` over whole NumPy arrays: an elementwise op's formula is its NumPy meaning."""

    def constant(self, value: float | int | bool, dtype: DType) -> Expr:
        """A 0-d array."""
        return np.asarray(value).astype(dtype.numpy)

    def cast(self, value: Expr, dtype: DType) -> Expr:
        """Conversion; to bool it is `!= 0`."""
        if dtype is DType.BOOL:
            return np.not_equal(value, 0)
        return np.asarray(value).astype(dtype.numpy, copy=False)

    def unary(self, name: str, value: Expr) -> Expr:
        """See `Emitter.unary`."""
        return UNARY[name](value)

    def binary(self, name: str, a: Expr, b: Expr) -> Expr:
        """See `Emitter.binary`."""
        return BINARY[name](a, b)

    def compare(self, name: str, a: Expr, b: Expr) -> Expr:
        """See `Emitter.compare`."""
        return COMPARE[name](a, b)

    def select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        """See `Emitter.select`."""
        return np.where(condition, a, b)
