"""From the mistakes of a model to marks in its picture: where a failed layer belongs, and what it was given.

Elaboration leaves the graph as far as it could be built. The values that nothing uses there are what the failed layers
were given; a diagnostic's related places ("gives f32[N, 256]") say which one was whose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.diagnostics import Diagnostic
from graphc.diagram.cost import Costs
from graphc.diagram.scene import Failure
from graphc.ir.graph import Graph, Node, Scope, Value
from graphc.source import Span


def mark(partial: Graph, diagnostics: Iterable[Diagnostic]) -> tuple[Graph, list[Failure]]:
    """The partial graph without its loose ends as outputs, and one failure per error that has a place."""
    graph = Graph(partial.name, partial.dims, partial.nodes, ())
    fixed = Costs(graph).fixed
    loose = [v for n in graph.nodes if n.id not in fixed for v in n.values if not graph.uses(v)]
    errors = [d for d in diagnostics if d.severity == "error" and d.primary is not None]
    given = [_given(graph, loose, d) for d in errors]
    claimed = {v for values in given for v in values}
    failures = []
    for d, values in zip(errors, given, strict=True):
        if not values and len(errors) == 1:
            values = [v for v in loose if v not in claimed and _before(graph.node(v.node), d)]
        assert d.primary is not None
        scope = _around([graph.node(v.node) for v in values])
        failures.append(
            Failure(d.message, _name(d.primary.span), tuple(values), scope, d.primary.span)
        )
    return graph, failures


def _given(graph: Graph, loose: Sequence[Value], diagnostic: Diagnostic) -> list[Value]:
    """The values that the related places of an error made: unused ones first, else the last one made there."""
    found: list[Value] = []
    for label in diagnostic.secondary:
        here = [n for n in graph.nodes if n.span == label.span]
        values = [v for n in here for v in n.values]
        unused = [v for v in values if v in loose]
        found += unused or values[-1:]
    return list(dict.fromkeys(found))


def _before(node: Node, diagnostic: Diagnostic) -> bool:
    """True unless the node was written after the error, in the same file."""
    assert diagnostic.primary is not None
    span = diagnostic.primary.span
    return node.span is None or node.span.source != span.source or node.span.start <= span.start


def _around(nodes: Sequence[Node]) -> tuple[Scope, ...]:
    """The innermost block that all the given values were made in; their own layers do not count."""
    scopes = [n.scope[:-1] for n in nodes if n.scope]
    if not scopes:
        return ()
    shortest = min(scopes, key=len)
    depth = next(
        (i for i in range(len(shortest)) if any(s[i] != shortest[i] for s in scopes)), len(shortest)
    )
    return shortest[:depth]


def _name(span: Span) -> str:
    """What was written there, on one line."""
    words = " ".join(span.text.split())
    return words if len(words) <= 48 else words[:47] + "…"
