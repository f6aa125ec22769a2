"""Formulas of optimizers and schedules, written as they stand in the papers: values of a builder with operators.

`Term` is for these formulas only. Besides Python numbers it mixes two kinds of values: tensors of the parameter's
shape, and f64 scalars (rates, bias corrections), which take the tensor's element type and shape where they meet one.
"""

from __future__ import annotations

from typing import Union

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Op
from graphc.ops import Cosine, Exp, Negate, Sign, Sqrt, arith, binary

Operand = Union["Term", int, float]


class Term:
    """A value of a builder in a formula; `.value` takes it out again."""

    def __init__(self, b: GraphBuilder, value: Value) -> None:
        self.b, self.value = b, value

    def _met(self, other: Operand) -> tuple[Value, Value]:
        """Both operands in one element type: a scalar takes that of the tensor beside it."""
        if not isinstance(other, Term):
            return self.value, arith.constant(self.b, other, self.b.type_of(self.value).dtype)
        x, y = self.value, other.value
        left, right = self.b.type_of(x), self.b.type_of(y)
        if left.dtype is DType.F64 and left.rank == 0:
            x = arith.convert(self.b, x, right.dtype)
        elif right.dtype is DType.F64 and right.rank == 0:
            y = arith.convert(self.b, y, left.dtype)
        return x, y

    def _binary(self, op: Op, other: Operand, swapped: bool = False) -> Term:
        x, y = self._met(other)
        return Term(self.b, arith.binary_op(self.b, op, *((y, x) if swapped else (x, y))))

    def _unary(self, op: Op) -> Term:
        return Term(self.b, self.b(op, self.value))

    def __add__(self, other: Operand) -> Term:
        return self._binary(binary.Add(), other)

    def __radd__(self, other: Operand) -> Term:
        return self._binary(binary.Add(), other, swapped=True)

    def __sub__(self, other: Operand) -> Term:
        return self._binary(binary.Subtract(), other)

    def __rsub__(self, other: Operand) -> Term:
        return self._binary(binary.Subtract(), other, swapped=True)

    def __mul__(self, other: Operand) -> Term:
        return self._binary(binary.Multiply(), other)

    def __rmul__(self, other: Operand) -> Term:
        return self._binary(binary.Multiply(), other, swapped=True)

    def __truediv__(self, other: Operand) -> Term:
        return self._binary(binary.Divide(), other)

    def __rtruediv__(self, other: Operand) -> Term:
        return self._binary(binary.Divide(), other, swapped=True)

    def __floordiv__(self, other: Operand) -> Term:
        return self._binary(binary.FloorDivide(), other)

    def __mod__(self, other: Operand) -> Term:
        return self._binary(binary.Remainder(), other)

    def __pow__(self, other: Operand) -> Term:
        return self._binary(binary.Power(), other)

    def __rpow__(self, other: Operand) -> Term:
        return self._binary(binary.Power(), other, swapped=True)

    def __neg__(self) -> Term:
        return self._unary(Negate())

    def __lt__(self, other: Operand) -> Term:
        return self._binary(binary.Compare("lt"), other)

    def __le__(self, other: Operand) -> Term:
        return self._binary(binary.Compare("le"), other)

    def __gt__(self, other: Operand) -> Term:
        return self._binary(binary.Compare("gt"), other)

    def __ge__(self, other: Operand) -> Term:
        return self._binary(binary.Compare("ge"), other)

    def sqrt(self) -> Term:
        """The square root."""
        return self._unary(Sqrt())

    def exp(self) -> Term:
        """The exponential."""
        return self._unary(Exp())

    def cos(self) -> Term:
        """The cosine."""
        return self._unary(Cosine())

    def sign(self) -> Term:
        """-1, 0 or 1."""
        return self._unary(Sign())

    def maximum(self, other: Operand) -> Term:
        """The larger one."""
        return self._binary(binary.Maximum(), other)

    def minimum(self, other: Operand) -> Term:
        """The smaller one."""
        return self._binary(binary.Minimum(), other)

    def sum(self) -> Term:
        """The sum of all elements."""
        return Term(self.b, arith.sum(self.b, self.value))

    def max(self) -> Term:
        """The largest element."""
        return Term(self.b, arith.max(self.b, self.value))

    def norm(self) -> Term:
        """The square root of the sum of squares."""
        return (self * self).sum().sqrt()

    def lerp(self, end: Operand, weight: float) -> Term:
        """`self + weight * (end - self)`: a running average, as `torch.lerp`."""
        return self + weight * (end - self)

    def where(self, on_true: Term, on_false: Operand) -> Term:
        """`on_true` where this bool holds, else `on_false`."""
        x, y = on_true._met(on_false)
        return Term(self.b, arith.select(self.b, self.value, x, y))

    def astype(self, dtype: DType) -> Term:
        """The term in another element type."""
        return Term(self.b, arith.convert(self.b, self.value, dtype))
