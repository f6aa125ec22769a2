"""What attention stores transposed, for the projection that follows, its gradient reads through the inverse.

A value that is read once transposed and otherwise as strides of memory (`Op.strided_operands`) would be stored as it
is, for those, and transposed. Read back from the transposed one, it has one reader, and is stored through it.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import Transpose
from graphc.passes.cse import eliminate_common_subexpressions
from graphc.passes.views import inverse

__all__ = ["read_back"]


def read_back(graph: Graph) -> Graph:
    """The graph with such values read through their transpose."""
    moved = {n.values[0]: t for n in graph.nodes if (t := _only_transpose(graph, n)) is not None}
    if not moved:
        return graph

    def rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        if not any(v in moved for v in node.operands[: node.op.strided_operands]):
            return None
        new = list(operands)
        for slot, value in enumerate(node.operands[: node.op.strided_operands]):
            if value in moved:
                there = moved[value]
                new[slot] = r(Transpose(inverse(there)), r(Transpose(there), operands[slot]))
        return r.emit(node.op, *new)

    return eliminate_common_subexpressions(rewrite(graph, rule))


def _only_transpose(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """The permutation of the only transpose that reads a strided op's result, where others read it as strides."""
    if not node.op.strided_operands or len(node.types) != 1 or graph.is_output(node.values[0]):
        return None
    users = graph.users(node)
    transposes = [u for u, _ in users if isinstance(u.op, Transpose)]
    others = [(u, slot) for u, slot in users if not isinstance(u.op, Transpose)]
    if len(transposes) != 1 or not others:
        return None
    if not all(slot < user.op.strided_operands for user, slot in others):
        return None
    (one,) = transposes
    assert isinstance(one.op, Transpose)
    return one.op.permutation
