"""Passes inside of bodies: what is done to a graph is done to the bodies of its loops and branches, recursively."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import Fusion

Run = Callable[[Graph], Graph]


def everywhere(run: Run) -> Run:
    """The pass that runs `run` on a graph and on all bodies in it.

    A body keeps its inputs and outputs, their order and types: every pass leaves the signature of a graph alone.
    """

    def deep(graph: Graph) -> Graph:
        graph = run(graph)
        return rewrite(graph, rule) if any(has_bodies(n) for n in graph.nodes) else graph

    def rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        op = with_bodies(node.op, deep)
        return None if op is node.op else r.emit(op, *operands)

    return deep


def has_bodies(node: Node) -> bool:
    """Whether a node owns graphs that passes change: it is a loop or a branch, not a kernel."""
    return bool(node.op.regions) and not isinstance(node.op, Fusion)


def with_bodies(op: Op, run: Run) -> Op:
    """The op with `run` done to its bodies: itself if that changes nothing. A kernel's body stays as it is."""
    if isinstance(op, Fusion):
        return op
    changes = {}
    for field in dataclasses.fields(op):
        body = getattr(op, field.name)
        if isinstance(body, Graph):
            new = run(body)
            if new is not body:
                changes[field.name] = new
    return dataclasses.replace(op, **changes) if changes else op
