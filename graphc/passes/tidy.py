"""Canonical form, constants, algebra and common subexpressions together, until nothing changes.

One walk tries the rules of the four passes at each node, which settles in a few walks; used between
the larger changes of the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.passes.canonicalise import canonical
from graphc.passes.constants import folded
from graphc.passes.cse import Sharing
from graphc.passes.simplify import simpler

MAX_WALKS = 32
"""Walks after which the graph stays as it is even if the last one still changed something."""


def tidy(graph: Graph) -> Graph:
    """The graph with the rules of canonicalise, fold-constants, simplify and cse applied."""
    for _ in range(MAX_WALKS):
        sharing = Sharing()

        def rule(
            r: Rewriter, node: Node, operands: tuple[Value, ...], sharing: Sharing = sharing
        ) -> Value | Sequence[Value] | None:
            for local in (canonical, folded, simpler):
                found = local(r, node, operands)
                if found is not None:
                    return found
            return sharing.rule(r, node, operands)

        new = rewrite(graph, rule)
        if new is graph:
            break
        graph = new
    return graph
