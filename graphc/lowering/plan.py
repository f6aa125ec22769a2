"""The plan: which kernel runs when, and where every value lives.

Decided on the fused graph alone, before any code exists: kernel calls in an order that keeps state until its last
reader, values bound to the caller's buffers, to packed weights, or to arena offsets that are reused by liveness.
A result takes over the storage of an operand that dies in the same call when the kernel reads it element by element (in
place); the next value of a state takes over the state's own buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Pattern
from graphc.lowering.aliasing import origin, origin_inside, reads_in_place
from graphc.lowering.memory import Layout, Request
from graphc.lowering.memory import plan as plan_arena
from graphc.lowering.order import state_order
from graphc.ops import Fusion, Input
from graphc.passes.fuse import used_dims

Space = Literal["input", "output", "weight", "arena"]


@dataclass(frozen=True)
class Place:
    """Where a value lives: a caller's buffer, a weight (by index), or bytes of the arena.

    State lives in its input's buffer, before and after. Outputs are counted without the state's.
    """

    space: Space
    index: int = 0
    offset: DimLike = 0


@dataclass(frozen=True)
class Call:
    """One kernel call. `in_place[r]` is the operand slot whose storage result `r` takes over.

    `scratch` is where the `scratch_bytes` begin that the kernel asks for, if it does.

    `sources[slot]` is the value whose bytes operand `slot` reads: reshapes followed back, and the packed copy where the
    kernel reads one.
    """

    node: Node
    sources: tuple[Value, ...]
    operands: tuple[Place, ...]
    results: tuple[Place, ...]
    scratch: Place | None
    in_place: tuple[int | None, ...]
    scratch_bytes: DimLike = 0

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


Writer = Callable[[GraphBuilder, Value], Value]


@dataclass(frozen=True)
class Needs:
    """What a kernel asks of the plan: scratch bytes, and the layout of each operand that it reads repacked.

    `packing` names the layouts, equal names being equal layouts; `writers` can make them while the module runs.
    """

    scratch: DimLike = 0
    packing: Mapping[int, str] = field(default_factory=dict)
    writers: Mapping[int, Writer] = field(default_factory=dict)


def make_plan(graph: Graph, needs: Callable[[Node], Needs], static: frozenset[int]) -> Plan:
    """Plans a fused graph.

    `needs` is asked once per kernel call; `static` are the ids of build-time nodes (see `passes.fuse`).
    """
    return _Planner(graph, needs, static).plan()


@dataclass
class _Step:
    """A kernel call on its way into the plan: `sources` as in `Call`."""

    node: Node
    sources: list[Value]
    need: Needs


class _Planner:
    def __init__(
        self, graph: Graph, needs: Callable[[Node], Needs], static: frozenset[int]
    ) -> None:
        self.graph, self.needs, self.static = graph, needs, static
        self.inputs = {n.values[0]: i for i, n in enumerate(graph.inputs)}
        self.outputs = {origin(graph, v): i for i, (_, v) in enumerate(graph.results)}
        self.added = len(graph)  # ids of the calls that only the plan knows: packing, copies
        self.steps: list[_Step] = []
        self.inside: frozenset[int] = frozenset()  # calls that packing does on its way
        self.packed: dict[tuple[Value, str], Value] = {}
        self.state: dict[Value, int] = {}  # next value -> input whose buffer it gets
        self.weights: dict[tuple[Value, str], int] = {}
        self.requests: list[Request] = []
        self.storage: dict[Value, int] = {}  # arena value -> request

    def plan(self) -> Plan:
        fusions = [n for n in self.graph.nodes if isinstance(n.op, Fusion)]
        self.inside = _inside_packing(self.graph, fusions, self.needs, self.static)
        kept = [n for n in fusions if n.id not in self.inside]
        order, staged = state_order(self.graph, kept, self.inside)
        for state, after in self.graph.state:
            made = origin(self.graph, after)
            if made != state.values[0] and state.id not in staged:
                self.state[made] = self.inputs[state.values[0]]
        for node in order:
            self._add(node)
        for state, after in self.graph.state:
            if state.id in staged:
                self.state[self._copy(state, after)] = self.inputs[state.values[0]]
        last = {v: now for now, step in enumerate(self.steps) for v in step.sources}
        drafts = [self._draft(step, now, last) for now, step in enumerate(self.steps)]
        arena = plan_arena(self.requests, {n: b.low for n, b in self.graph.dims.items()})

        def settle(place: Place) -> Place:
            if place.space != "arena":
                return place
            return Place("arena", place.index, arena.offsets[place.index])

        calls = tuple(
            Call(
                call.node,
                call.sources,
                tuple(map(settle, call.operands)),
                tuple(map(settle, call.results)),
                settle(call.scratch) if call.scratch else None,
                call.in_place,
                call.scratch_bytes,
            )
            for call in drafts
        )
        return Plan(calls, arena, tuple(self.weights))

    # ---- Which calls there are

    def _add(self, node: Node) -> None:
        """A call, behind those that pack its run-time operands."""
        need = self.needs(node)
        sources = []
        for slot, value in enumerate(node.operands):
            source = origin(self.graph, value)
            if slot in need.packing and source.node not in self.static:
                source = self._pack(node, slot, value, need)
            sources.append(source)
        self.steps.append(_Step(node, sources, need))

    def _pack(self, node: Node, slot: int, value: Value, need: Needs) -> Value:
        """The copy of an operand in the layout a kernel reads, made by a call of its own at the first use."""
        key = (value, need.packing[slot])
        if key not in self.packed:
            base, steps = value, list[Node]()
            if origin(self.graph, value).node in self.inside:
                base = origin_inside(self.graph, value, self.inside)
                steps = self._between(base, value)
            t = self.graph.type_of(base)
            body = GraphBuilder("pack", self.graph.dims)
            x = body(Input("arg0", t.dtype, t.shape))
            for step in steps:
                x = _replayed(body, step, x)
            result = need.writers[slot](body, x)
            self.packed[key] = self._own(node, "pack", body, result, base)
        return self.packed[key]

    def _between(self, base: Value, value: Value) -> list[Node]:
        """The nodes that make a value from its base, first one first."""
        steps: list[Node] = []
        while value != base:
            steps.insert(0, self.graph.node(value.node))
            (value,) = steps[0].operands
        return steps

    def _copy(self, state: Node, after: Value) -> Value:
        """A call that moves a finished value into the state's buffer, which was read until the end."""
        t = state.types[0]
        body = GraphBuilder("copy", self.graph.dims)
        return self._own(
            self.graph.node(after.node),
            "copy",
            body,
            body(Input("arg0", t.dtype, t.shape)),
            after,
        )

    def _own(self, near: Node, kind: str, body: GraphBuilder, result: Value, value: Value) -> Value:
        used = used_dims(body)
        body.dims = {n: d for n, d in body.dims.items() if n in used}
        op = Fusion(kind, body.build([("out0", result)]))
        type = body.type_of(result)
        node = Node(self.added, op, (value,), (type,), near.scope, near.span)
        self.added += 1
        self.steps.append(_Step(node, [origin(self.graph, value)], self.needs(node)))
        return node.values[0]

    # ---- Where everything lives

    def _draft(self, step: _Step, now: int, last: Mapping[Value, int]) -> Call:
        node = step.node
        operands = [self._place(step, slot) for slot in range(len(step.sources))]
        results: list[Place] = []
        taken: list[int | None] = []
        for value in node.values:
            if value in self.state:
                place = Place("input", self.state[value])
                results.append(place)
                taken.append(operands.index(place) if place in operands else None)
                continue
            if value in self.outputs:
                results.append(Place("output", self.outputs[value]))
                taken.append(None)
                continue
            until = last.get(value, now)
            slot = _takes_over(step, now, operands, self.requests)
            taken.append(slot)
            if slot is not None:
                index = operands[slot].index
                old = self.requests[index]
                self.requests[index] = Request(old.size, old.first, until)
            else:
                index = len(self.requests)
                size = node.types[value.result].nbytes
                self.requests.append(Request(size, now, until))
            self.storage[value] = index
            results.append(Place("arena", index))
        scratch = None
        if step.need.scratch != 0:
            scratch = Place("arena", len(self.requests))
            self.requests.append(Request(step.need.scratch, now, now))
        places = (tuple(operands), tuple(results), scratch)
        return Call(node, tuple(step.sources), *places, tuple(taken), step.need.scratch)

    def _place(self, step: _Step, slot: int) -> Place:
        source = step.sources[slot]
        if source in self.inputs:
            return Place("input", self.inputs[source])
        if source in self.state:
            return Place("input", self.state[source])
        if source in self.outputs:
            return Place("output", self.outputs[source])
        if source.node in self.static:
            key = (step.node.operands[slot], step.need.packing.get(slot, ""))
            return Place("weight", self.weights.setdefault(key, len(self.weights)))
        return Place("arena", self.storage[source])


def _inside_packing(
    graph: Graph,
    fusions: Sequence[Node],
    needs: Callable[[Node], Needs],
    static: frozenset[int],
) -> frozenset[int]:
    """Calls that only move elements, for readers that all repack them: a filter turned for a gradient."""
    packed: dict[int, bool] = {}  # fusion -> whether every reader so far repacks it
    for node in fusions:
        need = needs(node)
        for slot, value in enumerate(node.operands):
            maker = origin(graph, value).node
            packed[maker] = packed.get(maker, True) and slot in need.packing
    results = {origin(graph, v).node for _, v in graph.outputs}
    return frozenset(
        node.id
        for node in fusions
        if packed.get(node.id) and node.id not in results and node.id not in static and _moves(node)
    )


def _moves(node: Node) -> bool:
    assert isinstance(node.op, Fusion)
    body = node.op.body
    plain = all(n.op.pattern is Pattern.INDEX or n.op.name == "input" for n in body.nodes)
    return plain and len(node.operands) == 1 and len(node.types) == 1


def _replayed(b: GraphBuilder, step: Node, x: Value) -> Value:
    """An alias, or a fusion of one operand, applied to x."""
    if not isinstance(step.op, Fusion):
        return b(step.op, x)
    body = step.op.body
    done = {body.inputs[0].values[0]: x}
    for node in body.nodes:
        if node.op.name != "input":
            done.update(
                zip(node.values, b.emit(node.op, *(done[v] for v in node.operands)), strict=True)
            )
    return done[body.outputs[0][1]]


def _takes_over(
    step: _Step, now: int, operands: Sequence[Place], requests: Sequence[Request]
) -> int | None:
    """The first operand slot whose storage the result may overwrite: it dies here and is read in place."""
    node = step.node
    assert isinstance(node.op, Fusion)
    if len(node.values) != 1:
        return None
    for slot, place in enumerate(operands):
        if place.space != "arena" or requests[place.index].last != now:
            continue
        same = node.types[0] == node.op.body.inputs[slot].types[0]
        if (
            same
            and slot not in step.need.packing
            and all(
                reads_in_place(node.op.body, other)
                for other, p in enumerate(operands)
                if p == place
            )
        ):
            return slot
    return None
