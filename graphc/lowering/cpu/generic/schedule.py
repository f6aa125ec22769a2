"""Choosing the loop nest for an output: decided on a trace, before any code is written.

Dimensions that every access sees as one are merged. Loops that a reduction's result varies along go
outside, the others inside, so that the result is computed once (softmax, norms). Then one loop is
vectorised: the last one of the output, unless memory runs along a reduction instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dim import Dim, DimLike, evaluate
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Pattern
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.generic import index as ix
from graphc.lowering.generic.axes import Axes, reduced_events, split_loops, watched_axes
from graphc.lowering.generic.index import Condition, Space
from graphc.lowering.generic.trace import Trace

_EXPENSIVE = 12  # arithmetic operations that one `expensive` function stands for
FLOPS_PER_BYTE = 5  # 60 GFLOP/s against 12 GB/s, as `emit.worth_threads` has it
_SHORT = 4  # an axis shorter than this is not worth vectors if another will do


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
        turned_tested: whether conditions change along `turned`.
        widths: vector widths for the vectorised loop, falling.
        lanes: elements of one register.
        work: the arithmetic of the whole nest, bytes counted as what they cost in arithmetic.
        least: the work for the smallest named dims.
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
    turned_tested: bool
    widths: tuple[int, ...]
    lanes: int
    work: DimLike
    least: int
    row: bool


def schedule(body: Graph, outputs: Sequence[Value], target: CpuTarget) -> Schedule:
    """The loop nest for outputs of one shape."""
    axes, space, trace, symbols = watched_axes(body, outputs)
    outer, inner, row = split_loops(trace, symbols)
    vector, turned = _vector(axes, trace, symbols, row)
    if turned is not None or (not row and (vector is None or trace.reductions)):
        outer, inner = tuple(range(len(symbols))), ()
    # Random bits cost much, but four neighbours share them: the wider the vector, the better.
    heavy = any(n.op.expensive and n.op.pattern is not Pattern.SOURCE for n in body.nodes)
    lanes = _lanes(body, outputs, target)
    work = _work(body, trace)
    return Schedule(
        axes,
        symbols,
        trace,
        space,
        outer,
        inner,
        vector,
        turned,
        turned is not None and _tests(trace, symbols[turned]),
        _widths(lanes, heavy, axes.sizes[vector] if vector is not None else 1),
        lanes,
        work,
        evaluate(work, {name: max(1, b.low) for name, b in body.dims.items()}),
        row,
    )


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
        in_rows = row and all(symbols[last] not in e.depends for e in reduced_events(trace))
        if in_rows:
            outside = [r for r in trace.reads if not r.loops]
            bad = sum(_bad(trace, r.position, symbols[last]) for r in outside)
            return (None if bad * 2 > len(outside) else last), None
        return (last if strided <= across and not (short and across == 0) else None), None
    if strided:
        best, fewest = None, strided
        for g in range(last):
            bad = _strided(trace, symbols[g])
            turns = any(
                _bad(trace, r.position, symbols[last]) and trace.stride(r.position, symbols[g]) == 1
                for r in trace.reads
            )
            if turns and bad < fewest and not _tests(trace, symbols[last]):
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
    wide = lanes * (1 if heavy else 4)
    if not isinstance(extent, int):
        return open_widths(wide, lanes, heavy)
    ladder = [1 << p for p in reversed(range(lanes.bit_length()))]
    while wide > lanes and wide > extent:
        wide //= 2
    return tuple(dict.fromkeys((wide, *(w for w in ladder if w < wide))))


def open_widths(wide: int, lanes: int, heavy: bool) -> tuple[int, ...]:
    """Vector widths for an extent that is not known: few, since each is code of its own.

    What is left of full vectors goes a quarter of a vector at a time where single elements would take long.
    """
    quarter = (lanes // 4,) if heavy or lanes > 8 else ()
    return tuple(dict.fromkeys(w for w in (wide, lanes, *quarter, 1) if w > 0))


def _work(body: Graph, trace: Trace) -> DimLike:
    """Arithmetic operations, and bytes moved in arithmetic operations of the same duration."""
    flops: DimLike = 0
    for node in body.nodes:
        one = node.op.flops([body.type_of(v) for v in node.operands], node.types)
        flops = flops + one * (_EXPENSIVE if node.op.expensive else 1)
    written = [body.type_of(v) for _, v in body.outputs]
    moved: DimLike = sum((t.nbytes for t in written), 0)
    for slot, node in enumerate(body.inputs):
        (t,) = node.types
        size: DimLike = t.nbytes
        if not trace.reductions:
            # Each read takes one element for each of the output: a slice or gather need not see all.
            reads = sum(r.slot == slot for r in trace.reads)
            most = reads * t.dtype.bytes * written[0].size
            if isinstance(size, int) and isinstance(most, int):
                size = min(size, most)
        moved = moved + size
    return flops + moved * FLOPS_PER_BYTE


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
