"""Statistics of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dim import product
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import arith
from graphc.ops.composite import Composite, in_working_precision
from graphc.ops.errors import check_axes, check_kind
from graphc.ops.numerics import as_f64, rounded


@dataclass(frozen=True)
class Variance(Composite):
    """The biased variance over `axes`, which are dropped: the mean of squares of what is left after the mean."""

    name: ClassVar[str] = "variance"
    arity: ClassVar[int | None] = 1
    family: ClassVar[str] = "norm"
    axes: tuple[int, ...]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """x's type without the axes. Raises OpError E0206 or E0211."""
        (x,) = operands
        check_kind(self.name, x, "float", 0)
        check_axes(self.name, self.axes, x.rank, x.shape)
        return (x.with_shape(tuple(d for a, d in enumerate(x.shape) if a not in self.axes)),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64, in two passes."""
        x = as_f64(operands[0])
        with np.errstate(all="ignore"):
            centred = x - x.mean(self.axes, keepdims=True)
            return (rounded((centred * centred).mean(self.axes), operands[0]),)

    def _centred(self, b: GraphBuilder, x: Value) -> Value:
        shape = b.type_of(x).shape
        kept = tuple(a for a in range(len(shape)) if a not in self.axes)
        return arith.subtract(b, x, arith.as_spread(b, arith.mean(b, x, self.axes), shape, kept))

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """Mean, difference, mean of squares."""
        (wide,) = in_working_precision(b, *operands)
        centred = self._centred(b, wide)
        found = arith.mean(b, arith.multiply(b, centred, centred), self.axes)
        return (arith.convert(b, found, b.type_of(operands[0]).dtype),)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """2 (x - mean) / count: nothing flows back through the mean, from which differences add up to zero."""
        b, (x,) = p.b, p.operands
        type = b.type_of(x)
        wide, cotangent = in_working_precision(b, x, p.cotangent)
        shape, work = type.shape, b.type_of(wide).dtype
        kept = tuple(a for a in range(len(shape)) if a not in self.axes)
        count = arith.dim_scalar(b, product(shape[a] for a in self.axes), work)
        share = arith.multiply(b, cotangent, arith.divide(b, arith.constant(b, 2.0, work), count))
        spread = arith.as_spread(b, share, shape, kept)
        found = arith.multiply(b, self._centred(b, wide), spread)
        return (arith.convert(b, found, type.dtype),)
