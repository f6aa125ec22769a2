"""Common subexpressions: the same op on the same operands is computed once.

Operations have no side effects, so equal ops on equal operands have equal results. Inputs and
parameters are equal only if they have the same name, of which there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ir.rewrite import Rewriter, rewrite


def eliminate_common_subexpressions(graph: Graph) -> Graph:
    """The graph with one node for each op and operands; the first keeps its scope."""
    return rewrite(graph, Sharing().rule)


class Sharing:
    """What has been computed so far in one walk over a graph."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Op, tuple[Value, ...]], tuple[Value, ...]] = {}

    def rule(self, r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        """The rule of this pass: the results of an equal node before this one, or None.

        After None the node has to be emitted next, as `rewrite` does.
        """
        key = (node.op, operands)
        if key in self._seen:
            return self._seen[key]
        self._seen[key] = tuple(Value(len(r.nodes), i) for i in range(len(node.types)))
        return None
