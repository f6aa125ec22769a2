"""What the bodies of kernels have in common, whatever they are compiled for."""

from __future__ import annotations

from collections.abc import Hashable

from graphc.ir.graph import Graph, Node
from graphc.lowering.generic.trace import checked_nodes, expanded


def structure(body: Graph) -> Hashable:
    """What two bodies must share to share code: ops, wiring and types, but not where they were written."""
    nodes = tuple((_plain(n), n.operands, n.types) for n in body.nodes)
    return (nodes, tuple(v for _, v in body.outputs), tuple(sorted(body.dims)))


def _plain(node: Node) -> Hashable:
    """An op without the places of what is in its bodies."""
    if not node.op.regions:
        return node.op
    plain = [
        (k, structure(v) if isinstance(v, Graph) else v) for k, v in node.op.attributes().items()
    ]
    return (type(node.op), tuple(plain))


def checks(body: Graph) -> list[Node]:
    """The nodes of a body, and of the bodies in it, whose indices are checked at run time: one fault id each."""
    if any(node.op.regions for node in body.nodes):
        return [c for node in body.nodes for region in node.op.regions for c in checks(region)]
    return list(checked_nodes(expanded(body)))
