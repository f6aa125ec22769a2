"""Captures of fused bodies: each kernel that multiplies by one has it to itself, to be packed its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Pattern
from graphc.ir.types import TensorType
from graphc.ops import Input

_PACKED = (Pattern.CONTRACT, Pattern.WINDOW, Pattern.REGION)


def apart(
    bodies: Sequence[Graph], operands: Sequence[Value], first: int = 0
) -> tuple[list[Graph], list[Value]]:
    """The bodies of one op with further inputs at the end, and the operands with the same captures again.

    All bodies have the same inputs, which stand for the operands; captures are those from number `first` on.
    """
    given = list(operands)
    types = [n.types[0] for n in bodies[0].inputs]
    slots = [{n.values[0]: i for i, n in enumerate(body.inputs)} for body in bodies]
    taken = {
        slot[v]
        for body, slot in zip(bodies, slots, strict=True)
        for node in body.nodes
        for v in node.operands
        if v in slot and not _multiplies(node)
    }
    reads: list[dict[tuple[int, int], int]] = []  # by body: node and slot -> the input it reads now
    for body, slot in zip(bodies, slots, strict=True):
        reads.append({})
        for node in filter(_multiplies, body.nodes):
            for at, value in enumerate(node.operands):
                old = slot.get(value, -1)
                if old < first:
                    continue
                if old in taken:
                    reads[-1][node.id, at] = len(given)
                    given.append(operands[old])
                    types.append(types[old])
                taken.add(old)
    if len(given) == len(operands):
        return list(bodies), given
    new = [_rewired(body, types, read) for body, read in zip(bodies, reads, strict=True)]
    return new, given


def _rewired(
    body: Graph, types: Sequence[TensorType], reads: Mapping[tuple[int, int], int]
) -> Graph:
    """A body with inputs of all those types, some operands of its nodes being others than they were."""
    b = GraphBuilder(body.name, body.dims)
    inputs = [b(n.op) for n in body.inputs]
    inputs += [
        b(Input(f"capture{i}", t.dtype, t.shape)) for i, t in list(enumerate(types))[len(inputs) :]
    ]
    done = dict(zip((n.values[0] for n in body.inputs), inputs, strict=False))
    for node in body.nodes:
        if node.values and node.values[0] in done:
            continue
        operands = [
            inputs[reads[node.id, at]] if (node.id, at) in reads else done[v]
            for at, v in enumerate(node.operands)
        ]
        with b.at(node.scope, node.span):
            done.update(zip(node.values, b.emit(node.op, *operands), strict=True))
    return b.build([(label, done[v]) for label, v in body.outputs])


def _multiplies(node: Node) -> bool:
    return any(n.op.pattern in _PACKED for region in node.op.regions for n in region.nodes)


__all__ = ["apart"]
