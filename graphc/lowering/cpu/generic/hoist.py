"""What a loop nest computes once for all of its inner loops, and what it keeps between passes.

Whatever does not change in the inner loops runs before them: the reductions of a softmax or norm,
the check of an embedding's index, a bias. A value that two passes over a row need and that is
expensive (the exponentials of a softmax) waits in the output's memory, or on the stack where that
is of another type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dim import Dim, DimLike, names_of, substitute
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Pattern
from graphc.lowering.cpu.generic.schedule import Schedule
from graphc.lowering.generic import index as ix
from graphc.lowering.generic.inline import Index
from graphc.lowering.generic.trace import Event, Trace


def _symbols(trace: Trace, index: Index) -> set[str]:
    """The symbols in an index, not the named dims."""
    return {n for i in index for n in names_of(i)} - trace.dims


def checkable(plan: Schedule, inside: set[str]) -> list[tuple[Value, Index]]:
    """Elements at the start of the inner loops whose index checks hold for all of these loops."""
    fixed = set(plan.symbols) - inside
    start: dict[str, DimLike] = dict.fromkeys(inside, 0)
    found: dict[tuple[Value, Index], None] = {}
    for event in plan.trace.events:
        names = _symbols(plan.trace, event.index)
        depends = plan.trace.checked.get(event.node.id)
        if depends is None or event.guarded or event.loops:
            continue
        if depends <= fixed and names <= set(plan.symbols):
            found[event.value, tuple(substitute(i, start) for i in event.index)] = None
    return list(found)


@dataclass(frozen=True)
class Storable:
    """A value that waits between passes over a row.

    Attributes:
        value: which.
        first: the row's first position in the value.
        length: its elements, where they are contiguous and of fixed number; else None.
    """

    value: Value
    first: DimLike
    length: int | None


def storable(body: Graph, plan: Schedule, output: Value) -> Storable | None:
    """A value that passes over a row would compute again, and that can wait in memory.

    It has the output's shape, is computed at every element of the row by a reduction and at the
    output's own element afterwards, and is worth storing: an `expensive` op is behind it. Of several
    the one that most passes use, and of these the last.
    """
    symbols, trace = plan.symbols, plan.trace
    at = plan.axes.index([Dim.symbol(s) for s in symbols])
    inner = [(symbols[g], plan.axes.sizes[g]) for g in plan.inner]
    best: tuple[int, Value, Storable] | None = None
    for value in {e.value: None for e in trace.events}:
        node = body.node(value.node)
        if value == output or node.types[value.result].shape != body.type_of(output).shape:
            continue
        if not _costly(body, node):
            continue
        events = [e for e in trace.events if e.value == value]
        final = [e for e in events if not e.loops]
        passes = [e for e in events if e.loops]
        if not final or not passes or any(e.guarded or e.index != at for e in final):
            continue
        wanted = _box(trace, at, inner, plan)
        if all(not e.guarded and _row(trace, e, plan) == wanted for e in passes):
            uses = len({e.loops for e in passes})
            if best is None or (uses, value) > best[:2]:
                best = uses, value, Storable(value, *_run(wanted))
    return best[2] if best else None


def _run(box: _Box | None) -> tuple[DimLike, int | None]:
    """Where a box of positions starts, and its length if it is one stretch."""
    assert box is not None
    first, steps = box
    if len(steps) != 1 or steps[0][0] != 1:
        return first, None
    length = steps[0][1]
    return first, length if isinstance(length, int) else None


def _costly(body: Graph, node: Node) -> bool:
    """Whether computing an element runs an expensive op, not counting reductions."""
    seen: set[int] = set()
    stack = [node]
    while stack:
        at = stack.pop()
        if at.op.expensive:
            return True
        for v in at.operands:
            source = body.node(v.node)
            if source.op.pattern is not Pattern.REDUCE and source.id not in seen:
                seen.add(source.id)
                stack.append(source)
    return False


_Box = tuple[DimLike, tuple[tuple[DimLike, DimLike], ...]]


def _row(trace: Trace, event: Event, plan: Schedule) -> _Box | None:
    loops = [(name, plan.space.extent(name)) for name in event.loops]
    return _box(trace, event.index, loops, plan)


def _box(
    trace: Trace, index: Index, loops: Sequence[tuple[str, DimLike]], plan: Schedule
) -> _Box | None:
    """The positions that loops visit: the first, and (stride, steps) of dense loops merged."""
    position = ix.flatten(index, plan.axes.shape)
    steps = []
    for name, size in loops:
        stride = trace.stride(position, name)
        if stride is None:
            return None
        if size != 1:
            steps.append((stride, size))
    merged: list[tuple[DimLike, DimLike]] = []
    for stride, size in steps:
        if merged and merged[-1][0] == stride * size:
            merged[-1] = stride, merged[-1][1] * size
        else:
            merged.append((stride, size))
    first = substitute(position, {name: 0 for name, _ in loops})
    return first, tuple(sorted(merged, key=str))
