"""Rewriting: walk a graph in order, re-emit every node through a rule, drop what became dead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Op

Rule = Callable[["Rewriter", Node, tuple[Value, ...]], "Sequence[Value] | Value | None"]


class Rewriter(GraphBuilder):
    """A builder over an old graph.

    A rule sees the old node and its new operands, and may emit through the rewriter.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.name, graph.dims)
        self.old = graph
        self.map: dict[Value, Value] = {}

    def keep(self, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        """The old node on new operands; its shape rule runs only if their types have changed."""
        for old, new in zip(node.operands, operands, strict=True):
            now, before = self.type_of(new), self.old.type_of(old)
            if now is not before and now != before:
                return self.emit(node.op, *operands)
        at = len(self.nodes)
        if at != node.id or operands != node.operands:
            node = node.moved(at, operands)
        self.nodes.append(node)
        return node.values

    def users_left(self, value: Value) -> int:
        """Uses of an old value in the old graph, as operands and outputs."""
        return len(self.old.uses(value)) + self.old.output_uses.get(value, 0)


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """A new graph: each node is what `rule` returns for it, or itself where that is None.

    Results replace the old node's one by one. Nodes that nothing needs any more are dropped; scope
    and span of the old node go to everything the rule emits for it. Returns the very same graph
    when nothing changed.
    """
    r = Rewriter(graph)
    changed = False
    for node in graph.nodes:
        operands = tuple(r.map[v] for v in node.operands)
        r.place(node.scope, node.span)
        new = rule(r, node, operands)
        if isinstance(new, Value):
            new = (new,)
        if new is None:
            new = r.keep(node, operands)
        else:
            changed = True
        r.map.update(zip(node.values, new, strict=True))
    if not changed and graph.live == {node.id for node in graph.nodes}:
        return graph
    return r.build([(n, r.map[v]) for n, v in graph.outputs], prune=True)


def emit_like(r: GraphBuilder, node: Node, op: Op, *operands: Value) -> tuple[Value, ...]:
    """Emits an op with another node's scope and span."""
    with r.at(node.scope, node.span):
        return r.emit(op, *operands)
