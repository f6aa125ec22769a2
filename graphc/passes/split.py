"""Products that are only read in slices become one product a slice: the query, key and value of an attention that
come out of one weight are then written where they are read, and nothing is copied.

Elementwise ops and biases between the product and its slices are sliced along with it. The weight's parts are
build-time values. Slices must not overlap, or work would be done twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Pattern
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import BroadcastInDim, DotGeneral, Slice
from graphc.passes.fuse import static_nodes

_LEAST = 16  # columns: narrower parts would leave vectors empty


@dataclass(frozen=True)
class _Range:
    axis: int
    start: int
    limit: int


def split_products(graph: Graph) -> Graph:
    """The graph with sliced products of static weights taken apart."""
    static = static_nodes(graph)
    ranges: dict[int, _Range] = {}
    for node in graph.nodes:
        if len(node.types) == 1:
            ranges |= _parts(graph, node.values[0], static)
    if not ranges:
        return graph

    def rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
        part = ranges.get(node.id)
        return None if part is None else _pull(r, graph, node.operands[0], part)

    return rewrite(graph, rule)


def _parts(graph: Graph, value: Value, static: frozenset[int]) -> dict[int, _Range]:
    """The slices (by node id) a value is read in and nothing else, if each can be computed by itself."""
    uses = graph.uses(value)
    if len(uses) < 2 or graph.is_output(value):
        return {}
    parts = {node.id: _range(graph, node) for node, _ in uses}
    found = {id: part for id, part in parts.items() if part is not None}
    if len(found) < len(uses) or len({part.axis for part in found.values()}) > 1:
        return {}
    ordered = sorted(found.values(), key=lambda part: part.start)
    if any(a.limit > b.start for a, b in pairwise(ordered)):
        return {}
    narrow = any(part.limit - part.start < _LEAST for part in ordered)
    return found if not narrow and _divisible(graph, value, ordered[0].axis, static) else {}


def _range(graph: Graph, node: Node) -> _Range | None:
    """The one dimension a slice cuts, in steps of 1, or None for other ops and cuts."""
    op = node.op
    if not isinstance(op, Slice) or set(op.strides) != {1}:
        return None
    shape = graph.type_of(node.operands[0]).shape
    cut: list[tuple[int, DimLike, DimLike]] = [
        (axis, start, limit)
        for axis, (start, limit, size) in enumerate(zip(op.start, op.limit, shape, strict=True))
        if (start, limit) != (0, size)
    ]
    if len(cut) != 1:
        return None
    axis, start, limit = cut[0]
    return _Range(axis, start, limit) if isinstance(start, int) and isinstance(limit, int) else None


def _divisible(graph: Graph, value: Value, axis: int, static: frozenset[int]) -> bool:
    """True for products, and what is elementwise after them, that can be computed in parts along an axis."""
    node = graph.node(value.node)
    op = node.op
    if isinstance(op, DotGeneral):
        rhs = graph.type_of(node.operands[1])
        return node.operands[1].node in static and axis >= node.types[0].rank - len(
            op.rhs_free(rhs.rank)
        )
    if op.pattern is not Pattern.ELEMENTWISE or len(node.types) != 1:
        return False
    inner = [v for v in node.operands if not isinstance(graph.node(v.node).op, BroadcastInDim)]
    return (
        len(inner) == 1
        and len(graph.uses(inner[0])) == 1
        and not graph.is_output(inner[0])
        and _divisible(graph, inner[0], axis, static)
    )


def _pull(r: Rewriter, graph: Graph, value: Value, part: _Range) -> Value:
    """The part of a value, computed by itself."""
    node = graph.node(value.node)
    op = node.op
    with r.at(node.scope, node.span):
        if isinstance(op, DotGeneral):
            lhs, rhs = (r.map[v] for v in node.operands)
            free = op.rhs_free(r.type_of(rhs).rank)
            axis = free[part.axis - (node.types[0].rank - len(free))]
            return r(op, lhs, _cut(r, rhs, _Range(axis, part.start, part.limit)))
        if isinstance(op, BroadcastInDim):
            shape = list(op.shape)
            shape[part.axis] = part.limit - part.start
            x = r.map[node.operands[0]]
            if part.axis in op.dims:
                axis = op.dims.index(part.axis)
                if r.type_of(x).shape[axis] == op.shape[part.axis]:
                    x = _cut(r, x, _Range(axis, part.start, part.limit))
            return r(BroadcastInDim(tuple(shape), op.dims), x)
        return r(op, *(_pull(r, graph, v, part) for v in node.operands))


def _cut(r: Rewriter, value: Value, part: _Range) -> Value:
    shape: Sequence[DimLike] = r.type_of(value).shape
    start = tuple(part.start if axis == part.axis else 0 for axis in range(len(shape)))
    limit = tuple(part.limit if axis == part.axis else d for axis, d in enumerate(shape))
    return r(Slice(start, limit, (1,) * len(shape)), value)
