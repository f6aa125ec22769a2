"""Choosing the loop nest for an output: decided on a trace, before any code is written.

Dimensions that every access sees as one are merged. Loops that a reduction's result varies along go
outside, the others inside, so that the result is computed once (softmax, norms). Then one loop is
vectorised: the last one of the output, unless memory runs along a reduction instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dim import Dim, DimLike, product, substitute
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Pattern
from graphc.lowering.cpu import index as ix
from graphc.lowering.cpu.emit import worth_threads
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.index import Condition, Space, unflatten
from graphc.lowering.cpu.inline import Index
from graphc.lowering.cpu.trace import Event, Trace, mergeable, watch

_EXPENSIVE = 12  # arithmetic operations that one `expensive` function stands for
_SHORT = 4  # an axis shorter than this is not worth vectors if another will do


@dataclass(frozen=True)
class Axes:
    """The output's dimensions as loops: `groups[g]` are the dimensions that loop g merges."""

    shape: tuple[DimLike, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[DimLike, ...]:
        """Steps of each loop."""
        return tuple(product(self.shape[d] for d in group) for group in self.groups)

    def index(self, at: Sequence[DimLike]) -> Index:
        """The output index where the loops are `at`."""
        result: list[DimLike] = [0] * len(self.shape)
        for group, position in zip(self.groups, at, strict=True):
            parts = unflatten(position, [self.shape[d] for d in group])
            for d, part in zip(group, parts, strict=True):
                result[d] = part
        return tuple(result)


@dataclass(frozen=True)
class Schedule:
    """A loop nest.

    Attributes:
        axes: the loops.
        symbols: each loop's symbol in `trace`.
        trace: what evaluating one element does.
        outer: loops that run first and may be shared among threads, in order.
        inner: loops inside of them, in order.
        vector: the vectorised loop, the last one of `outer` or `inner`; None for scalar stores.
        turned: a loop along which operands are contiguous while they are not along `vector`:
            a transposition, to be done tile by tile.
        widths: vector widths for the vectorised loop, falling.
        lanes: elements of one register.
        parallel: whether the work is worth threads.
        row: whether reductions are hoisted out of `inner`.
    """

    axes: Axes
    symbols: tuple[str, ...]
    trace: Trace
    space: Space
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    vector: int | None
    turned: int | None
    widths: tuple[int, ...]
    lanes: int
    parallel: bool
    row: bool


def schedule(body: Graph, outputs: Sequence[Value], target: CpuTarget) -> Schedule:
    """The loop nest for outputs of one shape."""
    shape = body.type_of(outputs[0]).shape
    axes = Axes(shape, tuple((d,) for d, size in enumerate(shape) if size != 1))
    space, trace, symbols = _watch(body, outputs, axes)
    merged = _merged(axes, trace, symbols)
    if merged != axes:
        axes = merged
        space, trace, symbols = _watch(body, outputs, axes)
    outer, inner, row = _split(trace, symbols)
    vector, turned = _vector(axes, trace, symbols, row)
    if turned is not None or (not row and vector is None):
        outer, inner = tuple(range(len(symbols))), ()
    heavy = any(n.op.expensive for n in body.nodes)
    lanes = _lanes(body, outputs, target)
    return Schedule(
        axes,
        symbols,
        trace,
        space,
        outer,
        inner,
        vector,
        turned,
        _widths(lanes, heavy, axes.sizes[vector] if vector is not None else 1),
        lanes,
        _parallel(body),
        row,
    )


def _watch(
    body: Graph, outputs: Sequence[Value], axes: Axes
) -> tuple[Space, Trace, tuple[str, ...]]:
    space = Space(body.dims)
    at = [space.symbol(0, size - 1) for size in axes.sizes]
    trace, _ = watch(body, space, outputs, axes.index(at))
    return space, trace, tuple(s.names[0] for s in at)


def _reduced(trace: Trace) -> list[Event]:
    """The elements computed by reductions that run in every case."""
    ids = {node for node, _ in trace.reductions}
    return [e for e in trace.events if e.node.id in ids and not e.guarded]


def _merged(axes: Axes, trace: Trace, symbols: tuple[str, ...]) -> Axes:
    """Neighbouring loops joined where all accesses allow it."""
    tested = {n for c in trace.conditions for n in trace.depends(c.names)}
    reduced = _reduced(trace)
    groups: list[tuple[int, ...]] = []
    for g, group in enumerate(axes.groups):
        if g and not {symbols[g - 1], symbols[g]} & tested:
            pair = symbols[g - 1], symbols[g]
            alike = all(len(e.depends & set(pair)) != 1 for e in reduced)
            if alike and mergeable(trace, trace.reads, *pair, axes.sizes[g]):
                groups[-1] += group
                continue
        groups.append(group)
    return Axes(axes.shape, tuple(groups))


def _split(trace: Trace, symbols: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Outer and inner loops, and whether a reduction is hoisted between them."""
    every = set(symbols)
    kept: set[str] = set()
    row = False
    for event in _reduced(trace):
        along = event.depends & every
        if along != every and not event.depends - every:
            kept |= along
            row = True
    count = range(len(symbols))
    if row:
        inside = tuple(g for g in count if symbols[g] not in kept)
        return tuple(g for g in count if symbols[g] in kept), inside, bool(inside)
    return tuple(count[:-1]), tuple(count[-1:]), False


def _vector(
    axes: Axes, trace: Trace, symbols: tuple[str, ...], row: bool
) -> tuple[int | None, int | None]:
    """The loop to vectorise, and the loop to transpose with."""
    if not symbols:
        return None, None
    last = len(symbols) - 1
    strided = _strided(trace, symbols[last])
    reductions = list(trace.reductions.values())
    if reductions:
        across = sum(r.strided + r.tested for r in reductions)
        size = axes.sizes[last]
        short = isinstance(size, int) and size < _SHORT
        in_rows = row and all(symbols[last] not in e.depends for e in _reduced(trace))
        if in_rows:
            outside = [r for r in trace.reads if not r.loops]
            bad = sum(_bad(trace, r.position, symbols[last]) for r in outside)
            return (None if bad * 2 > len(outside) else last), None
        return (last if strided <= across and not (short and across == 0) else None), None
    if strided:
        best, fewest = None, strided
        for g in range(last):
            bad = _strided(trace, symbols[g])
            if bad < fewest and not _tests(trace, symbols[g]) | _tests(trace, symbols[last]):
                best, fewest = g, bad
        if best is not None:
            return last, best
    return last, None


def _bad(trace: Trace, position: DimLike, symbol: str) -> bool:
    return trace.stride(position, symbol) not in (0, 1)


def _strided(trace: Trace, symbol: str) -> int:
    """How many reads are neither contiguous nor constant along a loop."""
    return sum(_bad(trace, r.position, symbol) for r in trace.reads)


def _tests(trace: Trace, symbol: str) -> bool:
    return any(symbol in trace.depends(c.names) for c in trace.conditions)


def _lanes(body: Graph, outputs: Sequence[Value], target: CpuTarget) -> int:
    """Elements of one register: of the widest type that is computed with, or moved where none is."""
    bytes = max(body.type_of(v).dtype.bytes for v in outputs)
    for node in body.nodes:
        for t in node.types:
            if t.dtype is not DType.I64 and node.op.pattern is not Pattern.SOURCE:
                bytes = max(bytes, t.dtype.bytes)
    computes = any(n.op.pattern not in (Pattern.SOURCE, Pattern.INDEX) for n in body.nodes)
    return target.vector_bits // 8 // (max(bytes, 4) if computes else bytes)


def _widths(lanes: int, heavy: bool, extent: DimLike) -> tuple[int, ...]:
    """Vector widths, from a few registers' worth down to scalars; those that a static extent needs."""
    ladder = [1 << p for p in reversed(range(lanes.bit_length()))]
    wide = lanes * (1 if heavy else 4)
    if not isinstance(extent, int):
        return tuple(dict.fromkeys((wide, *ladder)))
    while wide > lanes and wide > extent:
        wide //= 2
    return tuple(dict.fromkeys((wide, *(w for w in ladder if w < wide))))


def _parallel(body: Graph) -> bool:
    """Whether the work is worth threads; symbolic work counts as large."""
    flops: DimLike = 0
    for node in body.nodes:
        one = node.op.flops([body.type_of(v) for v in node.operands], node.types)
        flops = flops + one * (_EXPENSIVE if node.op.expensive else 1)
    moved: DimLike = 0
    for node in body.inputs:
        moved = moved + node.types[0].nbytes
    for _, value in body.outputs:
        moved = moved + body.type_of(value).nbytes
    if not isinstance(flops, int) or not isinstance(moved, int):
        return True
    return worth_threads(flops, moved)


def split_points(
    conditions: Sequence[Condition], symbol: Dim, extent: DimLike, space: Space
) -> list[DimLike]:
    """Where along a loop conditions change their truth: `[0, ..., extent]`, in order.

    Only tests `symbol >= p` and `symbol <= p` count, and only points whose order is certain.
    """
    points: list[DimLike] = [0, extent]
    for condition in conditions:
        for test in condition.tests:
            parts = ix.linear(test.value, symbol.names[0])
            if test.relation != "ge" or parts is None or parts[1] not in (1, -1):
                continue
            point = -1 * parts[0] if parts[1] == 1 else parts[0] + 1
            for n in range(1, len(points)):
                if point == points[n] or point == points[n - 1]:
                    break
                if space.proves(points[n] - point - 1) and space.proves(point - points[n - 1] - 1):
                    points.insert(n, point)
                    break
    return points


def hoistable(plan: Schedule, inside: set[str]) -> list[Event]:
    """Elements that are the same for all of the inner loops `inside`, in the order computed."""
    fixed = set(plan.symbols) - inside
    found: dict[tuple[Value, Index], Event] = {}
    for event in plan.trace.events:
        names = {n for i in event.index if isinstance(i, Dim) for n in i.names}
        if not event.guarded and names <= fixed and event.depends <= fixed:
            found.setdefault((event.value, event.index), event)
    return list(found.values())


def checkable(plan: Schedule, inside: set[str]) -> list[tuple[Value, Index]]:
    """Elements at the start of the inner loops whose index checks hold for all of these loops."""
    fixed = set(plan.symbols) - inside
    start: dict[str, DimLike] = {name: 0 for name in inside}
    found: dict[tuple[Value, Index], None] = {}
    for event in plan.trace.events:
        names = {n for i in event.index if isinstance(i, Dim) for n in i.names}
        depends = plan.trace.checked.get(event.node.id)
        if depends is None or event.guarded or event.loops:
            continue
        if depends <= fixed and names <= set(plan.symbols):
            found[event.value, tuple(substitute(i, start) for i in event.index)] = None
    return list(found)


def storable(body: Graph, plan: Schedule, output: Value) -> Value | None:
    """A value that passes over a row would compute again, and that can wait in the output's memory.

    It has the output's type, is computed at every element of the row by a reduction and at the
    output's own element afterwards, and is worth storing: an `expensive` op is behind it.
    """
    symbols, trace = plan.symbols, plan.trace
    at = plan.axes.index([Dim.symbol(s) for s in symbols])
    inner = [(symbols[g], plan.axes.sizes[g]) for g in plan.inner]
    best: Value | None = None
    for value in {e.value: None for e in trace.events}:
        node = body.node(value.node)
        if value == output or node.types[value.result] != body.type_of(output):
            continue
        if not _costly(body, node):
            continue
        events = [e for e in trace.events if e.value == value]
        final = [e for e in events if not e.loops]
        passes = [e for e in events if e.loops]
        if not final or not passes or any(e.guarded or e.index != at for e in final):
            continue
        wanted = _box(trace, at, inner, plan)
        if all(not e.guarded and _row(trace, e, plan) == wanted for e in passes) and (
            best is None or value.node > best.node
        ):
            best = value
    return best


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
