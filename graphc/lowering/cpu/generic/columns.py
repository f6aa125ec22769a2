"""Sums over all dimensions but the last, several at once: statistics of a batch, gradients of biases and norms.

Everything of one stage is summed in one pass over the rows. A later stage needs an earlier one's results (a variance
its mean) and passes over the rows again, which are still in cache. Rows are cut into blocks: a block is summed in
registers, then added to the sums of a part, and the parts, whose number does not depend on the threads, are added up at
the end. So long sums stay accurate. What follows the sums is computed once, for vectors of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphc.ir.dim import DimLike, product
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Pattern
from graphc.lowering.cpu import arithmetic
from graphc.lowering.cpu.cell import Cell
from graphc.lowering.cpu.emit import (
    Expr,
    View,
    bind,
    cast,
    const,
    i64,
    loop,
    splat,
    when,
    worth_threads,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic.expr import TirEmitter
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel
from graphc.lowering.generic.index import Space, unflatten
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.trace import checked_nodes
from graphc.ops import BroadcastInDim, Fusion
from graphc.passes.columns import column_sums

__all__ = ["accepts", "emit", "kernel", "scratch_bytes"]

_BLOCK = 64  # rows that are summed in registers
_PARTS = 8  # sums of parts of the rows, and so the most tasks that run at once
_WIDE = 4  # registers of one sum, where there are few sums


def accepts(fusion: Fusion, target: CpuTarget) -> bool:
    """True for sums over columns, and what is elementwise before and after them."""
    return column_sums(fusion.body) is not None and not _checked(fusion.body)


def _checked(body: Graph) -> bool:
    return bool(checked_nodes(body))


def _levels(body: Graph) -> dict[int, int]:
    """How many passes over the rows each node waits for."""
    level: dict[int, int] = {}
    for node in body.nodes:
        before = max((level[v.node] for v in node.operands), default=0)
        level[node.id] = before + (node.op.pattern is Pattern.REDUCE)
    return level


def _stages(body: Graph) -> list[list[Node]]:
    """The sums by the pass that makes them."""
    level = _levels(body)
    sums = [n for n in body.nodes if n.op.pattern is Pattern.REDUCE]
    last = max(level[n.id] for n in sums)
    return [[n for n in sums if level[n.id] == at] for at in range(1, last + 1)]


def _itemsize(body: Graph) -> int:
    return max(n.types[0].dtype.bytes for stage in _stages(body) for n in stage)


def scratch_bytes(fusion: Fusion) -> int:
    """Bytes of scratch memory: the sums, and those of the parts of one stage."""
    shape = column_sums(fusion.body)
    assert shape is not None and isinstance(shape[-1], int)
    stages = _stages(fusion.body)
    slots = sum(map(len, stages)) + _PARTS * max(map(len, stages))
    return slots * shape[-1] * _itemsize(fusion.body)


def kernel(fusion: Fusion, target: CpuTarget) -> Kernel:
    """The kernel of a fusion that `accepts` takes."""
    size = _itemsize(fusion.body)
    return Kernel(
        "columns", partial(emit, fusion, target), scratch_bytes(fusion), f"float{8 * size}"
    )


def emit(fusion: Fusion, target: CpuTarget, io: KernelIO) -> None:
    """Writes the passes into the open kernel frame."""
    _Columns(fusion.body, target, io).emit()


class _Columns:
    def __init__(self, body: Graph, target: CpuTarget, io: KernelIO) -> None:
        shape = column_sums(body)
        assert shape is not None and isinstance(shape[-1], int) and io.scratch is not None
        self.body, self.io, self.shape, self.columns = body, io, shape, shape[-1]
        self.rows = product(shape[:-1])
        self.stages, self.levels = _stages(body), _levels(body)
        self.e = TirEmitter(Space(body.dims), io, target)
        self.dtype = io.scratch.dtype
        self.lanes = target.lanes(self.dtype)
        total = sum(map(len, self.stages))
        memory, offset = io.scratch.buffer, io.scratch.offset
        self.sums = View(memory, self.dtype, (self.columns, 1), offset)
        most = max(map(len, self.stages))
        self.parts = View(
            memory,
            self.dtype,
            (most * self.columns, self.columns, 1),
            offset + total * self.columns,
        )

    def emit(self) -> None:
        done: list[Node] = []
        for stage in self.stages:
            self._sum(stage, done)
            self._add_up(stage, len(done))
            done += stage
        self._finish(done)

    def _widths(self, sums: int) -> tuple[int, ...]:
        wide = self.lanes * max(1, min(_WIDE, 8 // sums))
        ladder = [1 << p for p in reversed(range(wide.bit_length()))]
        return tuple(w for w in ladder if w <= self.columns)

    def _sum(self, stage: Sequence[Node], done: Sequence[Node]) -> None:
        """One pass over the rows."""
        from tvm.script.ir_builder import tirx as t

        e = self.e
        reads = sum(
            n.types[0].nbytes for n in self.body.inputs if isinstance(n.types[0].nbytes, int)
        )
        threads = not isinstance(self.rows, int) or worth_threads(0, reads)
        share = (self.rows + (_PARTS - 1)) // _PARTS
        with loop(_PARTS, parallel=threads) as part, e.scope():
            start = bind(part * e.expr(share))
            left = bind(t.max(t.min(e.expr(self.rows) - start, e.expr(share)), i64(0)))
            with loop(bind(t.max(t.truncdiv(left + (_BLOCK - 1), i64(_BLOCK)), i64(1)))) as block:
                first = bind(start + block * _BLOCK)
                count = bind(t.min(left - block * _BLOCK, i64(_BLOCK)))
                for c, width in e.stretches(0, self.columns, self._widths(len(stage))):
                    self._block(stage, done, part, block, first, count, c, width)

    def _block(
        self,
        stage: Sequence[Node],
        done: Sequence[Node],
        part: Expr,
        block: Expr,
        first: Expr,
        count: Expr,
        c: DimLike,
        width: int,
    ) -> None:
        """The sums of some columns over one block of rows."""
        e = self.e
        cells = [Cell(width, self.dtype) for _ in stage]
        for cell in cells:
            cell.set(const(0.0, self.dtype))
        with e.vector(width) as lane:
            inliner = Inliner(self.body, e)
            self._give(inliner, done, c + lane)
            self._vectors(inliner, stage, c + lane)
            with loop(count) as i, e.scope():
                row = e.bound(first + i, 0, self.rows - 1)
                at = (*unflatten(row, self.shape[:-1]), c + lane)
                for cell, node in zip(cells, stage, strict=True):
                    term = e.lift(inliner.at(node.operands[0], at))
                    cell.set(arithmetic.binary("add", cell.get(), self._whole(term, width)))
        column = e.expr(c)
        for j, cell in enumerate(cells):
            place = (part, j, column)
            value = cell.get()
            with when(i64(block) != i64(0)):
                self.parts.store(self.parts.load(place, width) + value, place)
            with when(i64(block) == i64(0)):
                self.parts.store(value, place)

    def _vectors(self, inliner: Inliner, stage: Sequence[Node], column: DimLike) -> None:
        """Computes before the rows what is the same for all of them: a vector over columns that a pass reads."""
        level = self.stages.index(list(stage))
        for node in self.body.nodes:
            if isinstance(node.op, BroadcastInDim) and node.op.dims == (len(self.shape) - 1,):
                (vector,) = node.operands
                if self.levels[vector.node] <= level and node.types[0].shape == self.shape:
                    inliner.at(vector, (column,))

    def _whole(self, term: Expr, width: int) -> Expr:
        return cast(splat(term, width), self.dtype)

    def _add_up(self, stage: Sequence[Node], first: int) -> None:
        """The sums of all parts."""
        for c, width in self.e.stretches(0, self.columns, self._widths(8)):
            column = self.e.expr(c)
            for j in range(len(stage)):
                value = self.parts.load((0, j, column), width)
                for part in range(1, _PARTS):
                    value = value + self.parts.load((part, j, column), width)
                self.sums.store(value, (first + j, column))

    def _give(self, inliner: Inliner, done: Sequence[Node], column: DimLike) -> None:
        """Tells the results of earlier passes, for the current vector of columns."""
        e = self.e
        for j, node in enumerate(done):
            name = arithmetic.tir_name(node.types[0].dtype)
            start = e.expr(column - e.lane)
            value = bind(self.sums.load((j, start), e.lanes))
            inliner.give(node.values[0], (column,), cast(value, name))

    def _finish(self, done: Sequence[Node]) -> None:
        """What follows the sums."""
        e = self.e
        for c, width in e.stretches(0, self.columns, self._widths(8)):
            with e.vector(width) as lane:
                inliner = Inliner(self.body, e)
                self._give(inliner, done, c + lane)
                found = [inliner.at(v, (c + lane,)) for _, v in self.body.outputs]
                for view, value in zip(self.io.results, found, strict=True):
                    e.write(view, c + lane, value)
