"""Composites that no kernel knows whole fall apart into simpler ops.

Which ones stay is the target's choice: a row kernel takes softmax and the row norms as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op, Pattern
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ir.types import TensorType

Keep = Callable[[Op, Sequence[TensorType]], bool]
"""Asked with a composite and its operand types: does a kernel of the target know it whole?"""


def decompose(graph: Graph, keep: Keep) -> Graph:
    """The graph with only those composites that the target keeps.

    An op whose elements can be computed one by one (an activation) is no composite in this sense:
    every kernel can evaluate it.
    """

    def rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.pattern is not Pattern.COMPOSITE:
            return None
        if keep(node.op, [r.type_of(v) for v in operands]):
            return None
        return node.op.decompose(r, *operands)

    while True:
        new = rewrite(graph, rule)
        if new is graph:
            return graph
        graph = new
