"""Bodies that differ in numbers only share code: the numbers become parameters of the function.

So the updates of all parameters of an optimizer are one function, and products with a dropout behind them are one
whatever its stream of random numbers. A body whose tensors all have one shape is flat, `[elements]`; where there are
vectors over the last dimension as well it is `[rows, columns]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphc.ir.dim import Bounds, Dim, Shape
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Pattern
from graphc.ops import BroadcastInDim, Constant, Fusion, Input, RandomBits
from graphc.ops.random import MAX_STREAM

__all__ = ["General", "of_any_size", "of_any_stream"]


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


def of_any_size(fusion: Fusion) -> General | None:
    """The fusion with its sizes as named dims; None unless it is elementwise, in tensors of one shape and vectors."""
    body = fusion.body
    shapes = dict.fromkeys(t.shape for n in body.nodes for t in n.types)
    whole = max(shapes, key=len)
    extents = [d for d in whole if isinstance(d, int) and d > 0]
    if body.dims or not whole or len(extents) < len(whole):
        return None
    vector = whole[-1:]
    flat = vector not in shapes or len(whole) == 1
    if not set(shapes) <= {whole, vector, ()}:
        return None
    names = ("elements",) if flat else ("rows", "columns")
    counts = (math.prod(extents),) if flat else (math.prod(extents[:-1]), extents[-1])
    sizes = dict(zip(names, counts, strict=True))
    new: dict[Shape, Shape] = {(): ()}
    symbols = tuple(Dim.symbol(name) for name in sizes)
    new[vector] = symbols[-1:]
    new[whole] = symbols
    b = GraphBuilder(body.name, {name: Bounds(1) for name in sizes})
    done: dict[Value, Value] = {}
    for node in body.nodes:
        (type,) = node.types
        op = node.op
        if isinstance(op, Input):
            op = Input(op.label, op.dtype, new[type.shape])
        elif isinstance(op, BroadcastInDim):
            source = body.type_of(node.operands[0]).shape
            if source and op.dims != (len(whole) - 1,):
                return None
            op = BroadcastInDim(new[type.shape], (len(symbols) - 1,) if source else ())
        elif op.pattern is not Pattern.ELEMENTWISE and not isinstance(op, Constant):
            return None
        with b.at(node.scope, node.span):
            done.update(
                zip(node.values, b.emit(op, *(done[v] for v in node.operands)), strict=True)
            )
    outputs = [(name, done[v]) for name, v in body.outputs]
    return General(Fusion(fusion.kind, b.build(outputs)), sizes)
