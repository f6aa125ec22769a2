"""State in pictures: what a step overwrites is drawn where it is used, as weights are; its next values are one box."""

from __future__ import annotations

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import Input, Parameter

STATE = "state"
"""The name of the box that all next values go to."""


def settled(graph: Graph) -> Graph:
    """The graph with its state as parameters."""
    return rewrite(graph, _rule) if graph.state else graph


def written(graph: Graph) -> frozenset[str]:
    """The outputs of a settled graph that are next values of its state: they have the names of parameters."""
    paths = {str(getattr(p.op, "path", "")) for p in graph.parameters}
    return frozenset(name for name, _ in graph.outputs if name in paths)


def _rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
    op = node.op
    if not isinstance(op, Input) or not op.state:
        return None
    return r(Parameter(op.label, op.dtype, op.shape, "zeros()"))
