"""Bodies that differ in sizes only share code: the sizes become parameters of the function.

So the updates of all parameters of an optimizer are one function. A body whose tensors all have one shape is flat,
`[elements]`; where there are vectors over the last dimension as well it is `[rows, columns]`.
"""

from __future__ import annotations

import math

from graphc.ir.dim import Bounds, Dim, Shape
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Pattern
from graphc.lowering.generic.streams import General
from graphc.ops import BroadcastInDim, Constant, Fusion, Input

__all__ = ["of_any_size"]


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
