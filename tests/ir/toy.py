"""Small operations for tests of the graph itself: every kind of attribute occurs in one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.dim import Dim, DimLike, Shape
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph
from graphc.ir.literal import Literal
from graphc.ir.op import Op, OpError, Pattern
from graphc.ir.types import TensorType


@dataclass(frozen=True)
class ToyInput(Op):
    label: str
    dtype: DType
    shape: Shape
    name: ClassVar[str] = "input"
    pattern: ClassVar[Pattern] = Pattern.SOURCE
    arity: ClassVar[int | None] = 0

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.dtype, self.shape),)


@dataclass(frozen=True)
class ToyConstant(Op):
    literal: Literal
    name: ClassVar[str] = "constant"
    pattern: ClassVar[Pattern] = Pattern.SOURCE
    arity: ClassVar[int | None] = 0

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.literal.dtype, self.literal.shape),)


@dataclass(frozen=True)
class ToyAdd(Op):
    name: ClassVar[str] = "add"
    pattern: ClassVar[Pattern] = Pattern.ELEMENTWISE
    arity: ClassVar[int | None] = 2
    commutative: ClassVar[bool] = True

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        a, b = operands
        if a != b:
            raise OpError(f"add of {a} and {b}", operand=1)
        return (a,)


@dataclass(frozen=True)
class ToyPair(Op):
    """Both operands, swapped: two results, and attributes of every kind."""

    count: int = 1
    eps: float = 1e-5
    on: bool = False
    mode: str = "plain"
    dims: tuple[DimLike, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    dtype: DType = DType.F32
    extra: float | None = None
    name: ClassVar[str] = "pair"
    pattern: ClassVar[Pattern] = Pattern.OPAQUE
    arity: ClassVar[int | None] = 2

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return operands[::-1]


@dataclass(frozen=True)
class ToyRegion(Op):
    kind: str
    body: Graph
    name: ClassVar[str] = "region"
    pattern: ClassVar[Pattern] = Pattern.REGION

    @property
    def regions(self) -> tuple[Graph, ...]:
        return (self.body,)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return tuple(self.body.type_of(v) for _, v in self.body.outputs)


OPS: dict[str, type[Op]] = {
    op.name: op for op in (ToyInput, ToyConstant, ToyAdd, ToyPair, ToyRegion)
}


def dim(text: str) -> Dim:
    return Dim.symbol(text)
