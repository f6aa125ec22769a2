"""The verifier: the invariants every graph keeps, checked after each pass.

It trusts nothing that a pass may have touched: ids, operand slots and edges, types (inferred anew),
named dims, names, and the bodies of regions, recursively. It is linear in the graph.
"""

from __future__ import annotations

from graphc.ir.dim import names_of
from graphc.ir.graph import Graph, Node
from graphc.ir.op import OpError
from graphc.source import Span


class VerifyError(Exception):
    """A graph breaks an invariant: a bug in the pass that made it, not in the user's file.

    Attributes:
        after: The pass whose result was checked (empty: none was named).
        invariant: The rule that does not hold, in words.
        node: The node at fault; None when the graph as a whole is.
        span: Where in the source that node came from, if known.
    """

    def __init__(self, after: str, invariant: str, detail: str, node: Node | None) -> None:
        self.after, self.invariant, self.detail, self.node = after, invariant, detail, node
        self.span: Span | None = node.span if node else None
        where = f"node {node.id} ({node.op.name})" if node else "the graph"
        if node and node.scope:
            where += f" of {node.path}"
        if self.span is not None:
            where += f" from {self.span}"
        stage = f"after pass {after}: " if after else ""
        super().__init__(f"{stage}{invariant}: {where}: {detail}")


class _BrokenError(Exception):
    """Carries the first failure out of the checks."""

    def __init__(self, invariant: str, detail: str, node: Node | None = None) -> None:
        super().__init__(invariant, detail, node)
        self.invariant, self.detail, self.node = invariant, detail, node


def verify(graph: Graph, after: str = "") -> None:
    """Checks every invariant of a graph and of the bodies its regions own.

    `after` names the pass that made the graph, for the message.

    Raises:
        VerifyError: The first invariant that does not hold.
    """
    try:
        _graph(graph)
    except _BrokenError as broken:
        raise VerifyError(after, broken.invariant, broken.detail, broken.node) from broken.__cause__


def _graph(graph: Graph) -> None:
    for name, bounds in graph.dims.items():
        if bounds.low < 0 or (bounds.high is not None and bounds.high < bounds.low):
            raise _BrokenError("dims have sane bounds", f"{name} in {bounds.low}..{bounds.high}")
    for position, node in enumerate(graph.nodes):
        if node.id != position:
            raise _BrokenError("ids are ordinals", f"node at position {position}", node)
        _operands(graph, node)
        _types(graph, node)
        for region in node.op.regions:
            if region.sound:
                continue
            try:
                _graph(region)
            except _BrokenError as broken:
                detail = f"in its body {region.name}: {broken.detail}"
                if broken.node is not None:
                    detail += f" (body node {broken.node.id}, {broken.node.op.name})"
                raise _BrokenError(broken.invariant, detail, node) from broken
    slots = {(v, n.id, slot) for n in graph.nodes for slot, v in enumerate(n.operands)}
    wrong = sorted(slots ^ set(graph.edges))
    if wrong:
        value, user, slot = wrong[0]
        detail = f"operand {slot}, edge from {value}"
        raise _BrokenError("edges match operands", detail, graph.node(user))
    _unique("input labels are unique", graph.inputs, "label")
    _unique("parameter paths are unique", graph.parameters, "path")
    seen: set[str] = set()
    for name, value in graph.outputs:
        if name in seen:
            raise _BrokenError("output names are unique", f"two outputs are called {name!r}")
        seen.add(name)
        if not 0 <= value.node < len(graph) or value.result >= len(graph.node(value.node).types):
            raise _BrokenError("outputs exist", f"output {name!r} is {value}")
    for state, after in graph.state:
        if graph.type_of(after) != state.types[0]:
            detail = f"{state.types[0]} becomes {graph.type_of(after)}"
            raise _BrokenError("state keeps its type", detail, state)
    graph.sound = True


def _operands(graph: Graph, node: Node) -> None:
    if node.op.arity is not None and node.op.arity != len(node.operands):
        counts = f"{node.op.arity} operands expected, {len(node.operands)} given"
        raise _BrokenError("operand slots are complete", counts, node)
    for slot, value in enumerate(node.operands):
        if not 0 <= value.node < node.id:
            raise _BrokenError("operands come before users", f"operand {slot} is {value}", node)
        if not 0 <= value.result < len(graph.node(value.node).types):
            raise _BrokenError("operands exist", f"operand {slot} is {value}", node)


def _types(graph: Graph, node: Node) -> None:
    try:
        inferred = node.op.typed(*(graph.type_of(v) for v in node.operands))
    except OpError as error:
        raise _BrokenError("operands fit the op", error.message, node) from error
    if inferred != node.types:
        recorded, anew = (", ".join(map(str, types)) for types in (node.types, inferred))
        raise _BrokenError(
            "types equal inferred types", f"recorded {recorded}, inferred {anew}", node
        )
    named = [d for t in node.types for d in t.shape if not isinstance(d, int)]
    names = {name for dim in named for name in names_of(dim)}
    for name in sorted(names | node.op.dim_names):
        if name not in graph.dims:
            raise _BrokenError("named dims are declared", f"{name} is not", node)


def _unique(invariant: str, nodes: tuple[Node, ...], attribute: str) -> None:
    seen: set[str] = set()
    for node in nodes:
        name = getattr(node.op, attribute)
        if name in seen:
            raise _BrokenError(invariant, f"two are called {name!r}", node)
        seen.add(name)
