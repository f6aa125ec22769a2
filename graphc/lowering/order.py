"""The order of kernel calls: that of the graph, but state is overwritten after its last read."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.lowering.aliasing import origin, origin_inside, reads_in_place
from graphc.ops import Fusion


def state_order(
    graph: Graph, fusions: Sequence[Node], inside: frozenset[int]
) -> tuple[list[Node], frozenset[int]]:
    """The fusions in an order in which state is overwritten after its last read, and the states that need a copy.

    It is the order of the graph but for calls that wait for the readers of a state. A state is staged, written
    elsewhere and copied at the end, when its writer reads it out of place or a reader depends on the writer.
    """
    writers: dict[int, list[int]] = {}  # fusion -> the states whose next values it makes
    staged: set[int] = set()
    ids = {n.id for n in fusions}
    waits: dict[int, set[int]] = {  # fusion -> those that must run before it
        n.id: {origin_inside(graph, v, inside).node for v in n.operands} & ids for n in fusions
    }
    data = {id: frozenset(before) for id, before in waits.items()}
    for state, after in graph.state:
        made = origin(graph, after)
        if made == state.values[0]:
            continue
        readers = {
            n.id
            for n in fusions
            if any(origin_inside(graph, v, inside) == state.values[0] for v in n.operands)
        }
        writer = graph.node(made.node)
        if not isinstance(writer.op, Fusion) or not _overwrites(graph, writer, state.values[0]):
            staged.add(state.id)
            continue
        writers.setdefault(writer.id, []).append(state.id)
        waits[writer.id] |= readers - {writer.id}
    order: list[Node] = []
    done: set[int] = set()
    pending = dict(waits)
    ready = [id for id, before in pending.items() if not before]
    heapq.heapify(ready)
    users: dict[int, list[int]] = {id: [] for id in ids}
    for id, before in waits.items():
        for other in before:
            users[other].append(id)
    while len(order) < len(fusions):
        if (
            not ready
        ):  # a reader depends on the writer: the first writer that waits for nothing else is staged
            id = min(i for i in writers if i not in done and data[i] <= done)
            staged.update(writers[id])
            pending[id] = set()
            heapq.heappush(ready, id)
        id = heapq.heappop(ready)
        if id in done:
            continue
        done.add(id)
        order.append(graph.node(id))
        for user in users[id]:
            if user not in done and pending[user]:
                pending[user] = pending[user] - {id}
                if not pending[user]:
                    heapq.heappush(ready, user)
    return order, frozenset(staged)


def _overwrites(graph: Graph, writer: Node, state: Value) -> bool:
    """True when a fusion may write a result over a state: it reads that nowhere, or in place.

    All its results are then of one shape, and each element of all of them is computed before any is written.
    """
    assert isinstance(writer.op, Fusion)
    slots = [s for s, v in enumerate(writer.operands) if origin(graph, v) == state]
    if not slots:
        return True
    alike = len({t.shape for t in writer.types}) == 1
    return alike and all(reads_in_place(writer.op.body, s) for s in slots)
