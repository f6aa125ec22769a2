"""One block of queries of an attention: its memory, and the four steps over it.

See :mod:`graphc.lowering.cpu.families.attention.kernel` for the why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphc.lowering.cpu import vmath
from graphc.lowering.cpu.cell import Cell
from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    Registers,
    View,
    bind,
    ceil_div,
    const,
    dtype_of,
    i64,
    loop,
    minimum_extent,
    select,
    splat,
    static,
    vector_pieces,
    when,
)
from graphc.lowering.cpu.families.attention.spec import AttentionSpec, Mask, key_block
from graphc.lowering.cpu.families.dense.accumulate import accumulate
from graphc.lowering.cpu.families.dense.copied import transposed
from graphc.lowering.cpu.families.dense.spec import MatmulSpec, MatmulTile, register_rows
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.tiling import RowTiles

__all__ = ["Block", "room"]


def room(spec: AttentionSpec, lanes: int, vectors: int) -> int:
    """Elements of memory for one block; see `Block`."""
    size = vectors * lanes
    padded = -(-spec.width // lanes) * lanes
    return max(spec.depth * size, lanes * lanes) + (key_block(spec) + padded + 3) * size


class Block:
    """One block of queries.

    Its memory: the queries ``[i][query]``, the scores ``[key][query]``, the results ``[j][query]``,
    and for each query the maximum so far, the one before, and the sum.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        target: CpuTarget,
        memory: View,
        vectors: int,
        batch: Sequence[Extent],
        first: Extent,
        last: bool,
    ) -> None:
        self.spec, self.batch, self.first, self.last = spec, tuple(batch), first, last
        self.lanes, self.vectors = target.lanes(spec.dtype), vectors
        self.size = size = vectors * self.lanes
        self.rows = register_rows(target, vectors)
        if spec.causal and self.rows > 8:
            self.rows = 8  # the diagonal is at a multiple of the vectors' length
        self.keys = key_block(spec)
        self.online = static(spec.keys) != self.keys
        padded = -(-spec.width // self.lanes) * self.lanes
        at = 0

        def part(rows: int, least: int = 0) -> View:
            nonlocal at
            view = View(memory.buffer, spec.dtype, (size, 1), memory.offset + at)
            at += max(rows * size, least)
            return view

        self.queries = part(spec.depth, self.lanes * self.lanes)
        self.scores, self.results = part(self.keys), part(padded)
        self.most, self.before, self.sum = part(1), part(1), part(1)
        # Scores in units of log2 make the exponential cheaper.
        self.unit = math.log2(math.e) if spec.dtype == "float32" else 1.0

    def emit(self, q: View, k: View, v: View, mask: Mask | None, finish: Finish) -> None:
        """The whole block."""
        self._load_queries(q)
        self._start()
        total: Extent = self.spec.keys
        if self.spec.causal:
            total = minimum_extent(total, i64(self.first) + self.size)
            total = total if static(total) is not None else bind(i64(total))
        if not self.online:
            self._attend(k, v, mask, 0, total)
        else:
            with loop(ceil_div(total, self.keys)) as number:
                begin = bind(i64(number * self.keys))
                count = bind(i64(minimum_extent(i64(total) - begin, self.keys)))
                self._attend(k, v, mask, begin, count)
        self._store(finish)

    def _const(self, value: float) -> Expr:
        return const(value, self.spec.dtype, self.lanes)

    def _row(self, query: Extent) -> Extent:
        """A query that may be read: the last one stands in for those beyond it."""
        return minimum_extent(query, i64(self.spec.queries) - 1) if self.last else query

    def _load_queries(self, q: View) -> None:
        """Transposes the block's queries, by squares in registers."""
        lanes = self.lanes
        whole, rest = divmod(self.spec.depth, lanes)
        with loop(self.vectors) as c:
            rows = [bind(i64(self._row(self.first + c * lanes + i))) for i in range(lanes)]
            if whole:
                with loop(whole) as square:
                    vectors = [bind(q.load((*self.batch, r, square * lanes), lanes)) for r in rows]
                    for j, vector in enumerate(transposed(vectors)):
                        self.queries.store(vector, (square * lanes + j, c * lanes))
            if rest:
                with loop(rest) as j:
                    for i, row in enumerate(rows):
                        value = q.load((*self.batch, row, whole * lanes + j))
                        self.queries.store(value, (whole * lanes + j, c * lanes + i))

    def _start(self) -> None:
        for c in range(0, self.size, self.lanes):
            self.most.store(self._const(-math.inf), (0, c))
            self.sum.store(self._const(0.0), (0, c))
            if self.online:
                with loop(self.spec.width) as j:
                    self.results.store(self._const(0.0), (j, c))

    def _attend(self, k: View, v: View, mask: Mask | None, begin: Extent, count: Extent) -> None:
        """Scores, their powers, and what they take of the values, for a block of keys."""
        if self.online:
            for c in range(0, self.size, self.lanes):
                self.before.store(self.most.load((0, c), self.lanes), (0, c))
        tiles = RowTiles(count, self.rows)
        with loop(tiles.number) as number:
            tiles.emit(number, 1, lambda key, rows: self._score(k, mask, begin, key, rows))
        self._raise(count)
        # Values are the rows of the second product's left operand: [j][key].
        strides = (*v.strides[:-2], v.strides[-1], v.strides[-2])
        turned = View(v.buffer, v.dtype, strides, v.offset + begin * v.strides[-2])
        tiles = RowTiles(self.spec.width, self.rows)
        with loop(tiles.number) as number:
            tiles.emit(number, 1, lambda j, rows: self._take(turned, count, j, rows))

    def _multiply(
        self,
        a: View,
        b: View,
        depth: Extent,
        row: Extent,
        rows: int,
        start: Callable[[Registers], None] | None = None,
    ) -> Registers:
        spec = MatmulSpec(0, self.size, depth, self.batch, "rows", self.spec.dtype)
        tile = MatmulTile(rows, self.size, self.lanes, False, 1, False, 0)
        return accumulate(
            spec,
            tile,
            a,
            b,
            self.batch,
            row,
            rows,
            self.size,
            lambda i, column: (i, column),
            start=start,
        )

    def _score(self, k: View, mask: Mask | None, begin: Extent, key: Extent, rows: int) -> None:
        """The scores of some keys, counted from ``begin``."""
        acc = self._multiply(k, self.queries, self.spec.depth, begin + key, rows)
        for column, lanes in vector_pieces(self.size, self.lanes):
            most = bind(self.most.load((0, column), lanes))
            for i in range(rows):
                value = acc.get(i, column, lanes) * self._const(self.spec.scale * self.unit)
                value = bind(self._masked(value, mask, begin + key + i, column))
                self.scores.store(value, (key + i, column))
                most = bind(select(value > most, value, most))
            self.most.store(most, (0, column))

    def _masked(self, value: Expr, mask: Mask | None, key: Extent, column: int) -> Expr:
        from tvm.script.ir_builder import tirx as t

        query, hidden = i64(self.first + column), self._const(-math.inf)
        if mask is not None:
            found = mask(self.batch, query, self.last, key, self.lanes)
            if dtype_of(found) == "bool":
                value = select(splat(found, self.lanes), value, hidden)
            else:
                value = value + splat(found, self.lanes) * self._const(self.unit)
        if self.spec.causal:
            behind = t.Cast("int32", i64(key) - query)
            order = t.ramp(t.int32(0), t.int32(1), self.lanes)
            value = select(splat(behind, self.lanes) > order, hidden, value)
        return value

    def _power(self, x: Expr) -> Expr:
        return vmath.exp2_nonpositive(x) if self.spec.dtype == "float32" else vmath.exp(x)

    def _raise(self, count: Extent) -> None:
        """Scores become powers below the maximum, and are summed up."""
        lanes = self.lanes
        columns = [c for c, _ in vector_pieces(self.size, lanes)]
        tops, sums = [], []
        for c in columns:
            most = bind(self.most.load((0, c), lanes))
            # Nothing seen yet: any finite number will do.
            top = bind(select(most > self._const(-math.inf), most, self._const(0.0)))
            top = bind(select(vmath.is_nan(most), most, top))
            tops.append(top)
            cell = Cell(lanes, self.spec.dtype)
            sums.append(cell)
            found = self.sum.load((0, c), lanes)
            if self.online:
                shrunk = bind(self._power(self.before.load((0, c), lanes) - top))
                self.before.store(shrunk, (0, c))
                found = found * shrunk
            cell.set(found)
        with loop(count) as key:
            for c, top, cell in zip(columns, tops, sums, strict=True):
                power = bind(self._power(self.scores.load((key, c), lanes) - top))
                self.scores.store(power, (key, c))
                cell.set(cell.get() + power)
        for c, cell in zip(columns, sums, strict=True):
            self.sum.store(cell.get(), (0, c))

    def _take(self, turned: View, count: Extent, j: Extent, rows: int) -> None:
        """Adds the values' elements ``j`` to ``j + rows``, weighted, to the results."""
        pieces = vector_pieces(self.size, self.lanes)

        def shrunk(acc: Registers) -> None:
            for i in range(rows):
                for c, lanes in pieces:
                    held = self.results.load((j + i, c), lanes)
                    acc.set(held * self.before.load((0, c), lanes), i, c)

        start = shrunk if self.online else None
        acc = self._multiply(turned, self.scores, count, j, rows, start)
        for i in range(rows):
            for c, lanes in pieces:
                self.results.store(acc.get(i, c, lanes), (j + i, c))

    def _store(self, finish: Finish) -> None:
        """Divides by the sums, turns the results round and hands them on, a square at a time."""
        lanes = self.lanes
        whole, rest = divmod(self.spec.width, lanes)
        with loop(self.vectors) as c:
            total = bind(self.sum.load((0, c * lanes), lanes))
            none = total == self._const(0.0)
            factor = bind(select(none, self._const(0.0), self._const(1.0) / total))
            if whole:
                with loop(whole) as square:
                    at = square * lanes
                    for i, vector in enumerate(self._turned(c * lanes, at, lanes, factor)):
                        self._give(finish, c * lanes + i, at, [(vector, 0, lanes)])
            if rest:
                at = whole * lanes
                room = View(self.queries.buffer, self.spec.dtype, (lanes, 1), self.queries.offset)
                for i, vector in enumerate(self._turned(c * lanes, at, rest, factor)):
                    room.store(vector, (i, 0))
                for i in range(lanes):
                    parts = [(room.load((i, j), n), j, n) for j, n in vector_pieces(rest, lanes)]
                    self._give(finish, c * lanes + i, at, parts)

    def _turned(self, column: Extent, j: Extent, count: int, factor: Expr) -> list[Expr]:
        """Elements ``j`` to ``j + count`` of the results of some queries, a vector for each query."""
        lanes = self.lanes
        rows = [bind(self.results.load((j + i, column), lanes) * factor) for i in range(count)]
        return transposed(rows + [self._const(0.0)] * (lanes - count))

    def _give(
        self, finish: Finish, column: Extent, j: Extent, parts: Sequence[tuple[Expr, int, int]]
    ) -> None:
        """Hands on parts ``(value, offset, lanes)`` of a query's result, if there is such a query."""
        query = bind(i64(self.first + column))

        def give() -> None:
            for value, offset, lanes in parts:
                finish((*self.batch, query, j + offset), value, lanes)

        if not self.last:
            give()
            return
        with when(query < i64(self.spec.queries)):
            give()
