"""How reductions over leading dimensions are dealt out to threads, blocks and launches; see `columns.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Pattern
from graphc.lowering.cuda.accumulate import Accumulator
from graphc.lowering.cuda.emit import PROCESSORS, VECTOR_BYTES
from graphc.lowering.cuda.emitter import divides
from graphc.ops.numerics import working
from graphc.ops.reduce import Reduce

__all__ = ["AHEAD", "THREADS", "Plan", "Sum", "make_plan"]

THREADS = 256
"""Of a block."""

AHEAD = 4
"""Rows that a thread loads before it adds."""

_ALONE = 32  # rows of a thread that are over before another launch would have begun; a guess, not a measurement
_LEAST = 8  # rows of a thread in a part
_BLOCKS = 2 * PROCESSORS
_OPEN = 1 << 16  # rows of an open size


@dataclass(frozen=True)
class Sum:
    """One reduction; `level` counts the passes over the rows it waits for."""

    node: Node
    level: int

    @property
    def kind(self) -> str:
        """The emitter's name of it."""
        assert isinstance(self.node.op, Reduce)
        return self.node.op.function

    @property
    def work(self) -> DType:
        """What it is accumulated in."""
        return working(self.node.types[0].dtype)

    def accumulator(self, long: bool) -> Accumulator:
        """For one thread's terms."""
        return Accumulator(self.kind, self.work, long)


@dataclass(frozen=True)
class Plan:
    """What is reduced, and how it is dealt out.

    Attributes:
        body: in primitives.
        sums: the reductions.
        rows: the dimensions reduced over.
        kept: those of the results.
        lanes: neighbouring threads with columns of their own.
        run: neighbouring columns of a thread.
        parts: blocks that share the rows.
    """

    body: Graph
    sums: tuple[Sum, ...]
    rows: tuple[DimLike, ...]
    kept: tuple[int, ...]
    lanes: int
    run: int
    parts: int

    @property
    def columns(self) -> int:
        """How many results each reduction has."""
        count = product(self.kept)
        assert isinstance(count, int)
        return count

    @property
    def levels(self) -> int:
        """Passes over the rows."""
        return max(s.level for s in self.sums)

    def blocks(self, run: int) -> int:
        """Blocks that the columns make."""
        return -(-self.columns // (self.lanes * run))

    def place(self, number: int, part: DimLike, column: DimLike) -> DimLike:
        """The byte of scratch memory where a part of a sum is; part `parts` is the whole."""
        return ((part + number * (self.parts + 1)) * self.columns + column) * 8

    @property
    def scratch(self) -> int:
        """Bytes of it."""
        return len(self.sums) * (self.parts + 1) * self.columns * 8 if self.parts > 1 else 0


def make_plan(
    body: Graph, nodes: Sequence[Node], rows: tuple[DimLike, ...], kept: tuple[int, ...]
) -> Plan:
    """The plan of a body's reductions `nodes` over `rows`, whose results are of shape `kept`."""
    level: dict[int, int] = {}
    for node in body.nodes:
        before = max((level[v.node] for v in node.operands), default=0)
        level[node.id] = before + (node.op.pattern is Pattern.REDUCE)
    large = [n.types[0] for n in body.inputs if n.types[0].rank > len(kept)]
    widest = max((t.dtype.bytes for t in large), default=VECTOR_BYTES)
    run = VECTOR_BYTES // widest
    while run > 1 and not divides(run, kept[-1] if kept else 1):
        run //= 2
    columns, lanes = product(kept), 1
    assert isinstance(columns, int)
    while lanes < 32 and lanes * run < columns:
        lanes *= 2
    count = product(rows)
    each = -(-(count if isinstance(count, int) else _OPEN) // (THREADS // lanes))
    blocks = -(-columns // (lanes * run))
    parts = max(1, min(each // _LEAST, _BLOCKS // blocks)) if each > _ALONE else 1
    sums = tuple(Sum(n, level[n.id]) for n in nodes)
    return Plan(body, sums, rows, kept, lanes, run, parts)
