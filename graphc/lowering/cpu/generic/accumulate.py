"""Reduction loops: vector accumulators, tails without masks, and float sums that stay accurate.

A float sum of n terms in one accumulator is off by up to n roundings. Here partial sums are flushed
into a second set of accumulators every few hundred terms, which bounds the error of a million
terms by about a thousand roundings, in practice by a few (the "blocked summation" of Higham,
Accuracy and Stability of Numerical Algorithms, 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.op import Expr
from graphc.lowering.cpu import arithmetic
from graphc.lowering.cpu.cell import Cell
from graphc.lowering.cpu.emit import bind, const, lanes_of, splat
from graphc.lowering.cpu.generic.schedule import open_widths
from graphc.lowering.generic import index as ix
from graphc.lowering.generic.trace import Reduction
from graphc.ops.reduce import highest, lowest

if TYPE_CHECKING:
    from graphc.lowering.cpu.generic.expr import TirEmitter

_BLOCK = 256  # terms an accumulator takes before it is flushed
_LONG = 1024  # terms from which on blocks pay
_CHAINS = 4  # sets of accumulators where each loop step adds one short vector: additions overlap
_SHARED = 1 << 15  # terms from which on a lone reduction is shared among threads
_PARTS = 32  # into so many parts, so that its result does not depend on the number of threads
_COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "all": "min", "any": "max"}


def _is_long(count: DimLike, limit: int) -> bool:
    return not isinstance(count, int) or count >= limit


def halves(vector: Expr) -> tuple[Expr, Expr]:
    """The low and the high lanes of a vector."""
    import tvm.tirx as tx

    lanes = lanes_of(vector)
    whole = bind(vector)
    low, high = range(lanes // 2), range(lanes // 2, lanes)
    return tx.Shuffle([whole], list(low)), tx.Shuffle([whole], list(high))


def identity(kind: str, dtype: DType) -> float | int:
    """What a reduction over nothing gives; 0 and 1 stand for false and true."""
    if kind in ("sum", "any"):
        return 0
    if kind in ("prod", "all"):
        return 1
    return lowest(dtype) if kind == "max" else highest(dtype)


class Accumulation:
    """One reduction at work.

    The extents are grouped into loops by what a trace has seen (`Reduction.merges`). Where the
    emitter is at a scalar and memory runs along the last loop, that loop is cut into wide vectors,
    one-register vectors and ever narrower ones, each width with an accumulator of its own; they are
    folded together once, after all loops.
    """

    def __init__(self, e: TirEmitter, kind: str, dtype: DType, seen: Reduction | None) -> None:
        self.e, self.kind, self.dtype, self.seen = e, kind, dtype, seen
        self.stored = "int32" if kind in ("all", "any") else arithmetic.tir_name(dtype)
        self.start = identity(kind, dtype)
        self.sets: list[dict[int, Cell]] = [{}]  # by width; several where one would wait for itself
        self.turn = 0

    def run(self, extents: Sequence[DimLike], body: Callable[[Sequence[Expr]], Expr]) -> Expr:
        """The result for the box of `extents`."""
        if any(e == 0 for e in extents):
            return self._finished(const(self.start, self.stored))
        groups = self._groups(extents)
        sizes = [product(extents[i] for i in group) for group in groups]

        def term(at: Sequence[DimLike], lanes: int) -> None:
            k: list[DimLike] = [0] * len(extents)
            for group, position in zip(groups, at, strict=True):
                inside = ix.unflatten(position, [extents[i] for i in group])
                for i, part in zip(group, inside, strict=True):
                    k[i] = part
            self._add(self.sets[self.turn][lanes], self._value(body(k)))

        if self.e.alone and self.e.lanes == 1 and _is_long(product(sizes), _SHARED):
            return self._finished(self._shared_out(sizes, term))
        return self._finished(self._whole(sizes, sizes, term))

    def _whole(
        self,
        sizes: Sequence[DimLike],
        known: Sequence[DimLike],
        term: Callable[[Sequence[DimLike], int], None],
    ) -> Expr:
        """All loops by one thread; `known` are sizes that vector widths may rely on."""
        widths = self._widths(known)
        chains = 1
        if len(sizes) > 1 and widths and isinstance(sizes[-1], int) and sizes[-1] <= 2 * widths[0]:
            chains = _CHAINS
        used = widths or (self.e.lanes,)
        self.sets = [{lanes: self._cell(lanes) for lanes in used} for _ in range(chains)]
        if widths:
            self._nest(sizes[:-1], sizes[-1], widths, term)
        else:
            self._nest(sizes, 1, (), lambda at, lanes: term(at[:-1], self.e.lanes))
        return self._folded()

    def _shared_out(
        self, sizes: Sequence[DimLike], term: Callable[[Sequence[DimLike], int], None]
    ) -> Expr:
        """The first loop cut into a fixed number of parts, whatever the number of threads."""
        from tvm.script.ir_builder import tirx as t

        e = self.e
        part = (sizes[0] + (_PARTS - 1)) // _PARTS
        partial = Cell(_PARTS, self.stored)
        e.alone = False
        with t.parallel(t.int64(0), t.int64(_PARTS)) as variable, e.scope():
            step = e.bound(variable, 0, _PARTS - 1)
            first = step * part
            left = t.min(e.expr(sizes[0] - first), e.expr(part))
            count = e.bound(bind(t.max(left, t.int64(0))), 0, part)

            def there(at: Sequence[DimLike], lanes: int) -> None:
                term((first + at[0], *at[1:]), lanes)

            unknown = [*sizes[:-1], count] if len(sizes) == 1 else sizes
            partial.set_lane(variable, self._whole([count, *sizes[1:]], unknown, there))
        e.alone = True
        total = self._cell(1)
        with e.serial(_PARTS) as i:
            self._add(total, partial.get_lane(e.expr(i)))
        return total.get()

    def _groups(self, extents: Sequence[DimLike]) -> list[list[int]]:
        """The extents that are not 1, neighbours together where they make one loop."""
        groups: list[list[int]] = []
        big = [i for i, e in enumerate(extents) if e != 1]
        for n, i in enumerate(big):
            merged = n > 0 and self.seen is not None and self.seen.merges[n - 1]
            if merged:
                groups[-1].append(i)
            else:
                groups.append([i])
        return groups

    def _widths(self, sizes: Sequence[DimLike]) -> tuple[int, ...]:
        """The vector widths to cut the last loop into, falling; none to leave it scalar."""
        seen = self.seen
        last = sizes[-1] if sizes else 1
        if self.e.lanes != 1 or not sizes or seen is None or not seen.along or seen.tested:
            return ()
        if isinstance(last, int) and last < 4:
            return ()
        name = "int32" if self.stored == "bool" else self.stored
        lanes = self.e.target.lanes(name)
        wide = lanes * (1 if seen.heavy else 4)
        if not isinstance(last, int):
            return open_widths(wide, lanes, seen.heavy)
        ladder = [1 << p for p in reversed(range(lanes.bit_length()))]
        while wide > lanes and wide > last:
            wide //= 2
        used, rest = [], last
        for width in (wide, *(x for x in ladder if x < wide)):
            if rest >= width:
                used.append(width)
                rest %= width
        return tuple(used)

    # Loops

    def _nest(
        self,
        outer: Sequence[DimLike],
        inner: DimLike,
        widths: tuple[int, ...],
        term: Callable[[Sequence[DimLike], int], None],
    ) -> None:
        """All loops, flushing at the level where an accumulator has taken a block's worth of terms."""
        steps = [*outer, inner // widths[0] if widths else 1]
        level = self._flush_level(steps)

        def loops(depth: int, at: tuple[DimLike, ...]) -> None:
            def inside(i: DimLike) -> None:
                loops(depth + 1, (*at, i))

            last = depth == len(outer) - 1
            if depth == len(outer):
                if level == depth and widths:
                    self._sweep_in_blocks(inner, widths, lambda k, lanes: term((*at, k), lanes))
                else:
                    self._sweep(inner, widths, lambda k, lanes: term((*at, k), lanes))
                return
            if level != depth:
                self._repeated(0, outer[depth], last, inside)
                return
            rest = product(steps[depth + 1 :])
            block = max(1, _BLOCK // rest) if isinstance(rest, int) and rest > 0 else 1
            for first, count in self._blocks(outer[depth], block):
                with self._flushing():
                    self._repeated(first, count, last, inside)

        loops(0, ())

    def _repeated(
        self, first: DimLike, count: DimLike, last: bool, body: Callable[[DimLike], None]
    ) -> None:
        """A loop of `count` steps from `first`.

        The last one before the vectors takes turns with the sets of accumulators.
        """
        chains = len(self.sets) if last else 1
        whole = count // chains
        if whole != 0:
            with self.e.serial(whole) as i:
                for turn in range(chains):
                    self.turn = turn
                    body(first + i * chains + turn)
        self.turn = 0
        if count - whole * chains != 0:
            with self.e.serial(count - whole * chains) as i:
                body(first + whole * chains + i)

    def _flush_level(self, steps: Sequence[DimLike]) -> int | None:
        """The innermost loop that, with those inside, makes a sum too long for one accumulator."""
        if self.kind != "sum" or self.dtype is not DType.F32:
            return None
        for level in reversed(range(len(steps))):
            count = product(steps[level:])
            if not isinstance(count, int) or count > _LONG:
                return level
        return None

    def _blocks(self, extent: DimLike, block: int) -> Iterator[tuple[DimLike, DimLike]]:
        """Cuts a loop into blocks: first and number of steps, inside the loops that this opens."""
        e = self.e
        if isinstance(extent, int):
            block = min(block, extent)
            whole, rest = divmod(extent, block)
            with e.serial(whole) as i:
                yield i * block, block
            if rest:
                with e.scope():
                    yield whole * block, rest
            return
        with e.serial((extent + (block - 1)) // block) as i:
            left = e.expr(extent - i * block)
            from tvm.script.ir_builder import tirx as t

            count = e.bound(bind(t.min(left, t.int64(block))), 0, block)
            yield i * block, count

    @contextmanager
    def _flushing(self) -> Iterator[None]:
        """Inside, terms go to fresh accumulators, which are added to the old ones at the end."""
        totals = self.sets
        self.sets = [{lanes: self._cell(lanes) for lanes in cells} for cells in totals]
        yield
        for cells, into in zip(self.sets, totals, strict=True):
            for lanes, cell in cells.items():
                self._add(into[lanes], cell.get())
        self.sets = totals

    def _sweep(
        self, extent: DimLike, widths: tuple[int, ...], term: Callable[[DimLike, int], None]
    ) -> None:
        """The last loop: full vectors, then narrower ones."""
        if not widths:
            term(0, 1)
            return
        self.e.sweep(0, extent, widths, term)

    def _sweep_in_blocks(
        self, extent: DimLike, widths: tuple[int, ...], term: Callable[[DimLike, int], None]
    ) -> None:
        wide = widths[0]
        e = self.e
        for first, count in self._blocks(extent // wide, _BLOCK):
            with self._flushing(), e.serial(count) as i, e.vector(wide) as lane:
                term((first + i) * wide + lane, wide)
        done = extent // wide * wide
        self.e.sweep(done, extent - done, widths[1:], term)

    # Values

    def _cell(self, lanes: int) -> Cell:
        cell = Cell(lanes, self.stored)
        cell.set(const(self.start, self.stored))
        return cell

    def _value(self, value: Expr) -> Expr:
        value = self.e.lift(value)
        if self.kind in ("all", "any"):
            return arithmetic.as_int(value)
        return value

    def _add(self, cell: Cell, value: Expr) -> None:
        cell.set(self._combined(cell.get(), splat(value, cell.lanes)))

    def _combined(self, a: Expr, b: Expr) -> Expr:
        return arithmetic.binary(_COMBINE[self.kind], a, b)

    def _folded(self) -> Expr:
        """All accumulators in one: the widest halved until it meets the next."""
        cells, *others = self.sets
        for other in others:
            for lanes, cell in other.items():
                self._add(cells[lanes], cell.get())
        if self.e.lanes > 1:
            return cells[self.e.lanes].get()
        result: Expr = None
        for lanes in sorted(cells, reverse=True):
            value = cells[lanes].get()
            while result is not None and lanes_of(result) > lanes:
                result = self._combined(*halves(result))
            result = value if result is None else self._combined(result, value)
        while lanes_of(result) > 1:
            result = self._combined(*halves(result))
        return result

    def _finished(self, value: Expr) -> Expr:
        if self.kind in ("all", "any"):
            return arithmetic.nonzero(value)
        return value
