"""Reshape, and how its indices stay simple."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, Shape, floordiv, product
from graphc.ir.graph import Value
from graphc.ir.op import Array, Emitter, Expr, OpError, Read, Stacked
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops.errors import show
from graphc.ops.shape import Shaping, concrete


@dataclass(frozen=True)
class Reshape(Shaping):
    """The same elements, in row-major order, in another shape."""

    name: ClassVar[str] = "reshape"
    alias: ClassVar[bool] = True
    shape: Shape

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The attribute shape. Raises OpError E0210 unless the element counts are equal polynomials."""
        (x,) = operands
        count = product(self.shape)
        if x.size != count:
            raise OpError(
                f"cannot reshape {show(x.shape)} with {x.size} elements "
                f"to {show(self.shape)} with {count}",
                operand=0,
                code="E0210",
                help=_nearest(x.shape, self.shape),
            )
        if any(isinstance(d, int) and d < 0 for d in self.shape):
            raise OpError(f"reshape: {show(self.shape)} has a negative dimension", code="E0207")
        return (x.with_shape(self.shape),)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The elements of each step reshaped."""
        return Stacked(Reshape((length, *self.shape)))

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """NumPy's reshape, copied."""
        return (np.array(operands[0].reshape(concrete(self.shape))),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """Row-major position and back, separately for every group of dimensions that keeps its elements."""
        (x,) = operands
        source: list[Expr] = []
        for old, new in segments(x.shape, self.shape):
            inside = list(index[new.start : new.stop])
            if old.stop - old.start == 1 and new.stop - new.start == 1:
                source += inside
                continue
            flat: Expr = None
            for i, d in zip(inside, self.shape[new.start : new.stop], strict=True):
                flat = i if flat is None else flat * e.dim(d) + i
            source += _unflatten(
                e, e.dim(0) if flat is None else flat, x.shape[old.start : old.stop]
            )
        return read(0, source)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent in the operand's shape."""
        return (p.reshape(p.cotangent, p.b.type_of(p.operands[0]).shape),)


def _unflatten(e: Emitter, flat: Expr, shape: Shape) -> list[Expr]:
    """The index in `shape` of a row-major position."""
    index: list[Expr] = []
    for i, d in enumerate(shape):
        stride = product(shape[i + 1 :])
        if d == 1:
            index.append(e.dim(0))
            continue
        quotient = flat if stride == 1 else flat // e.dim(stride)
        index.append(quotient if i == 0 else quotient % e.dim(d))
    return index


def segments(old: Shape, new: Shape) -> list[tuple[range, range]]:
    """Cuts two shapes of one size into the shortest runs of dimensions with equal products.

    `[N, 16, 5, 5]` and `[N, 400]` give N with N and 16, 5, 5 with 400: indices stay simple, also for named dims.
    """
    segments: list[tuple[range, range]] = []
    i, j = len(old), len(new)
    while i and j:
        runs = (
            (a, b)
            for length in range(1, i + j + 1)
            for a in range(i, max(i - length, 0) - 1, -1)
            for b in (j - (length - (i - a)),)
            if b >= 0 and product(old[a:i]) == product(new[b:j])
        )
        a, b = next(runs, (0, 0))
        segments.append((range(a, i), range(b, j)))
        i, j = a, b
    if i or j:
        segments.append((range(i), range(j)))
    return segments[::-1]


def _nearest(old: Shape, new: Shape) -> str | None:
    """What the last dimension of `new` would have to be, if that is a whole number."""
    for axis in range(len(new) - 1, -1, -1):
        rest = product(d for i, d in enumerate(new) if i != axis)
        total = product(old)
        if rest == 0:
            continue
        fit = floordiv(total, rest)
        if fit * rest == total:
            fixed = (*new[:axis], fit, *new[axis + 1 :])
            return f"{show(fixed)} has as many elements as {show(old)}"
    return None
