"""Random numbers in a model: of a training step, or of a key that the model is given.

Every use has its own numbers, and every step new ones. A training step brings its key along; elsewhere `key` is an
input `i64[2]` (a seed and a number that changes from call to call), so that a compiled model stays a function.
"""

from __future__ import annotations

from graphc.frontend import draws
from graphc.frontend.functions.elementwise import dtype_of
from graphc.frontend.keys import RandomKey
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.dim import DimLike, Shape
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import arith

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Random numbers")
Sizes = tuple[DimLike, ...]


def _shape(shape: DimLike | Sizes) -> Shape:
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if any(isinstance(s, int) and s < 0 for s in sizes):
        raise RejectError("a size cannot be negative", code="E0207", argument="shape")
    return sizes


def _float(dtype: DType | str) -> DType:
    kind = dtype_of(dtype)
    if not kind.is_float:
        raise RejectError(f"random numbers of type {kind} are no fractions", argument="dtype")
    return kind


def probability(name: str, p: float) -> None:
    """Raises RejectError (E0405) for an argument `p` that is no probability."""
    if not 0 <= p <= 1:
        raise RejectError(f"`p` of {name} is a probability, not {p:g}", argument="p")


@_add
def random_uniform(
    b: GraphBuilder,
    shape: DimLike | Sizes,
    low: float = 0.0,
    high: float = 1.0,
    dtype: DType | str = "f32",
    *,
    key: RandomKey,
) -> Value:
    """Numbers from `low` to `high` (not included, up to rounding), all equally likely: `numpy.random.uniform`."""
    x = draws.uniform(b, key, _shape(shape), _float(dtype))
    if (low, high) == (0.0, 1.0):
        return x
    return arith.add(b, arith.multiply(b, x, high - low), low)


@_add
def random_normal(
    b: GraphBuilder,
    shape: DimLike | Sizes,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: DType | str = "f32",
    *,
    key: RandomKey,
) -> Value:
    """Numbers of the normal distribution with a mean and a standard deviation: `numpy.random.normal`."""
    x = draws.normal(b, key, _shape(shape), _float(dtype))
    if (mean, std) == (0.0, 1.0):
        return x
    return arith.add(b, arith.multiply(b, x, std), mean)


@_add
def random_integers(
    b: GraphBuilder,
    shape: DimLike | Sizes,
    low: int,
    high: int,
    *,
    key: RandomKey,
) -> Value:
    """Integers from `low` to `high - 1`, all equally likely, i64: `numpy.random.integers`. At most 2 ** 24 of them."""
    if not 1 <= high - low <= 1 << 24:
        raise RejectError(
            f"random_integers draws from 1 to 2 ** 24 integers, not from {high - low}",
            argument="high",
        )
    return draws.integers(b, key, _shape(shape), low, high)


@_add
def bernoulli(b: GraphBuilder, shape: DimLike | Sizes, p: float = 0.5, *, key: RandomKey) -> Value:
    """bool, true with probability `p`: a mask."""
    probability("bernoulli", p)
    return draws.bernoulli(b, key, _shape(shape), p)


@_add
def random_permutation(b: GraphBuilder, n: DimLike, *, key: RandomKey) -> Value:
    """The numbers 0 to `n - 1` in random order, i64: `numpy.random.permutation`."""
    return draws.permutation(b, key, n)
