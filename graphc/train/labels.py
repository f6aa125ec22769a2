"""The data inputs of a graph, and what it says about them: which are class numbers, and of how many classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.graph import Graph, Node, Value
from graphc.ops import (
    BroadcastInDim,
    Compare,
    Constant,
    Convert,
    CrossEntropy,
    Reshape,
    Select,
    Take,
    TakeAlongAxis,
)
from graphc.train.ports import Port


def data_ports(graph: Graph, targets: Sequence[str]) -> tuple[Port, ...]:
    """The inputs that are no state, in their order; `targets` are those that the train block declares."""
    state = {node.id for node, _ in graph.state}
    ports = []
    for node in graph.inputs:
        if node.id not in state:
            name = str(node.op.attributes()["label"])
            found = _classes(graph, node)
            ports.append(Port(name, node.types[0], name in targets, found.count, found.ignore))
    return tuple(ports)


@dataclass(frozen=True)
class _Classes:
    count: int | None = None
    ignore: int | None = None


def _classes(graph: Graph, node: Node) -> _Classes:
    """What an input of integers is looked up in, on the way through ops that leave the numbers as they are.

    `where(label != ignore, label, 0)`, as losses write it, leaves all but one as they are. Nothing is found where the
    numbers are computed with: then the graph alone knows what they may be.
    """
    if not node.types[0].dtype.is_int:
        return _Classes()
    pending: list[tuple[Value, int | None]] = [(node.values[0], None)]
    seen = {node.id}
    while pending:
        value, ignore = pending.pop(0)
        for user, slot in graph.uses(value):
            size = _looked_up(graph, user, slot)
            if size is not None:
                return _Classes(size, ignore)
            if user.id in seen:
                continue
            seen.add(user.id)
            if isinstance(user.op, (BroadcastInDim, Reshape)) or (
                isinstance(user.op, Convert) and user.types[0].dtype.is_int
            ):
                pending.append((user.values[0], ignore))
            elif isinstance(user.op, Select) and slot == 1 and ignore is None:
                left_out = _left_out(graph, user)
                if left_out is not None:
                    pending.append((user.values[0], left_out))
    return _Classes()


def _looked_up(graph: Graph, user: Node, slot: int) -> int | None:
    """How many rows there are to choose from, if this operand chooses."""
    if slot != 1:
        return None
    shape = graph.type_of(user.operands[0]).shape
    if isinstance(user.op, CrossEntropy):
        size = shape[-1]
    elif isinstance(user.op, (Take, TakeAlongAxis)):
        size = shape[user.op.axis]
    else:
        return None
    return size if isinstance(size, int) else None


def _left_out(graph: Graph, select: Node) -> int | None:
    """The constant c of `select(compare(ne, label, c), ...)`."""
    test = graph.node(select.operands[0].node)
    if not isinstance(test.op, Compare) or test.op.direction != "ne":
        return None
    constant = graph.node(test.operands[1].node)
    while isinstance(constant.op, BroadcastInDim):
        constant = graph.node(constant.operands[0].node)
    if not isinstance(constant.op, Constant) or constant.op.array.ndim:
        return None
    return int(constant.op.array)
