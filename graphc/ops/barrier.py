"""A wall that no optimisation looks through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.dim import DimLike
from graphc.ir.graph import Value
from graphc.ir.op import Array, Emitter, Expr, Op, Read, Stacked
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops.shape import Shaping


@dataclass(frozen=True)
class OptimizationBarrier(Shaping):
    """The operand, as a value of its own: nothing computed from it is merged with what is computed from the operand.

    Recomputation for a gradient stands behind one, else common subexpressions would undo it. It costs nothing: the
    result is the operand's bytes.
    """

    name: ClassVar[str] = "optimization_barrier"
    alias: ClassVar[bool] = True

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The operand's type."""
        return operands

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """A barrier around all steps."""
        return Stacked(self)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """A copy."""
        return (operands[0].copy(),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The same element."""
        return read(0, index)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent."""
        return (p.cotangent,)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """The barrier of the transposed operand."""
        return self, permutation
