"""Stable sorting along an axis (`arg_sort`): runs of twice the length each time, in which elements find their places.

An element's place in two merged runs is its place in its own and the number of the other's elements that go before it,
found by bisection. Rows are dealt to threads; positions are merged to and fro in scratch memory.
"""

from __future__ import annotations

from functools import partial

from graphc.ir.dim import DimLike, product
from graphc.lowering.cpu.emit import Expr, Registers, i64, loop, select, when, worth_threads
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic.expr import TirEmitter
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel
from graphc.lowering.generic.index import Space, flatten, unflatten
from graphc.lowering.generic.inline import Inliner
from graphc.ops import ArgSort, Fusion

__all__ = ["select_sort"]

_LEVELS = 62  # of a row of open length


def select_sort(fusion: Fusion, target: CpuTarget) -> Kernel | None:
    """The kernel of a fusion that is an `arg_sort`; None for others."""
    body = fusion.body
    root = body.node(body.outputs[0][1].node)
    if not isinstance(root.op, ArgSort) or 0 in root.types[0].shape:
        return None
    emit = partial(_emit, fusion, target)
    return Kernel("sort", emit, root.types[0].size * 16, "int64")


def _emit(fusion: Fusion, target: CpuTarget, io: KernelIO) -> None:
    body = fusion.body
    root = body.node(body.outputs[0][1].node)
    e = TirEmitter(Space(body.dims), io, target)
    shape, axis = root.types[0].shape, root.op.attributes()["axis"]
    assert isinstance(axis, int) and io.scratch is not None
    count = product((*shape[:axis], *shape[axis + 1 :]))
    size = root.types[0].size
    threads = worth_threads(0, size * 64 if isinstance(size, int) else i64(1 << 20))
    with loop(e.expr(count), parallel=threads) as row, e.scope():
        _Row(fusion, io, e, e.bound(row, 0, count - 1)).sort()


class _Row:
    """Sorting one row."""

    def __init__(self, fusion: Fusion, io: KernelIO, e: TirEmitter, row: DimLike) -> None:
        self.body, self.io, self.e = fusion.body, io, e
        self.root = self.body.node(self.body.outputs[0][1].node)
        assert isinstance(self.root.op, ArgSort)
        self.op, shape = self.root.op, self.root.types[0].shape
        self.length = shape[self.op.axis]
        self.outer = unflatten(row, (*shape[: self.op.axis], *shape[self.op.axis + 1 :]))
        self.start = row * self.length * 2

    def _index(self, i: DimLike) -> tuple[DimLike, ...]:
        axis = self.op.axis
        return (*self.outer[:axis], i, *self.outer[axis:])

    def _key(self, i: DimLike) -> Expr:
        return Inliner(self.body, self.e).at(self.root.operands[0], self._index(i))

    def sort(self) -> None:
        """Writes the row's positions in order."""
        e, n, scratch = self.e, self.length, self.io.scratch
        assert scratch is not None
        with e.serial(n) as i:
            e.write(scratch, self.start + i, i)
        levels = (n - 1).bit_length() if isinstance(n, int) else _LEVELS
        width, side = Registers(1, 1, "int64"), Registers(1, 1, "int64")
        width.set(i64(1), 0)
        side.set(i64(0), 0)
        if levels:
            with loop(levels) as level, e.scope(), when(width.get(0) < e.expr(n)):
                w = e.bound(width.get(0), 1, n)
                here = e.bound(side.get(0), 0, 1)
                with e.serial(n) as i:
                    self._place(i, w, here, i64(level) + i64(1))
                width.set(width.get(0) * i64(2), 0)
                side.set(i64(1) - side.get(0), 0)
        here = e.bound(side.get(0), 0, 1)
        with e.serial(n) as i:
            found = e.read(scratch, self.start + here * n + i)
            e.write(self.io.results[0], flatten(self._index(i), self.root.types[0].shape), found)

    def _place(self, i: DimLike, width: DimLike, here: DimLike, steps: Expr) -> None:
        """Puts the i-th position to where it belongs in the merged run."""
        e, n, scratch = self.e, self.length, self.io.scratch
        assert scratch is not None
        source, target = self.start + here * n, self.start + (1 - here) * n
        mine = e.bound(e.lift(e.read(scratch, source + i)), 0, n - 1)
        key = self._key(mine)
        first = e.bound(e.expr(i // (width * 2) * (width * 2)), 0, n - 1)
        middle = e.bound(self._least(first + width, n), 0, n)
        end = e.bound(self._least(first + width * 2, n), 0, n)
        left = e.condition(e.compare("lt", i, middle))
        low, high = Registers(1, 1, "int64"), Registers(1, 1, "int64")
        low.set(select(left, e.expr(middle), e.expr(first)), 0)
        high.set(select(left, e.expr(end), e.expr(middle)), 0)
        with loop(steps), when(low.get(0) < high.get(0)), e.scope():
            at = e.bound((low.get(0) + high.get(0)) // i64(2), 0, n - 1)
            place = e.expr(at)
            other = self._key(e.bound(e.lift(e.read(scratch, source + at)), 0, n - 1))
            before = e.binary("and", left, self._before(other, key))
            late = e.binary("and", e.unary("not", left), e.unary("not", self._before(key, other)))
            goes = e.condition(e.binary("or", before, late))
            new_low = select(goes, place + i64(1), low.get(0))
            high.set(select(goes, high.get(0), place), 0)
            low.set(new_low, 0)
        # The same for both sides: its place in its own run, and how many of the other go before.
        place = e.expr(i - middle) + low.get(0)
        e.write(scratch, target + e.bound(place, 0, n - 1), mine)

    def _least(self, a: DimLike, b: DimLike) -> Expr:
        one, two = self.e.expr(a), self.e.expr(b)
        return select(one < two, one, two)

    def _before(self, a: Expr, b: Expr) -> Expr:
        """Whether a key goes before another."""
        e = self.e
        if self.op.descending:
            a, b = b, a
        less = e.condition(e.compare("lt", a, b))
        if not self.body.type_of(self.root.operands[0]).dtype.is_float:
            return less
        only = e.binary("and", e.unary("isnan", b), e.unary("not", e.unary("isnan", a)))
        return e.binary("or", less, only)
