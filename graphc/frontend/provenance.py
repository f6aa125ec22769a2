"""Where a value and its sizes come from, for the related places of an error, and help worked out from the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from graphc.ir.dim import DimLike
from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.ir.op import OpError, Pattern
from graphc.ir.types import TensorType
from graphc.ops import ConvGeneral, Input, Reshape
from graphc.source import Span

Place = tuple[Span, str]


class Provenance:
    """Remembers what made each value: the stage or call, and the types that went in."""

    def __init__(self, b: GraphBuilder) -> None:
        self.b = b
        self._made: dict[Value, tuple[Span, tuple[TensorType, ...]]] = {}

    def record(self, value: Value, span: Span, inputs: tuple[TensorType, ...]) -> None:
        """`value` is the result of the stage or call at `span`. The innermost record stays."""
        self._made.setdefault(value, (span, inputs))

    def of(self, value: Value) -> tuple[Place, ...]:
        """The place a value comes from, as a related label: "gives f32[N, 256], from f32[N, 16, 4, 4]"."""
        type = self.b.type_of(value)
        if isinstance(self.b.node_of(value).op, Input):
            span_of_input = self.b.node_of(value).span
            return ((span_of_input, f"is {type}"),) if span_of_input is not None else ()
        if value in self._made:
            span, inputs = self._made[value]
            changed = [str(t) for t in inputs if t != type]
            text = f"gives {type}" + (f", from {changed[0]}" if len(changed) == 1 else "")
            return ((span, text),)
        span_or_none = self.b.node_of(value).span
        return ((span_or_none, f"gives {type}"),) if span_or_none is not None else ()

    def of_size(self, value: Value, axis: int) -> tuple[Place, ...]:
        """The place where the size of one axis was decided: "64 comes from here"."""
        size = self.b.type_of(value).shape[axis]
        seen = value
        while True:
            node = self.b.node_of(seen)
            before = _carrier(self.b, node, axis, size)
            if before is None:
                break
            seen = before
        span = self._made[seen][0] if seen in self._made else self.b.node_of(seen).span
        if span is None:
            return ()
        rank = len(self.b.type_of(seen).shape)
        what = f"{size} channels come" if axis == 1 and rank > 2 else f"{size} comes"
        return ((span, f"{what} from here"),)


def _carrier(b: GraphBuilder, node: Node, axis: int, size: DimLike) -> Value | None:
    """The operand that hands the size of an axis on unchanged, if there is one."""
    if node.op.pattern is Pattern.SOURCE or isinstance(node.op, Reshape):
        return None
    made_here = {"conv_general": 1, "dot_general": len(node.types[0].shape) - 1}
    if made_here.get(node.op.name) == axis:
        return None
    for operand in node.operands:
        shape = b.type_of(operand).shape
        if len(shape) == len(node.types[0].shape) and shape[axis] == size:
            return operand
    return None


def padding_help(b: GraphBuilder, value: Value, wanted: int) -> str | None:
    """Which convolution's padding would give a flattened tensor the wanted number of features, if one would.

    Tries symmetric paddings of the convolutions before the flattening, the nearest first, and infers the shapes in
    between anew.
    """
    chain = list(_chain(b, value))
    flatten = next((i for i, n in enumerate(chain) if isinstance(n.op, Reshape)), None)
    if flatten is None:
        return None
    for i in range(flatten + 1, len(chain)):
        op = chain[i].op
        if not isinstance(op, ConvGeneral):
            continue
        kernel = b.type_of(chain[i].operands[1]).shape[2:]
        top = max(k for k in kernel if isinstance(k, int))
        now = max(low for low, _ in op.padding)
        for padding in (p for p in range(top) if p != now):
            new = dataclasses.replace(op, padding=((padding, padding),) * len(kernel))
            shape = _replayed(b, [*chain[flatten + 1 : i], chain[i]][::-1], new)
            if shape is None:
                continue
            features = 1
            for size in shape[1:]:
                features = features * size if isinstance(size, int) else -1
            if features == wanted:
                name = next(iter(s.label for s in reversed(chain[i].scope)), "the convolution")
                had = f"padding={now}" if now else "no padding"
                sizes = "x".join(map(str, shape[2:]))
                return (
                    f"{name} has {had}; with padding={padding} the input of the flattening would be "
                    f"{sizes} and flatten to {wanted}"
                )
    return None


def _chain(b: GraphBuilder, value: Value) -> Iterator[Node]:
    """The nodes that made a value, following first operands back to the input."""
    node = b.node_of(value)
    while True:
        yield node
        if not node.operands:
            return
        node = b.node_of(node.operands[0])


def _replayed(b: GraphBuilder, nodes: list[Node], first: ConvGeneral) -> tuple[DimLike, ...] | None:
    """The shape at the end of a chain of nodes, in forward order, when its first op is replaced; None if it fails."""
    try:
        types = [b.type_of(v) for v in nodes[0].operands]
        shape = first.infer(*types)[0]
        for node in nodes[1:]:
            others = [b.type_of(v) for v in node.operands[1:]]
            if node.op.pattern is Pattern.ELEMENTWISE:
                continue  # biases and activations keep the shape
            shape = node.op.infer(shape, *others)[0]
    except OpError:
        return None
    return shape.shape
