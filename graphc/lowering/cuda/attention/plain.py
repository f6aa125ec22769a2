"""Attention without its score matrix, on plain arithmetic units: the online softmax of FlashAttention.

A few neighbouring threads have a query, each a part of its elements and of the result's. A block goes over the keys
tile by tile: keys and values lie in shared memory, scores of a tile in registers; a tile with a larger score than all
before scales down what has been summed so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node
from graphc.lowering.cuda import arithmetic
from graphc.lowering.cuda.emit import (
    Array,
    Expr,
    Memory,
    Variable,
    barrier,
    cast,
    const,
    dtype_of,
    loop,
    named,
    pure,
    select,
    shared,
    when,
)
from graphc.lowering.cuda.epilogue import Epilogue, border
from graphc.lowering.cuda.io import Kernel, KernelIO, Stage
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.operands import strided
from graphc.ops import Attention, Fusion

__all__ = ["select_attention"]

_THREADS = 128
_KEYS = 16  # keys of a tile
_OWN = 32  # elements of a query that a thread keeps
_VECTOR = 4  # neighbours that a thread takes
_SHARED_BYTES = 48 << 10


@dataclass(frozen=True)
class _Cut:
    """How a query's elements are dealt out: `parts` threads, each with runs of `vector` neighbours."""

    depth: int
    width: int
    parts: int
    vector: int

    @property
    def queries(self) -> int:
        """Queries of a block."""
        return _THREADS // self.parts


def _cut(depth: int, width: int) -> _Cut:
    parts = 1
    while max(depth, width) > parts * _OWN and parts < 32:
        parts *= 2
    if parts > 1 and (depth % (parts * _VECTOR) or width % (parts * _VECTOR)):
        return _Cut(depth, width, 1, 1)
    return _Cut(depth, width, parts, _VECTOR if parts > 1 else 1)


def select_attention(fusion: Fusion, root: Node) -> Kernel | None:
    """A kernel for a fusion whose root is an `attention`, or None where its tiles are too large."""
    op, body = root.op, fusion.body
    assert isinstance(op, Attention)
    q, _, v = (body.type_of(value) for value in root.operands[:3])
    depth, width = q.shape[3], v.shape[3]
    assert isinstance(depth, int) and isinstance(width, int)
    work = DType.F64 if q.dtype is DType.F64 else DType.F32
    if (depth + width) * _KEYS * work.bytes > _SHARED_BYTES:
        return None
    cut = _cut(depth, width)
    batch, heads, queries = q.shape[:3]
    grid = ((queries + (cut.queries - 1)) // cut.queries, heads, batch)

    def emit(io: KernelIO) -> None:
        _Attention(body, root, op, cut, work, io).emit()

    return Kernel("attention", (*border(body, root), Stage(emit, grid, _THREADS)))


class _Attention:
    """One kernel's code."""

    def __init__(
        self, body: Graph, root: Node, op: Attention, cut: _Cut, work: DType, io: KernelIO
    ) -> None:
        self.body, self.root, self.op, self.cut, self.io = body, root, op, cut, io
        self.work, self.dtype = work, str(work.numpy)
        self.epilogue = Epilogue(body, root, io)
        self.e = self.epilogue.e
        self.read = [strided(body, value) for value in root.operands[:3]]
        self.keys = body.type_of(root.operands[1]).shape[2]
        self.result = root.types[0].shape

    def emit(self) -> None:
        """Writes what a thread does."""
        e, cut = self.e, self.cut
        batch, heads, queries = self.result[:3]
        x, y, z = self.io.thread.block
        blocks = (queries + (cut.queries - 1)) // cut.queries
        block, head = e.bound(x, 0, blocks - 1), e.bound(y, 0, heads - 1)
        self.batch = e.bound(z, 0, batch - 1), head
        thread = self.thread = e.bound(self.io.thread.index, 0, _THREADS - 1)
        self.part = e.bound(e.expr(thread % cut.parts), 0, cut.parts - 1)
        row = e.expr(block * cut.queries + thread // cut.parts)
        place = named(row)
        last = cast(e.expr(queries - 1), dtype_of(place))
        self.query = e.bound(select(place > last, last, place), 0, queries - 1)
        end = e.expr(self.keys)
        if self.op.causal:
            seen = cast(e.expr(block * cut.queries + cut.queries), dtype_of(end))
            end = select(seen < end, seen, end)
        self.q = self._own_query()
        self.sums = Array(cut.width // cut.parts, self.work)
        with loop(self.sums.count, unroll=True) as i:
            self.sums.store(i, const(0.0, self.dtype))
        self.top = Variable(const(float("-inf"), self.dtype))
        self.total = Variable(const(0.0, self.dtype))
        k_tile = shared(_KEYS * cut.depth, self.work)
        v_tile = shared(_KEYS * cut.width, self.work)
        self._tiles(named(end), k_tile, v_tile)
        with when(place <= last):
            self._finish()

    def _tiles(self, end: Expr, k_tile: Memory, v_tile: Memory) -> None:
        from tvm.script.ir_builder import tirx as t

        e = self.e
        size = const(_KEYS, dtype_of(end))
        count = t.truncdiv(end + size - const(1, dtype_of(end)), size)
        with loop(named(count)) as tile, e.scope():
            first = e.bound(tile, 0, (self.keys + (_KEYS - 1)) // _KEYS - 1) * _KEYS
            barrier()
            self._bring(1, k_tile, self.cut.depth, first)
            self._bring(2, v_tile, self.cut.width, first)
            barrier()
            self._tile(k_tile, v_tile, first)

    def _own_query(self) -> Array:
        """The thread's elements of its query."""
        cut = self.cut
        own = Array(cut.depth // cut.parts, self.work)
        with loop(own.count, unroll=True) as i, self.e.scope():
            element = self._element(self.e.bound(i, 0, own.count - 1), cut.depth)
            own.store(i, self._value(0, self.query, element))
        return own

    def _element(self, i: DimLike, extent: int) -> DimLike:
        """The element of a query or value that the thread's i-th one is."""
        v = self.cut.vector
        if v == 1 and self.cut.parts == 1:
            return i
        place = (i // v * self.cut.parts + self.part) * v + i % v
        return self.e.bound(self.e.expr(place), 0, extent - 1)

    def _value(self, operand: int, row: DimLike, element: DimLike) -> Expr:
        """An element of q, k or v."""
        slot, strides = self.read[operand]
        at = (*self.batch, row, element)
        position: DimLike = 0
        for i, stride in zip(at, strides, strict=True):
            position = position + i * stride
        return cast(self.io.operands[slot].load(self.e.expr(position)), self.dtype)

    def _bring(self, operand: int, tile: Memory, width: int, first: DimLike) -> None:
        """Keys or values from `first` on to shared memory; zeros beyond the last one."""
        e, total = self.e, _KEYS * width
        with e.serial(-(-total // _THREADS)) as step:
            place = e.bound(e.expr(step * _THREADS + self.thread), 0, total + _THREADS)
            with when(e.expr(place) < const(total, "int32")), e.scope():
                place = e.bound(e.expr(place), 0, total - 1)
                row = named(e.expr(first + place // width))
                last = cast(e.expr(self.keys - 1), dtype_of(row))
                inside = e.bound(select(row > last, last, row), 0, self.keys - 1)
                found = self._value(operand, inside, place % width)
                zero = const(0.0, self.dtype)
                tile.store(e.expr(place), select(row > last, zero, found))

    def _tile(self, k_tile: Memory, v_tile: Memory, first: DimLike) -> None:
        e, cut = self.e, self.cut
        scores = Array(_KEYS, self.work)
        top = Variable(self.top.get())
        with loop(_KEYS, unroll=True) as j, e.scope():
            key = e.bound(j, 0, _KEYS - 1)
            score = named(self._score(self._product(k_tile, key), first + key))
            scores.store(j, score)
            top.set(arithmetic.binary("max", top.get(), score))
        lowest, zero = const(float("-inf"), self.dtype), const(0.0, self.dtype)
        base = named(select(arithmetic.compare("eq", top.get(), lowest), zero, top.get()))
        factor = named(arithmetic.unary("exp", self.top.get() - base))
        self.top.set(top.get())
        self.total.set(self.total.get() * factor)
        with loop(self.sums.count, unroll=True) as i:
            self.sums.store(i, self.sums.load(i) * factor)
        with loop(_KEYS, unroll=True) as j, e.scope():
            key = e.bound(j, 0, _KEYS - 1)
            weight = named(arithmetic.unary("exp", scores.load(j) - base))
            self.total.set(self.total.get() + weight)
            with loop(self.sums.count, unroll=True) as i, e.scope():
                element = self._element(e.bound(i, 0, self.sums.count - 1), cut.width)
                value = v_tile.load(e.expr(key * cut.width + element))
                self.sums.store(i, self.sums.load(i) + weight * value)

    def _product(self, k_tile: Memory, key: DimLike) -> Expr:
        """The query times a key of the tile."""
        e, cut = self.e, self.cut
        sum = Variable(const(0.0, self.dtype))
        with loop(self.q.count, unroll=True) as i, e.scope():
            element = self._element(e.bound(i, 0, self.q.count - 1), cut.depth)
            factor = k_tile.load(e.expr(key * cut.depth + element))
            sum.set(sum.get() + self.q.load(i) * factor)
        if cut.parts == 1:
            return sum.get()
        return pure(f"graphc_team<{cut.parts}, graphc_add>", self.dtype, sum.get())

    def _score(self, product: Expr, key: DimLike) -> Expr:
        """Scaled and masked; minus infinity for keys that there are not."""
        import tvm.tirx as tx

        e = self.e
        lowest = const(float("-inf"), self.dtype)
        score = named(product * const(self.op.scale, self.dtype))
        at = named(e.expr(key))
        last = cast(e.expr(self.keys - 1), dtype_of(at))
        hidden = at > last
        if self.op.causal:
            hidden = tx.Or(hidden, at > cast(e.expr(self.query), dtype_of(at)))
        if len(self.root.operands) > 3:
            inside = e.bound(select(at > last, last, at), 0, self.keys - 1)
            mask = self._mask(inside)
            kept = dtype_of(mask) == "bool"
            score = select(mask, score, lowest) if kept else score + cast(mask, self.dtype)
        return select(hidden, lowest, score)

    def _mask(self, key: DimLike) -> Expr:
        value = self.root.operands[3]
        shape = self.body.type_of(value).shape
        at: Sequence[DimLike] = (*self.batch, self.query, key)
        index = [0 if size == 1 else i for i, size in zip(at, shape, strict=True)]
        return named(self.e.lift(Inliner(self.body, self.e).at(value, index)))

    def _finish(self) -> None:
        e, cut = self.e, self.cut
        zero, one = const(0.0, self.dtype), const(1.0, self.dtype)
        total = named(self.total.get())
        # Nothing seen: zeros.
        empty = arithmetic.compare("eq", total, zero)
        scale = named(select(empty, zero, one / total))
        runs = self.sums.count // cut.vector
        with loop(runs, unroll=True) as r, e.scope():
            run = e.bound(r, 0, runs - 1)
            base = e.bound(e.expr(run * cut.parts + self.part), 0, cut.width // cut.vector - 1)
            at, values = [], []
            for j in range(cut.vector):
                at.append((*self.batch, self.query, base * cut.vector + j))
                place: Any = e.expr(run * cut.vector + j)
                values.append(named(self.sums.load(place) * scale))
            self.epilogue.store_run(at, values)
