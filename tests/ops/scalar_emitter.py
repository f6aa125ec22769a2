"""`Emitter` over single NumPy elements: what an op's `compute` says, one element at a time.

Reads check their bounds, so a padding read that is not guarded fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.op import Array, Expr, Op
from graphc.ir.types import TensorType
from graphc.ops.numerics import BINARY, ArrayEmitter
from graphc.ops.random import counter_words, philox
from graphc.ops.reduce import highest, lowest

_COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


class ScalarEmitter(ArrayEmitter):
    """Expressions are NumPy scalars, index expressions integers."""

    def dim(self, dim: DimLike) -> Expr:
        assert isinstance(dim, int), f"{dim} is not concrete"
        return dim

    def guarded(self, condition: Expr, a: Callable[[], Expr], otherwise: Expr) -> Expr:
        return a() if condition else otherwise

    def reduce(
        self,
        kind: str,
        extents: Sequence[DimLike],
        body: Callable[[Sequence[Expr]], Expr],
        dtype: DType,
    ) -> Expr:
        start = {"sum": 0, "prod": 1, "any": False, "all": True}
        if kind in start:
            total = self.constant(start[kind], dtype)
        else:
            total = self.constant((lowest if kind == "max" else highest)(dtype), dtype)
        for k in itertools.product(*(range(n) for n in extents)):
            value = np.asarray(body(k))
            assert value.dtype == dtype.numpy, f"{kind} in {dtype} of {value.dtype}"
            total = BINARY[_COMBINE[kind]](total, value)
        return total

    def checked_index(self, value: Expr, limit: DimLike) -> Expr:
        if not 0 <= value < limit:
            raise IndexError(f"{value} is not in 0..{limit - 1}")
        return int(value)

    def random_bits(self, key: tuple[Expr, Expr], stream: int, position: Expr) -> Expr:
        seed, step = (int(half) % 2**64 for half in key)
        words = philox(
            counter_words(position // 4, stream, (step % 2**32, step >> 32)),
            (seed % 2**32, seed >> 32),
            int,
        )
        return np.uint32(words[position % 4] % 2**32).view(np.int32)


def computed(op: Op, arrays: Sequence[Array]) -> Array:
    """The whole result, element by element through `compute`."""
    types = [TensorType(DType.from_numpy(x.dtype), x.shape) for x in arrays]
    (result,) = op.infer(*types)

    def read(slot: int, index: Sequence[Expr]) -> Expr:
        at = tuple(int(i) for i in index)
        assert len(at) == arrays[slot].ndim
        bounds = zip(at, arrays[slot].shape, strict=True)
        assert all(0 <= i < n for i, n in bounds), f"{at} is outside {arrays[slot].shape}"
        return arrays[slot][at]

    out = np.empty(result.shape, result.dtype.numpy)
    with np.errstate(all="ignore"):
        for index in np.ndindex(out.shape):
            value = np.asarray(op.compute(ScalarEmitter(), types, index, read))
            assert value.dtype == out.dtype, f"{op.name} computes {value.dtype}"
            out[index] = value
    return out
