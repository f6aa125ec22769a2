"""Dead code: what no output needs is dropped; inputs stay, because they are the model's signature."""

from __future__ import annotations

from graphc.ir.graph import Graph
from graphc.ir.rewrite import rewrite


def remove_dead_code(graph: Graph) -> Graph:
    """The graph without nodes that no output depends on."""
    return rewrite(graph, lambda r, node, operands: None)
