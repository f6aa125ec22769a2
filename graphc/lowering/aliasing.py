"""Whose bytes a value is, and what may be written over what is read."""

from __future__ import annotations

from graphc.ir.graph import Graph, Value
from graphc.ir.op import Pattern


def origin(graph: Graph, value: Value) -> Value:
    """The value whose bytes these are: reshapes are followed back to what was computed or given."""
    node = graph.node(value.node)
    while node.op.alias:
        value = node.operands[0]
        node = graph.node(value.node)
    return value


def origin_inside(graph: Graph, value: Value, inside: frozenset[int]) -> Value:
    """`origin`, behind calls that packing does on its way."""
    value = origin(graph, value)
    while value.node in inside:
        value = origin(graph, graph.node(value.node).operands[0])
    return value


def reads_in_place(body: Graph, slot: int) -> bool:
    """True when operand `slot` is read only at the very element being written.

    Then the result may overwrite it: each element is read before, or in the same vector as, it is written.
    """
    inputs = body.inputs
    out_shape = body.type_of(body.outputs[0][1]).shape
    frontier = {inputs[slot].id}
    if inputs[slot].types[0].shape != out_shape:
        return False
    for node in body.nodes:
        if any(v.node in frontier for v in node.operands):
            if node.op.pattern is not Pattern.ELEMENTWISE:
                return False
            frontier.add(node.id)
    return True
