"""Formulas as graph nodes: the emitter that turns an activation's formula into primitive ops."""

from __future__ import annotations

import numpy as np

from graphc.ir.dim import Shape
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ir.op import Expr, Op
from graphc.ops import binary, unary
from graphc.ops.shape import BroadcastInDim
from graphc.ops.source import Constant

_UNARY: dict[str, Op] = {
    op.function: op
    for op in (
        unary.Negate(),
        unary.Abs(),
        unary.Exp(),
        unary.Expm1(),
        unary.Log(),
        unary.Log1p(),
        unary.Sqrt(),
        unary.Rsqrt(),
        unary.Tanh(),
        unary.Logistic(),
        unary.Erf(),
        unary.Sine(),
        unary.Cosine(),
        unary.Floor(),
        unary.Ceil(),
        unary.RoundNearestEven(),
        unary.Not(),
        unary.IsNan(),
    )
}
_BINARY: dict[str, Op] = {
    op.function: op
    for op in (
        binary.Add(),
        binary.Subtract(),
        binary.Multiply(),
        binary.Divide(),
        binary.FloorDivide(),
        binary.Remainder(),
        binary.Power(),
        binary.Maximum(),
        binary.Minimum(),
        binary.And(),
        binary.Or(),
        binary.Xor(),
    )
}


class GraphEmitter:
    """`Arithmetic` whose expressions are values of a builder, all of one shape."""

    def __init__(self, b: GraphBuilder, shape: Shape) -> None:
        self.b, self.shape = b, shape

    def constant(self, value: float | int | bool, dtype: DType) -> Expr:
        """A scalar constant, broadcast to the shape."""
        scalar = self.b(Constant.of(np.asarray(value).astype(dtype.numpy)))
        return self.b(BroadcastInDim(self.shape, ()), scalar) if self.shape else scalar

    def cast(self, value: Expr, dtype: DType) -> Expr:
        """A convert node."""
        return self.b(unary.Convert(dtype), value)

    def unary(self, name: str, value: Expr) -> Expr:
        """The node of a unary function."""
        return self.b(unary.Sign() if name == "sign" else _UNARY[name], value)

    def binary(self, name: str, a: Expr, b: Expr) -> Expr:
        """The node of a binary function."""
        return self.b(_BINARY[name], a, b)

    def compare(self, name: str, a: Expr, b: Expr) -> Expr:
        """A compare node."""
        return self.b(binary.Compare(name), a, b)

    def select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        """A select node."""
        return self.b(binary.Select(), condition, a, b)
