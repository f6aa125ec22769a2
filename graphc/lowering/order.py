"""The order of kernel calls: that of the graph, but state is overwritten after its last read.

In a graph with state, such as a training step, a call that ends the use of about as much memory as it begins to use
goes first: a weight is updated as soon as the backward pass is through with it, and what its gradient was made of is
free. In the order of the graph all updates would come at the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from graphc.ir.dim import evaluate
from graphc.ir.graph import Graph, Node, Value
from graphc.lowering.aliasing import origin, origin_inside, reads_in_place
from graphc.ops import Fusion

_TYPICAL = 32  # of a named dim
_SMALL = 4096  # bytes: scalars and vectors that others wait for


def state_order(
    graph: Graph, fusions: Sequence[Node], inside: frozenset[int]
) -> tuple[list[Node], frozenset[int]]:
    """The fusions in an order in which state is overwritten after its last read, and the states that need a copy.

    It is the order of the graph but for calls that wait for the readers of a state, or free memory. A state is staged,
    written elsewhere and copied at the end, when its writer reads it out of place or a reader depends on the writer.
    """
    writers: dict[int, list[int]] = {}  # fusion -> the states whose next values it makes
    staged: set[int] = set()
    ids = {n.id for n in fusions}
    waits: dict[int, set[int]] = {}  # fusion -> those that must run before it
    readers: dict[Value, set[int]] = {}
    for n in fusions:
        read = {origin_inside(graph, v, inside) for v in n.operands}
        waits[n.id] = {v.node for v in read} & ids
        for value in read:
            readers.setdefault(value, set()).add(n.id)
    data = {id: frozenset(before) for id, before in waits.items()}
    for state, after in graph.state:
        made = origin(graph, after)
        if made == state.values[0]:
            continue
        writer = graph.node(made.node)
        if not isinstance(writer.op, Fusion) or not _overwrites(graph, writer, state.values[0]):
            staged.add(state.id)
            continue
        writers.setdefault(writer.id, []).append(state.id)
        waits[writer.id] |= readers.get(state.values[0], set()) - {writer.id}
    memory = _Memory(graph, fusions, inside)
    order: list[Node] = []
    done: set[int] = set()
    pending = dict(waits)
    users: dict[int, list[int]] = {id: [] for id in ids}
    for id, before in waits.items():
        for other in before:
            users[other].append(id)
    ready: list[tuple[bool, int]] = []  # whether it can wait, and who; the first entry counts

    def enter(id: int) -> None:
        frees = bool(graph.state) and memory.growth(id) <= _SMALL
        heapq.heappush(ready, (not frees, id))

    for id in sorted(ids):
        if not pending[id]:
            enter(id)
    while len(order) < len(fusions):
        if not ready:
            # A reader depends on the writer: the first writer that waits for nothing else is staged.
            id = min(i for i in writers if i not in done and data[i] <= done)
            staged.update(writers[id])
            pending[id] = set()
            enter(id)
        _, id = heapq.heappop(ready)
        if id in done:
            continue
        done.add(id)
        order.append(graph.node(id))
        touched = set(memory.ran(id))
        for user in users[id]:
            if user not in done and pending[user]:
                pending[user] = pending[user] - {id}
                touched |= set() if pending[user] else {user}
        for other in sorted(touched):
            if other not in done and not pending[other]:
                enter(other)
    return order, frozenset(staged)


class _Memory:
    """Bytes of the arena that calls begin and end to use, at a typical size of what only the run knows."""

    def __init__(self, graph: Graph, fusions: Sequence[Node], inside: frozenset[int]) -> None:
        ids = {n.id for n in fusions}
        sizes = {
            name: min(bounds.high or _TYPICAL, max(bounds.low, _TYPICAL))
            for name, bounds in graph.dims.items()
        }
        elsewhere = {origin(graph, v) for _, v in graph.outputs}
        self.size: dict[Value, int] = {}
        self.readers: dict[Value, set[int]] = {}  # that have not run
        self.sources: dict[int, set[Value]] = {}
        for node in fusions:
            for value, type in zip(node.values, node.types, strict=True):
                self.size[value] = 0 if value in elsewhere else evaluate(type.nbytes, sizes)
            sources = {origin_inside(graph, v, inside) for v in node.operands}
            self.sources[node.id] = {v for v in sources if v.node in ids}
            for value in self.sources[node.id]:
                self.readers.setdefault(value, set()).add(node.id)
        self.results = {n.id: sum(self.size[v] for v in n.values) for n in fusions}

    def growth(self, id: int) -> int:
        """How much more is in use after a call than before it."""
        last = (v for v in self.sources[id] if self.readers[v] == {id})
        return self.results[id] - sum(self.size[v] for v in last)

    def ran(self, id: int) -> list[int]:
        """Tells that a call has run; returns those that are now the only reader of something."""
        alone: list[int] = []
        for value in self.sources[id]:
            left = self.readers[value]
            left.discard(id)
            if len(left) == 1:
                alone += left
        return sorted(alone)


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
