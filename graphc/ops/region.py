"""Ops that own a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph
from graphc.ir.interpret import run
from graphc.ir.op import Array, Op, OpError, Pattern
from graphc.ir.types import TensorType
from graphc.ops.bodies import flops_of


@dataclass(frozen=True)
class Fusion(Op):
    """A group of nodes that becomes one kernel: operand i is the body's input i, results are the body's outputs.

    `kind` says what sort of kernel it is, for diagrams and dumps.
    """

    name: ClassVar[str] = "fusion"
    pattern: ClassVar[Pattern] = Pattern.REGION
    family: ClassVar[str] = "region"
    kind: str
    body: Graph

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The body's output types. Raises OpError E0201 unless the operands have its input types."""
        expected = [n.types[0] for n in self.body.inputs]
        if len(expected) != len(operands):
            raise OpError(
                f"fusion {self.body.name} takes {len(expected)} operands and got {len(operands)}"
            )
        for slot, (want, got) in enumerate(zip(expected, operands, strict=True)):
            if want != got:
                raise OpError(
                    f"fusion {self.body.name} takes {want} as operand {slot} and got {got}",
                    operand=slot,
                )
        return tuple(self.body.type_of(v) for _, v in self.body.outputs)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The body, interpreted."""
        given = {n.values[0]: x for n, x in zip(self.body.inputs, operands, strict=True)}
        outputs = tuple(v for _, v in self.body.outputs)
        found = run(self.body, given, outputs)
        return tuple(found[v] for v in outputs)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """The sum over the body."""
        return flops_of(self.body)

    def over_bodies(self, amounts: Sequence[DimLike]) -> DimLike:
        """The body's."""
        return amounts[0]

    @property
    def regions(self) -> tuple[Graph, ...]:
        """The body."""
        return (self.body,)
