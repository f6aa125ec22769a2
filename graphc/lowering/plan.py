"""The plan: which kernel runs when, and where every value lives.

Decided on the fused graph alone, before any code exists: kernel calls in graph order, values bound to the caller's
input and output buffers, to packed weights, or to arena offsets that are reused by liveness. A result takes over the
storage of an operand that dies in the same call when the kernel reads it element by element (in place).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Pattern
from graphc.lowering.memory import Layout, Request
from graphc.lowering.memory import plan as plan_arena
from graphc.ops import Fusion

Space = Literal["input", "output", "weight", "arena"]


@dataclass(frozen=True)
class Place:
    """Where a value lives: a caller's buffer, a weight (by index), or bytes of the arena."""

    space: Space
    index: int = 0
    offset: DimLike = 0


@dataclass(frozen=True)
class Call:
    """One kernel call. `in_place[r]` is the operand slot whose storage result `r` takes over."""

    node: Node
    operands: tuple[Place, ...]
    results: tuple[Place, ...]
    scratch: Place | None
    in_place: tuple[int | None, ...]

    @property
    def fusion(self) -> Fusion:
        """The fused op."""
        assert isinstance(self.node.op, Fusion)
        return self.node.op


@dataclass(frozen=True)
class Plan:
    """Ordered calls, the arena, and the weights (static value, operand use) in order of first use."""

    calls: tuple[Call, ...]
    arena: Layout
    weights: tuple[tuple[Value, str], ...]


@dataclass(frozen=True)
class Needs:
    """What a kernel asks of the plan: scratch bytes, and a packing name for each weight operand it repacks."""

    scratch: DimLike = 0
    packing: Mapping[int, str] | None = None


def origin(graph: Graph, value: Value) -> Value:
    """The value whose bytes these are: reshapes are followed back to what was computed or given."""
    node = graph.node(value.node)
    while node.op.alias:
        value = node.operands[0]
        node = graph.node(value.node)
    return value


def reads_in_place(body: Graph, slot: int) -> bool:
    """True when operand `slot` is read only at the very element being written.

    Then the result may overwrite it: each element is read before, or in the same vector as, it is written.
    """
    inputs = body.inputs
    out_shape = body.type_of(body.outputs[0][1]).shape
    frontier = {inputs[slot].id}
    if inputs[slot].types[0].shape != out_shape:
        return False
    for node in body.nodes:
        if any(v.node in frontier for v in node.operands):
            if node.op.pattern is not Pattern.ELEMENTWISE:
                return False
            frontier.add(node.id)
    return True


def make_plan(graph: Graph, needs: Callable[[Node], Needs], static: frozenset[int]) -> Plan:
    """Plans a fused graph.

    `needs` is asked once per fusion node; `static` are the ids of build-time nodes (see `passes.fuse`).
    """
    fusions = [n for n in graph.nodes if isinstance(n.op, Fusion)]
    order = {n.id: i for i, n in enumerate(fusions)}
    last = _last_reads(graph, order)
    out_index = {origin(graph, v): i for i, (_, v) in enumerate(graph.outputs)}
    in_index = {n.values[0]: i for i, n in enumerate(graph.inputs)}

    weights: dict[tuple[Value, str], int] = {}
    storage: dict[Value, int] = {}  # arena value -> request
    requests: list[Request] = []
    drafts: list[tuple[Node, list[Place], list[Place], Place | None, list[int | None]]] = []
    for node in fusions:
        need, now = needs(node), order[node.id]
        sources = [origin(graph, v) for v in node.operands]
        operands: list[Place] = []
        for slot, source in enumerate(sources):
            if source in in_index:
                operands.append(Place("input", in_index[source]))
            elif source in out_index:
                operands.append(Place("output", out_index[source]))
            elif source.node in static:
                key = (node.operands[slot], (need.packing or {}).get(slot, ""))
                operands.append(Place("weight", weights.setdefault(key, len(weights))))
            else:
                operands.append(Place("arena", storage[source]))
        results: list[Place] = []
        taken: list[int | None] = []
        for value in node.values:
            if value in out_index:
                results.append(Place("output", out_index[value]))
                taken.append(None)
                continue
            until = last.get(value, now)
            slot_taken = _takes_over(graph, node, now, operands, requests)
            taken.append(slot_taken)
            if slot_taken is not None:
                index = operands[slot_taken].index
                requests[index] = Request(requests[index].size, requests[index].first, until)
            else:
                index = len(requests)
                requests.append(Request(graph.type_of(value).nbytes, now, until))
            storage[value] = index
            results.append(Place("arena", index))
        scratch = None
        if need.scratch != 0:
            scratch = Place("arena", len(requests))
            requests.append(Request(need.scratch, now, now))
        drafts.append((node, operands, results, scratch, taken))

    arena = plan_arena(requests)

    def settle(place: Place) -> Place:
        if place.space != "arena":
            return place
        return Place("arena", place.index, arena.offsets[place.index])

    calls = tuple(
        Call(
            node,
            tuple(map(settle, operands)),
            tuple(map(settle, results)),
            settle(scratch) if scratch else None,
            tuple(taken),
        )
        for node, operands, results, scratch, taken in drafts
    )
    return Plan(calls, arena, tuple(weights))


def _last_reads(graph: Graph, order: Mapping[int, int]) -> dict[Value, int]:
    last: dict[Value, int] = {}
    for node in graph.nodes:
        if node.id in order:
            for value in node.operands:
                last[origin(graph, value)] = order[node.id]
    return last


def _takes_over(
    graph: Graph, node: Node, now: int, operands: Sequence[Place], requests: Sequence[Request]
) -> int | None:
    """The first operand slot whose storage the result may overwrite: it dies here and is read in place."""
    assert isinstance(node.op, Fusion)
    if len(node.values) != 1:
        return None
    for slot, place in enumerate(operands):
        if place.space != "arena" or requests[place.index].last != now:
            continue
        same = node.types[0] == graph.type_of(node.operands[slot])
        if same and all(
            reads_in_place(node.op.body, other) for other, p in enumerate(operands) if p == place
        ):
            return slot
    return None
