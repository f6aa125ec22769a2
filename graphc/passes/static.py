"""What is known when a module is built: values that depend on parameters and literals only.

Passes may spend such values freely: transposing a weight costs nothing at run time.
"""

from __future__ import annotations

from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.ops import BroadcastInDim, Constant, Convert, Reshape

Number = float | int | bool


def open_ended(node: Node) -> bool:
    """True when a result's shape or value depends on a named dim, which only a run knows."""
    return (
        bool(node.op.dim_names)
        or not all(t.is_static for t in node.types)
        or any(open_ended(inner) for body in node.op.regions for inner in body.nodes)
    )


class Static:
    """Answers about the values of one builder, remembered per node; it may grow in between."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def __call__(self, b: GraphBuilder, value: Value) -> bool:
        """True when a value of the builder is fixed at build time and has no named dim."""
        stack = [value.node]
        while stack:
            id = stack[-1]
            node = b.nodes[id]
            open_ = [v.node for v in node.operands if v.node not in self._known]
            if id in self._known:
                stack.pop()
            elif open_:
                stack += open_
            else:
                fixed = node.op.name != "input" and not open_ended(node)
                self._known[id] = fixed and all(self._known[v.node] for v in node.operands)
                stack.pop()
        return self._known[value.node]


def splat(b: GraphBuilder, value: Value) -> Number | None:
    """The one number that every element of a value is known to be, or None.

    Looks through broadcasts and reshapes of a constant, and conversions that keep the number.
    """
    node = b.node_of(value)
    if isinstance(node.op, Constant):
        return node.op.splat
    if isinstance(node.op, (BroadcastInDim, Reshape)):
        return splat(b, node.operands[0])
    if isinstance(node.op, Convert):
        number = splat(b, node.operands[0])
        if number is not None and node.op.dtype.is_float and not isinstance(number, bool):
            kept = node.op.dtype.numpy.type(number).item()
            return number if kept == number else None
    return None
