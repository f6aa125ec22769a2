"""Bodies that differ in their streams of random numbers only share code: the streams become parameters of the function.

So the dropouts of a network's layers are one kernel, and so are products with a dropout behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphc.ir.dim import Bounds, Dim
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import Fusion, RandomBits
from graphc.ops.random import MAX_STREAM

__all__ = ["General", "of_any_stream"]


@dataclass(frozen=True)
class General:
    """A fusion with parameters, and the values with which it is a given one."""

    fusion: Fusion
    sizes: Mapping[str, int]


def of_any_stream(fusion: Fusion) -> General | None:
    """The fusion with the streams of its random numbers as named dims; None if it draws none."""
    drawn = {
        node.id: node.op.stream
        for node in fusion.body.nodes
        if isinstance(node.op, RandomBits) and isinstance(node.op.stream, int)
    }
    if not drawn:
        return None
    names = {id: f"stream{i}" for i, id in enumerate(drawn)}
    sizes = {names[id]: stream for id, stream in drawn.items()}
    bounds = {name: Bounds(0, MAX_STREAM - 1) for name in sizes}
    b = GraphBuilder(fusion.body.name, {**fusion.body.dims, **bounds})
    done: dict[Value, Value] = {}
    for node in fusion.body.nodes:
        op = node.op
        if isinstance(op, RandomBits):
            op = replace(op, stream=Dim.symbol(names[node.id]))
        with b.at(node.scope, node.span):
            operands = (done[v] for v in node.operands)
            done.update(zip(node.values, b.emit(op, *operands), strict=True))
    outputs = [(name, done[v]) for name, v in fusion.body.outputs]
    return General(Fusion(fusion.kind, b.build(outputs)), sizes)
