"""The base of composites: ops kept whole for fast kernels and readable diagrams, made of simpler ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from graphc.ir.dim import DimLike, Shape
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Op, OpError, Pattern
from graphc.ir.types import TensorType
from graphc.ops import arith
from graphc.ops.errors import plural
from graphc.ops.numerics import working
from graphc.ops.source import Input


class Composite(Op):
    """An op with a `decompose`; its cost is that of its parts."""

    pattern: ClassVar[Pattern] = Pattern.COMPOSITE
    operand_names: ClassVar[tuple[str, ...]] = ("x",)
    required: ClassVar[int] = (
        1  # operands that must be there; the others may be left out from the end
    )

    def check_count(self, operands: Sequence[TensorType]) -> None:
        """Raises OpError E0201 unless there are at least `required` operands and not too many."""
        most = len(self.operand_names)
        if not self.required <= len(operands) <= most:
            names = ", ".join(self.operand_names)
            raise OpError(
                f"{self.name} takes ({names}), at least {plural(self.required, 'operand')}, "
                f"and got {len(operands)}"
            )

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """The sum over the decomposition."""
        b = GraphBuilder("flops")
        values = [b(Input(str(i), t.dtype, t.shape)) for i, t in enumerate(operands)]
        self.decompose(b, *values)
        total: DimLike = 0
        for node in b.nodes:
            types = [b.type_of(v) for v in node.operands]
            total = total + node.op.flops(types, node.types)
        return total


def in_working_precision(b: GraphBuilder, *values: Value) -> list[Value]:
    """f16 and bf16 values as f32, others as they are."""
    return [arith.convert(b, v, working(b.type_of(v).dtype)) for v in values]


def spread_vector(b: GraphBuilder, vector: Value, shape: Shape, first: int) -> Value:
    """A parameter repeated to a shape, its dimensions placed from axis `first` on."""
    rank = b.type_of(vector).rank
    return arith.as_spread(b, vector, shape, tuple(range(first, first + rank)))
