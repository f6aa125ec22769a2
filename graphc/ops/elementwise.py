"""The base of elementwise ops: a subclass says its formula once.

From the formula come the NumPy meaning (over `ArrayEmitter`), the kernel (over lowering's emitter) and the operation
count (over `CountingEmitter`). Its derivative stands beside it as another formula, `pullback`. Half-precision operands
are computed in f32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Value
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read, Stacked
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops.errors import check_kind, check_same_dtype, show
from graphc.ops.numerics import ArrayEmitter, rounded, widen, working


class Arithmetic(Protocol):
    """The part of `Emitter` that formulas may use; its methods mean the same."""

    def constant(self, value: float | int | bool, dtype: DType) -> Expr:
        """A literal."""

    def cast(self, value: Expr, dtype: DType) -> Expr:
        """Conversion."""

    def unary(self, name: str, value: Expr) -> Expr:
        """A function of one element."""

    def binary(self, name: str, a: Expr, b: Expr) -> Expr:
        """A function of two elements."""

    def compare(self, name: str, a: Expr, b: Expr) -> Expr:
        """A comparison."""

    def select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        """A choice."""


class CountingEmitter:
    """Counts the operations of a formula: each unary, binary, comparison and selection is one; casts are free."""

    def __init__(self) -> None:
        self.count = 0

    def constant(self, value: float | int | bool, dtype: DType) -> Expr:
        """Free."""
        return None

    def cast(self, value: Expr, dtype: DType) -> Expr:
        """Free."""
        return None

    def unary(self, name: str, value: Expr) -> Expr:
        """One operation."""
        self.count += 1

    def binary(self, name: str, a: Expr, b: Expr) -> Expr:
        """One operation."""
        self.count += 1

    def compare(self, name: str, a: Expr, b: Expr) -> Expr:
        """One operation."""
        self.count += 1

    def select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        """One operation."""
        self.count += 1


class Elementwise(Op):
    """`out[i] = formula(a[i], b[i], ...)`: all operands have the result's shape.

    `kind` names the element types it takes (see `errors.KINDS`); all operands have one element type unless a subclass
    says otherwise.
    """

    pattern: ClassVar[Pattern] = Pattern.ELEMENTWISE
    arity: ClassVar[int | None] = 1
    kind: ClassVar[str] = "number"

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """One result element. `dtype` is the type to compute in: operand 0's, widened to f32 for f16 and bf16."""
        raise TypeError(f"{type(self).__name__} has no formula")

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """The derivative: each operand's cotangent from the result's, `result` being the formula's value.

        Raises OpError E0811 where the op has none.
        """
        raise OpError(f"{self.name} has no gradient", code="E0811")

    def result_dtype(self, operand: DType) -> DType:
        """The result's element type for operand 0's."""
        return operand

    def check_dtypes(self, operands: Sequence[TensorType]) -> None:
        """Raises OpError E0206 unless the op takes these element types."""
        check_kind(self.name, operands[0], self.kind, 0)
        check_same_dtype(self.name, operands)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The op itself: it has nothing to do with axes."""
        return Stacked(self, spread=True)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """One result of the operands' shape. Raises OpError E0202 (shapes differ) or E0206 (element types)."""
        self.check_dtypes(operands)
        for slot, other in enumerate(operands[1:], 1):
            if other.shape != operands[0].shape:
                raise OpError(
                    f"{self.name} needs operands of one shape and got {operands[0]} and {other}",
                    operand=slot,
                    code="E0202",
                    help=f"broadcast {show(other.shape)} to {show(operands[0].shape)}"
                    if all(
                        b in (1, a)
                        for a, b in zip(operands[0].shape[::-1], other.shape[::-1], strict=False)
                    )
                    else None,
                )
        return (TensorType(self.result_dtype(operands[0].dtype), operands[0].shape),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The formula over whole arrays; IEEE 754 results without warnings."""
        dtype = DType.from_numpy(operands[0].dtype)
        args = [widen(x) for x in operands]
        with np.errstate(all="ignore"):
            value = self.formula(ArrayEmitter(), working(dtype), *args)
        result = rounded(value, self.result_dtype(dtype))
        aliased = any(np.may_share_memory(result, x) for x in operands)
        return (result.copy() if aliased else result,)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The formula of the operands' elements at the same index."""
        args = [
            e.cast(value, working(t.dtype)) if working(t.dtype) is not t.dtype else value
            for t, value in ((t, read(slot, index)) for slot, t in enumerate(operands))
        ]
        value = self.formula(e, working(operands[0].dtype), *args)
        result = self.result_dtype(operands[0].dtype)
        return e.cast(value, result) if working(result) is not result else value

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """`pullback` as graph nodes, in f32 for half-precision operands."""
        type = p.b.type_of(p.results[0])
        wide, e = working(type.dtype), p.arithmetic(type.shape)

        def widened(value: Value) -> Value:
            half = wide is not type.dtype and p.b.type_of(value).dtype is type.dtype
            return e.cast(value, wide) if half else value

        parts = self.pullback(
            e, wide, *(widened(v) for v in (p.cotangent, p.results[0], *p.operands))
        )
        if wide is type.dtype:
            return parts
        return tuple(None if x is None else e.cast(x, type.dtype) for x in parts)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """Operations in the formula, times the elements."""
        counter = CountingEmitter()
        self.formula(counter, working(operands[0].dtype), *operands)
        return results[0].size * counter.count

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """Elementwise ops commute with every permutation."""
        return self, permutation
