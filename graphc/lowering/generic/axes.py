"""The loops of an output: its dimensions split where an index divides them, merged where every access sees one.

Which of them a reduction's result varies along decides what can be computed once for many elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dim import DimLike, names_of, product
from graphc.ir.graph import Graph, Value
from graphc.lowering.generic import index as ix
from graphc.lowering.generic.index import Space, quotients, unflatten
from graphc.lowering.generic.inline import Index
from graphc.lowering.generic.trace import Event, Trace, mergeable, watch


@dataclass(frozen=True)
class Axes:
    """The output's dimensions as loops.

    Attributes:
        shape: the output's shape.
        parts: for each dimension the sizes it is split into, slowest first; most are whole.
        groups: the parts, numbered through, that each loop merges.
    """

    shape: tuple[DimLike, ...]
    parts: tuple[tuple[DimLike, ...], ...]
    groups: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(shape: tuple[DimLike, ...], parts: tuple[tuple[DimLike, ...], ...]) -> Axes:
        """One loop for each part that is not 1."""
        sizes = [size for part in parts for size in part]
        return Axes(shape, parts, tuple((p,) for p, size in enumerate(sizes) if size != 1))

    @property
    def part_sizes(self) -> tuple[DimLike, ...]:
        """All parts' sizes."""
        return tuple(size for part in self.parts for size in part)

    @property
    def sizes(self) -> tuple[DimLike, ...]:
        """Steps of each loop."""
        sizes = self.part_sizes
        return tuple(product(sizes[p] for p in group) for group in self.groups)

    def index(self, at: Sequence[DimLike]) -> Index:
        """The output index where the loops are `at`."""
        sizes = self.part_sizes
        inside: list[DimLike] = [0] * len(sizes)
        for group, position in zip(self.groups, at, strict=True):
            for p, digit in zip(group, unflatten(position, [sizes[p] for p in group]), strict=True):
                inside[p] = digit
        result: list[DimLike] = []
        first = 0
        for part in self.parts:
            result.append(ix.flatten(inside[first : first + len(part)], part))
            first += len(part)
        return tuple(result)


def watched_axes(
    body: Graph, outputs: Sequence[Value]
) -> tuple[Axes, Space, Trace, tuple[str, ...]]:
    """The loops for outputs of one shape, and what evaluating one element does, by the loops' symbols."""
    shape = body.type_of(outputs[0]).shape
    axes = Axes.of(shape, tuple((size,) for size in shape))
    space, trace, symbols = _watch(body, outputs, axes)
    split = Axes.of(shape, _parts(axes, trace, symbols))
    if split != axes:
        axes = split
        space, trace, symbols = _watch(body, outputs, axes)
    merged = _merged(axes, trace, symbols)
    if merged != axes:
        axes = merged
        space, trace, symbols = _watch(body, outputs, axes)
    return axes, space, trace, symbols


def _watch(
    body: Graph, outputs: Sequence[Value], axes: Axes
) -> tuple[Space, Trace, tuple[str, ...]]:
    space = Space(body.dims)
    at = [space.symbol(0, size - 1) for size in axes.sizes]
    trace, _ = watch(body, space, outputs, axes.index(at))
    return space, trace, tuple(s.names[0] for s in at)


def _parts(axes: Axes, trace: Trace, symbols: tuple[str, ...]) -> tuple[tuple[DimLike, ...], ...]:
    """Splits dimensions whose quotient by an integer is an index somewhere: groups of channels."""
    divisors: dict[str, set[int]] = {s: set() for s in symbols}
    for event in trace.events:
        for i in event.index:
            for quotient in quotients(i):
                name, by = str(quotient.numerator), quotient.denominator
                if name in divisors and isinstance(by, int):
                    divisors[name].add(by)
    parts: list[tuple[DimLike, ...]] = [(size,) for size in axes.shape]
    for (d,), symbol in zip(axes.groups, symbols, strict=True):
        for by in sorted(divisors[symbol], reverse=True):
            first, *rest = parts[d]
            last = rest[-1] if rest else first
            if last % by == 0 and last != by:
                parts[d] = (*parts[d][:-1], last // by, by)
    return tuple(parts)


def reduced_events(trace: Trace) -> list[Event]:
    """The elements computed by reductions that run in every case."""
    ids = {node for node, _ in trace.reductions}
    return [e for e in trace.events if e.node.id in ids and not e.guarded]


def _merged(axes: Axes, trace: Trace, symbols: tuple[str, ...]) -> Axes:
    """Neighbouring loops joined where all accesses allow it."""
    tested = {n for c in trace.conditions for n in trace.depends(c.names)}
    reduced = reduced_events(trace)
    groups: list[tuple[int, ...]] = []
    for g, group in enumerate(axes.groups):
        if g and not {symbols[g - 1], symbols[g]} & tested:
            pair = symbols[g - 1], symbols[g]
            alike = all(len(e.depends & set(pair)) != 1 for e in reduced)
            if alike and mergeable(trace, trace.reads, *pair, axes.sizes[g]):
                groups[-1] += group
                continue
        groups.append(group)
    return Axes(axes.shape, axes.parts, tuple(groups))


def split_loops(
    trace: Trace, symbols: tuple[str, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Outer and inner loops, and whether a reduction is hoisted between them."""
    every = set(symbols)
    kept: set[str] = set()
    row = False
    for event in reduced_events(trace):
        along = event.depends & every
        if along != every and not event.depends - every:
            kept |= along
            row = True
    count = range(len(symbols))
    if row:
        inside = tuple(g for g in count if symbols[g] not in kept)
        return tuple(g for g in count if symbols[g] in kept), inside, bool(inside)
    return tuple(count[:-1]), tuple(count[-1:]), False


def shared_events(trace: Trace, symbols: Sequence[str], inside: set[str]) -> list[Event]:
    """Elements that are the same for all of the inner loops `inside`, in the order computed."""
    fixed = set(symbols) - inside
    found: dict[tuple[Value, Index], Event] = {}
    for event in trace.events:
        names = {n for i in event.index for n in names_of(i)} - trace.dims
        if not event.guarded and names <= fixed and event.depends <= fixed:
            found.setdefault((event.value, event.index), event)
    return list(found.values())
