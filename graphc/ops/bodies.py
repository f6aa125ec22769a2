"""Cutting and joining the bodies of regions: graphs whose inputs stand for the region's operands, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.ir.dim import Bounds, DimLike, names_of
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Pattern
from graphc.ops.source import Input

Labelled = Sequence[tuple[str, Value]]

AGAIN = (Pattern.ELEMENTWISE, Pattern.INDEX, Pattern.SOURCE)
"""Patterns of what the gradient of a body computes again instead of reading it."""


def extract(
    name: str,
    dims: Mapping[str, Bounds],
    nodes: Sequence[Node],
    inputs: Labelled,
    outputs: Labelled,
) -> Graph:
    """The body that computes `outputs` from `inputs`.

    `nodes[i]` is node i of what it is cut from. Values named as inputs become inputs in the order given, whatever
    made them; only what the outputs then need is copied. Labels must differ.
    """
    b = GraphBuilder(name, dims)
    done: dict[Value, Value] = {}
    for label, value in inputs:
        type = nodes[value.node].types[value.result]
        done[value] = b(Input(label, type.dtype, type.shape))
    for id in sorted(needed_nodes(nodes, [v for _, v in outputs], done)):
        node = nodes[id]
        with b.at(node.scope, node.span):
            new = b.emit(node.op, *(done[v] for v in node.operands))
        for old, value in zip(node.values, new, strict=True):
            done.setdefault(old, value)
    return close(b, [(label, done[v]) for label, v in outputs])


def needed_nodes(
    nodes: Sequence[Node], values: Iterable[Value], given: Iterable[Value]
) -> frozenset[int]:
    """Ids of the nodes that must run to know `values` when `given` is known."""
    known, found = set(given), set[int]()
    stack = [v for v in values if v not in known]
    while stack:
        id = stack.pop().node
        if id not in found:
            found.add(id)
            stack += [v for v in nodes[id].operands if v not in known]
    return frozenset(found)


def depending(nodes: Sequence[Node], values: Iterable[Value]) -> frozenset[int]:
    """Ids of the nodes that made `values`, and of all that use what they made."""
    found = {v.node for v in values}
    for node in nodes:
        if any(v.node in found for v in node.operands):
            found.add(node.id)
    return frozenset(found)


def close(b: GraphBuilder, outputs: Labelled) -> Graph:
    """The finished body: it declares only the named dims it uses."""
    used: set[str] = set()
    for node in b.nodes:
        used.update(node.op.dim_names)
        used.update(n for r in node.op.regions for n in r.dims)
        used.update(n for t in node.types for d in t.shape for n in names_of(d))
    b.dims = {n: d for n, d in b.dims.items() if n in used}
    return b.build(outputs)


def inline(b: GraphBuilder, body: Graph, operands: Sequence[Value]) -> tuple[Value, ...]:
    """Emits a body's nodes with operands in the place of its inputs; the values of its outputs."""
    done = {n.values[0]: v for n, v in zip(body.inputs, operands, strict=True)}
    for node in body.nodes:
        if node.values[0] not in done:
            with b.at(node.scope, node.span):
                new = b.emit(node.op, *(done[v] for v in node.operands))
            done.update(zip(node.values, new, strict=True))
    return tuple(done[v] for _, v in body.outputs)


def flops_of(body: Graph) -> DimLike:
    """Arithmetic operations of one run of a body."""
    total: DimLike = 0
    for node in body.nodes:
        types = [body.type_of(v) for v in node.operands]
        total = total + node.op.flops(types, node.types)
    return total


def fresh(base: str, taken: Iterable[str]) -> str:
    """A label that is not taken: `x`, then `x_2`."""
    names, count, label = set(taken), 2, base
    while label in names:
        label, count = f"{base}_{count}", count + 1
    return label


__all__ = ["close", "depending", "extract", "flops_of", "fresh", "inline", "needed_nodes"]
