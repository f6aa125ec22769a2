"""Padding becomes data: a convolution reads a border of zeros that its producer has stored.

`conv(x, padding=p)` becomes `conv(pad(x, p), padding=0)` for channels-last convolutions and their weight gradients, so
that the kernel has no bounds to check and the pad is fused into the stores of whoever makes x (an input is
copied once). One border serves all readers of x: it is as large as the largest padding,
a convolution that wants less crops it (negative padding), and elementwise readers take the middle.
A reader that cannot do either keeps reading x itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Pattern
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import ConvGeneral, ConvWeightGradient, Pad, Slice

Border = tuple[tuple[int, int], ...]
"""Zeros before and after each spatial dimension."""


def make_halos(graph: Graph) -> Graph:
    """The graph with explicit borders in front of padded convolutions."""
    borders = {v: b for v in _values(graph) if (b := _border(graph, v)) is not None}
    if not borders:
        return graph
    shared = {v for v in borders if _all_can_share(graph, v)}
    stored: dict[Value, _Stored] = {}

    def rule(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        halo = node.operands[0] if node.operands else None
        given = list(operands)
        op = node.op
        for slot, value in enumerate(node.operands):
            if value not in borders:
                continue
            if slot == 0 and value == halo and _reads_halo(node):
                assert isinstance(op, (ConvGeneral, ConvWeightGradient))
                op = _cropped(op, borders[value])
                given[0] = _padded(r, stored, graph, value, borders[value])
            elif value in shared and isinstance(op, ConvWeightGradient):
                op = replace(op, crop=_beside(op.crop, borders[value]))
                given[slot] = _padded(r, stored, graph, value, borders[value])
            elif value in shared:
                given[slot] = _middle(r, stored, graph, value, borders[value])
        if given == list(operands):
            return None
        return r.emit(op, *given)

    return rewrite(graph, rule)


@dataclass
class _Stored:
    padded: Value
    middle: Value | None = None


def _values(graph: Graph) -> list[Value]:
    return [v for node in graph.nodes for v in node.values]


def _reads_halo(node: Node) -> bool:
    """True for a convolution, or the gradient of one, that can read its input with a border."""
    op = node.op
    if isinstance(op, ConvWeightGradient):
        return op.channels_last
    return isinstance(op, ConvGeneral) and op.channels_last and all(d == 1 for d in op.lhs_dilation)


def _skips_halo(node: Node, slot: int) -> bool:
    """True for a weight gradient's cotangent, of which it can leave a border out."""
    return isinstance(node.op, ConvWeightGradient) and node.op.channels_last and slot == 1


def _convs(graph: Graph, value: Value) -> list[ConvGeneral | ConvWeightGradient]:
    users = [node for node, slot in graph.uses(value) if slot == 0 and _reads_halo(node)]
    return [n.op for n in users if isinstance(n.op, (ConvGeneral, ConvWeightGradient))]


def _border(graph: Graph, value: Value) -> Border | None:
    """The border a value needs; None if no reader pads."""
    convs = _convs(graph, value)
    if not convs:
        return None
    border = tuple(
        (max(0, *(p[0] for p in pads)), max(0, *(p[1] for p in pads)))
        for pads in zip(*(op.padding for op in convs), strict=True)
    )
    return border if any(n for pair in border for n in pair) else None


def _from_outside(graph: Graph, value: Value) -> bool:
    """True for inputs and other spellings of their bytes: they are in memory as they are."""
    node = graph.node(value.node)
    while node.op.alias:
        node = graph.node(node.operands[0].node)
    return node.op.pattern is Pattern.SOURCE


def _all_can_share(graph: Graph, value: Value) -> bool:
    """True when every reader can read the padded value, so that only that one is stored."""
    if graph.is_output(value) or _from_outside(graph, value):
        return False
    return all(
        (slot == 0 and _reads_halo(node))
        or _skips_halo(node, slot)
        or node.op.pattern is Pattern.ELEMENTWISE
        for node, slot in graph.uses(value)
    )


def _cropped(
    op: ConvGeneral | ConvWeightGradient, border: Border
) -> ConvGeneral | ConvWeightGradient:
    """The convolution with what the border already has taken off its padding."""
    padding = tuple((p[0] - b[0], p[1] - b[1]) for p, b in zip(op.padding, border, strict=True))
    return replace(op, padding=padding)


def _beside(crop: Border, border: Border) -> Border:
    """Both borders together."""
    return tuple((c[0] + b[0], c[1] + b[1]) for c, b in zip(crop, border, strict=True))


def _padded(
    r: Rewriter, stored: dict[Value, _Stored], graph: Graph, value: Value, border: Border
) -> Value:
    if value not in stored:
        maker = graph.node(value.node)
        low, high = ((0, *(b[side] for b in border), 0) for side in (0, 1))
        with r.at(maker.scope, maker.span):
            pad = Pad(low, high, (0,) * len(low), 0.0)
            stored[value] = _Stored(r(pad, r.map[value]))
    return stored[value].padded


def _middle(
    r: Rewriter, stored: dict[Value, _Stored], graph: Graph, value: Value, border: Border
) -> Value:
    """The value without its border."""
    padded = _padded(r, stored, graph, value, border)
    if stored[value].middle is None:
        shape = graph.type_of(value).shape
        start: tuple[DimLike, ...] = (0, *(b[0] for b in border), 0)
        limit = tuple(lo + d for lo, d in zip(start, shape, strict=True))
        stored[value].middle = r(Slice(start, limit, (1,) * len(shape)), padded)
    middle = stored[value].middle
    assert middle is not None
    return middle
