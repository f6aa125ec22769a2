"""Checks a plan before code is made from it: kernels take raw pointers, so a wrong offset would be silent.

The plan is replayed with the named dims at a few sizes: every value must still be what it was when it was written, at
each of its reads.
"""

from __future__ import annotations

from graphc.ir.dim import evaluate
from graphc.ir.graph import Graph, Value
from graphc.lowering.aliasing import origin
from graphc.lowering.plan import Place, Plan


class PlanError(AssertionError):
    """A plan would overwrite a value that is still to be read; always a bug in the planner."""


def verify_plan(graph: Graph, plan: Plan) -> None:
    """Raises PlanError when some call reads memory that another value has been written to since."""
    for step in (0, 1, 5):
        env = {
            name: b.low + step if b.high is None else min(b.low + step, b.high)
            for name, b in graph.dims.items()
        }
        _replay(graph, plan, env)


def _replay(graph: Graph, plan: Plan, env: dict[str, int]) -> None:
    size = evaluate(plan.arena.size, env)
    types = {v: t for n in graph.nodes for v, t in zip(n.values, n.types, strict=True)}
    types |= {v: t for c in plan.calls for v, t in zip(c.node.values, c.node.types, strict=True)}
    written: dict[tuple[int, int], Value] = {}  # bytes of the arena -> whose they are
    buffers = {i: n.values[0] for i, n in enumerate(graph.inputs)}  # caller's buffer -> whose it is

    def span(place: Place, value: Value) -> tuple[int, int]:
        start = evaluate(place.offset, env)
        end = start + evaluate(types[value].nbytes, env)
        if end > size:
            raise PlanError(f"{value} ends at byte {end} of an arena of {size}")
        return start, end

    def claim(start: int, end: int, value: Value) -> None:
        if start == end:  # an empty value takes no place and loses nothing
            return
        for other in [o for o in written if o[0] < end and start < o[1]]:
            del written[other]
        written[start, end] = value

    for call in plan.calls:
        if call.scratch is not None:
            start = evaluate(call.scratch.offset, env)
            claim(start, start + evaluate(call.scratch_bytes, env), Value(-1))
        for source, place in zip(call.sources, call.operands, strict=True):
            lost = False
            if place.space == "arena":
                start, end = span(place, source)
                lost = start < end and written.get((start, end)) != source
            lost |= place.space == "input" and buffers[place.index] != source
            if lost:
                raise PlanError(f"node {call.node.id} reads {source}, which is overwritten by then")
        for result, (value, place) in enumerate(zip(call.node.values, call.results, strict=True)):
            taken = call.in_place[result]
            if place.space == "input":
                if place in call.operands and taken is None:
                    raise PlanError(f"node {call.node.id} writes over the state it reads")
                buffers[place.index] = value
            if place.space != "arena":
                continue
            where = span(place, value)
            for slot, (source, operand) in enumerate(zip(call.sources, call.operands, strict=True)):
                if operand.space == "arena" and slot != taken:
                    start, end = span(operand, source)
                    shared = taken is not None and operand == call.operands[taken]
                    if start < where[1] and where[0] < end and not shared:
                        raise PlanError(f"node {call.node.id} writes over its operand {slot}")
            claim(*where, value)
    for state, after in graph.state:
        index = next(i for i, n in enumerate(graph.inputs) if n.id == state.id)
        kept = origin(graph, after)
        if buffers[index] != kept and buffers[index].node < len(graph):
            raise PlanError(f"state {index} ends as {buffers[index]} instead of {kept}")
