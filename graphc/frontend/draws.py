"""Random tensors in graph ops: uniform, normal, yes or no, permutations; and dropout, which layers and functions share.

A draw is named by a `RandomKey` and by its shape: the same name gives the same numbers in every compiled module, on any
number of threads and in the interpreter (up to rounding where a function of the bits is not exact).
"""

from __future__ import annotations

import math

from graphc.frontend.keys import RandomKey
from graphc.ir.dim import DimLike, Shape
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import And, Cosine, Iota, Log, Or, RandomBits, Reshape, Slice, Sqrt, arith

_ALPHA = (
    1.7580993408473766  # what SELU tends to for minus infinity, times -1 (Klambauer et al. 2017)
)
_DIGITS = {DType.F32: 24, DType.F16: 11, DType.BF16: 8}


def bits(b: GraphBuilder, key: RandomKey, shape: Shape) -> Value:
    """32 even bits for every element, as i32."""
    return b(RandomBits(key.stream, shape), key.value)


def _low_bits(b: GraphBuilder, words: Value, count: int, dtype: DType) -> Value:
    """The last bits of words as whole numbers of a type."""
    mask = arith.constant(b, (1 << count) - 1, DType.I32)
    kept = b(And(), words, arith.broadcast_to(b, mask, b.type_of(words).shape))
    return arith.convert(b, kept, dtype)


def _two(b: GraphBuilder, x: Value) -> tuple[Value, Value]:
    """The two halves of the first axis, which is dropped."""
    _, *rest = b.type_of(x).shape
    parts = []
    for i in range(2):
        start, limit = (i, *(0 for _ in rest)), (i + 1, *rest)
        parts.append(b(Reshape(tuple(rest)), b(Slice(start, limit, (1,) * len(start)), x)))
    return parts[0], parts[1]


def uniform(b: GraphBuilder, key: RandomKey, shape: Shape, dtype: DType = DType.F32) -> Value:
    """Numbers from [0, 1), each multiple of the spacing just below 1 equally likely, as PyTorch's `rand`.

    That is 2^-24 for f32, 2^-53 for f64 (which takes two words), 2^-11 for f16 and 2^-8 for bf16.
    """
    if dtype is DType.F64:
        high, low = _two(b, bits(b, key, (2, *shape)))
        whole = arith.multiply(b, _low_bits(b, high, 26, dtype), float(1 << 27))
        return arith.multiply(b, arith.add(b, whole, _low_bits(b, low, 27, dtype)), 2.0**-53)
    digits = _DIGITS[dtype]
    return arith.multiply(b, _low_bits(b, bits(b, key, shape), digits, dtype), 2.0**-digits)


def normal(b: GraphBuilder, key: RandomKey, shape: Shape, dtype: DType = DType.F32) -> Value:
    """Numbers of the standard normal distribution: Box and Muller's `sqrt(-2 log(1 - u)) cos(2 pi v)` (1958).

    It is exact for uniform u and v in every precision, and needs only functions that kernels have; an inverse error
    function would take one number less and a table of coefficients for each precision. f32 reaches 5.77 standard
    deviations, f64 8.57. f16 and bf16 are rounded from f32.
    """
    wide = dtype if dtype is DType.F64 else DType.F32
    u, v = _two(b, uniform(b, key, (2, *shape), wide))
    radius = b(Sqrt(), arith.multiply(b, b(Log(), arith.subtract(b, 1.0, u)), -2.0))
    angle = b(Cosine(), arith.multiply(b, v, 2 * math.pi))
    return arith.convert(b, arith.multiply(b, radius, angle), dtype)


def integers(b: GraphBuilder, key: RandomKey, shape: Shape, low: int, high: int) -> Value:
    """Whole numbers from `low` to `high - 1`, i64; there are at most 2^24 of them, almost equally likely."""
    return integers_of(b, uniform(b, key, shape), low, high)


def integers_of(b: GraphBuilder, u: Value, low: int, high: int) -> Value:
    """Whole numbers from `low` to `high - 1`, i64, from uniform ones of [0, 1)."""
    whole = arith.convert(b, arith.multiply(b, u, float(high - low)), DType.I64)
    # Rounding may reach the end; the bounds also tell that an index is inside.
    inside = arith.maximum(b, arith.minimum(b, whole, high - low - 1), 0)
    return inside if low == 0 else arith.add(b, inside, low)


def bernoulli(b: GraphBuilder, key: RandomKey, shape: Shape, p: float) -> Value:
    """True with probability `p`, to within 2^-32: one comparison of a word."""
    if p >= 1:
        return arith.broadcast_to(b, arith.constant(b, True, DType.BOOL), shape)
    limit = min(round(p * 2**32) - 2**31, 2**31 - 1)
    return arith.compare(b, "lt", bits(b, key, shape), limit)


def permutation(b: GraphBuilder, key: RandomKey, size: DimLike) -> Value:
    """0 to size - 1 in random order, i64: the rank of each of as many words.

    All pairs are compared, which suits batches of up to some thousands. Of two words that are equal (with probability
    size^2 / 2^33) the first one is ranked first.
    """
    words = bits(b, key, (size,))
    mine, other = (arith.as_spread(b, words, (size, size), (axis,)) for axis in (0, 1))
    here, there = (b(Iota(DType.I64, (size, size), axis)) for axis in (0, 1))
    tie = b(And(), arith.compare(b, "eq", other, mine), arith.compare(b, "lt", there, here))
    before = b(Or(), arith.compare(b, "lt", other, mine), tie)
    return arith.sum(b, arith.convert(b, before, DType.I64), 1)


def dropout(
    b: GraphBuilder, x: Value, p: float, key: RandomKey, shape: Shape | None = None
) -> Value:
    """Zeroes elements with probability `p` and scales the others by `1 / (1 - p)` (Srivastava et al. 2014).

    `shape` is that of the mask where it is not x's: whole channels are dropped by `[N, C, 1, 1]`.
    """
    type = b.type_of(x)
    if p == 0:
        return x
    if p == 1:
        return arith.broadcast_to(b, arith.constant(b, 0.0, type.dtype), type.shape)
    keep = arith.broadcast_to(b, bernoulli(b, key, shape or type.shape, 1 - p), type.shape)
    return arith.select(b, keep, arith.multiply(b, x, 1 / (1 - p)), 0.0)


def alpha_dropout(
    b: GraphBuilder, x: Value, p: float, key: RandomKey, shape: Shape | None = None
) -> Value:
    """Dropout to SELU's negative limit, which keeps mean 0 and variance 1 (Klambauer et al. 2017)."""
    type = b.type_of(x)
    if p == 0:
        return x
    if p == 1:
        return arith.broadcast_to(b, arith.constant(b, 0.0, type.dtype), type.shape)
    scale = 1 / math.sqrt((_ALPHA**2 * p + 1) * (1 - p))
    keep = arith.broadcast_to(b, bernoulli(b, key, shape or type.shape, 1 - p), type.shape)
    moved = arith.add(b, arith.multiply(b, x, scale), _ALPHA * scale * p)
    return arith.select(b, keep, moved, _ALPHA * scale * (p - 1))
