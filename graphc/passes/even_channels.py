"""Convolutions over an odd number of channels get one more, of zeros, in input and weight.

Tiles of bfloat16 hold channels in pairs (`lowering/cpu/families/tile/amx.py`). The zeros are stored with the
border that `halo` has made, by whoever makes the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import ConvGeneral, Pad


def even_channels(graph: Graph) -> Graph:
    """The graph with convolutions, channels last and in one group, over even numbers of channels."""
    padded: dict[Value, Value] = {}

    def rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        op = node.op
        if not isinstance(op, ConvGeneral) or not op.channels_last or op.groups != 1:
            return None
        x, weight = operands
        channels = r.type_of(x).shape[-1]
        if not isinstance(channels, int) or channels % 2 == 0:
            return None
        if x not in padded:
            padded[x] = _with_channel(r, x)
        wide = [0] * r.type_of(weight).rank
        wide[1] = 1
        none = (0,) * len(wide)
        return r.emit(op, padded[x], r(Pad(none, tuple(wide), none, 0.0), weight))

    return rewrite(graph, rule)


def _with_channel(r: Rewriter, x: Value) -> Value:
    """x and a channel of zeros: part of its border, where it has one."""
    maker = r.node_of(x)
    rank = r.type_of(x).rank
    none = (0,) * rank
    more = (*none[:-1], 1)
    with r.at(maker.scope, maker.span):
        border = maker.op
        if isinstance(border, Pad) and border.interior == none and border.value == 0:
            high = (*border.high[:-1], border.high[-1] + 1)
            return r(replace(border, high=high), maker.operands[0])
        return r(Pad(none, more, none, 0.0), x)
