"""Products of two operands of the run, block by block: gradients of weights `dY^T @ X` and of inputs `dY @ W`.

Such operands lie as other kernels left them, often with rows a power of two apart, which crowd few sets of the caches.
So a task, some rows by some columns of the result, copies what it is about to read: for each block of depth some panels
of B at a time, ``[panel][k][nr]``, and where neighbours along the rows of the result are neighbours in memory (A
turned) its rows of A, ``[tile][k][mr]``. Tiles then read both in the order of memory from the nearest caches. Where there are several
blocks, sums wait in the task's own memory. The depth may be two dimensions that do not merge, in either operand's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from graphc.lowering.cpu.emit import (
    Extent,
    Finish,
    Registers,
    View,
    bind,
    branch,
    ceil_div,
    const,
    floor_div,
    i64,
    loop,
    maximum_extent,
    minimum_extent,
    product,
    static,
    unflatten,
    vector_pieces,
    when,
    worth_threads,
)
from graphc.lowering.cpu.families.dense.matmul import accumulate, transposed
from graphc.lowering.cpu.families.dense.spec import MatmulSpec, MatmulTile, choose_matmul
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import slot_loop
from graphc.lowering.cpu.tiling import RowTiles

__all__ = ["BlockedSpec", "BlockedTile", "blocked_scratch", "choose_blocked", "emit_blocked"]

_PANEL_BYTES = 24 * 1024  # of B, in the first-level cache
_LEAST_DEPTH = 192  # of a block, whatever its panel takes
_ONE_GO = 512  # steps up to which there is one block
_NEAR_BYTES = 256 * 1024  # of copies and sums in the second-level cache
_TYPICAL_DEPTH = 1024  # of a batch whose size only the run knows
_TYPICAL_ROWS = 512  # the same of rows
_COPY = 0.8  # of an element of an operand, in multiply-adds of vectors
_THREADS = (2, 4)  # that should share tasks evenly
_MOST_TASKS = 64
_TOGETHER = 4  # panels of B that are copied at a time: short runs of memory come slowly
_ROWS = 64  # of a task, to make up for its copies of B
_SLOTS = 16  # tasks that run at once, at most


@dataclass(frozen=True)
class BlockedSpec:
    """What is multiplied: ``C[m, n] = sum over k of A[m, k] B[k, n]``.

    Attributes:
        m, n: extents; n is static, and m where A is turned.
        k: one or two extents, slowest first.
        turned: neighbours along m, not along the last of k, are neighbours in A.
        columns: neighbours along the last of k, not along n, are neighbours in B.
        dtype: element type of all.
    """

    m: Extent
    n: int
    k: tuple[Extent, ...]
    turned: bool
    columns: bool = False
    dtype: str = "float32"

    @property
    def depth(self) -> Extent:
        """All steps."""
        return product(self.k)

    @property
    def flops(self) -> Extent:
        """Floating-point operations, a multiply-add counting two."""
        return product((2, self.m, self.n, self.depth))


@dataclass(frozen=True)
class BlockedTile:
    """How a product is cut up.

    Attributes:
        mr, nr, lanes: rows and columns of a register tile, elements of a vector.
        block: steps of a block of depth.
        several: whether there may be more than one block.
        rows: tiles along m of a task.
        panels: panels along n of a task.
        slots: tasks that can run at once.
    """

    mr: int
    nr: int
    lanes: int
    block: int
    several: bool
    rows: int
    panels: int
    slots: int

    def places(self, spec: BlockedSpec) -> tuple[int, int, int]:
        """Elements of a task's copies of A and of B, and of its sums."""
        height = self.rows * self.mr
        a = self.rows * self.tile_size(spec) if spec.turned else 0
        sums = self.panels * height * self.nr if self.several else 0
        return a, self.together * self.block * self.nr, sums

    def tile_size(self, spec: BlockedSpec) -> int:
        """Elements from the copy of a tile's rows to the next: an odd number of cache lines, for different sets."""
        line = 64 // np.dtype(spec.dtype).itemsize
        return (-(-self.block * self.mr // line) | 1) * line

    @property
    def together(self) -> int:
        """Panels that are copied at a time."""
        return min(_TOGETHER, self.panels)


def choose_blocked(spec: BlockedSpec, target: CpuTarget) -> BlockedTile | None:
    """The tile for a product, or None where it is too small to make up for the copies."""
    item = np.dtype(spec.dtype).itemsize
    known, height = static(spec.depth), static(spec.m)
    few = MatmulSpec(spec.m, spec.n, min(known or 256, 256), (), "rows", spec.dtype)
    inner = choose_matmul(few, target)
    mr, nr, lanes = inner.mr, inner.nr, inner.lanes
    panels = -(-spec.n // nr)
    block = _block(known, max(_LEAST_DEPTH, _PANEL_BYTES // (nr * item)))
    if (height or _ROWS) < _ROWS or panels < 2 or block < 2 * mr or not worth_threads(spec.flops):
        return None
    several = known is None or known > block
    depth = known or _TYPICAL_DEPTH
    tiles = -(-(height or _TYPICAL_ROWS) // mr)
    best: tuple[float, int, int] | None = None
    for chunks in range(1, tiles + 1):
        rows = -(-tiles // chunks)
        if rows != tiles and (rows * mr < _ROWS or _number(tiles, rows) != chunks):
            continue
        for groups in range(1, panels + 1):
            across = -(-panels // groups)
            tasks = chunks * groups
            if _number(panels, across) != groups or tasks > _MOST_TASKS:
                continue
            m, n = rows * mr, across * nr
            cost = _cost(m, n, depth, lanes, -(-depth // block), spec.turned)
            # Copies and sums that leave the second-level cache come back from the next.
            near = (block * m * item if spec.turned else 0) + (m * n * item if several else 0)
            cost *= 1 + 0.1 * max(0.0, near / _NEAR_BYTES - 1)
            cost *= max(_number(tasks, t) * t / tasks for t in _THREADS)
            if best is None or cost * tasks < best[0]:
                best = (cost * tasks, rows, across)
    assert best is not None
    _, rows, across = best
    tasks = _number(tiles, rows) * _number(panels, across)
    slots = _SLOTS if height is None else min(_SLOTS, tasks)
    return BlockedTile(mr, nr, lanes, block, several, rows, across, slots)


def _block(depth: int | None, most: int) -> int:
    """Steps of a block: all of a short depth, else a divisor of it where there is one."""
    if depth is None or depth <= _ONE_GO:
        return depth or most
    even = [size for size in range(most // 2, most + 1) if depth % size == 0]
    return max(even, default=-(-depth // -(-depth // most)))


def _cost(m: int, n: int, depth: int, lanes: int, blocks: int, turned: bool) -> float:
    """What a task of m rows and n columns takes, in multiply-adds of vectors."""
    copies = depth * (n * _COPY + m * (_COPY if turned else _COPY / 3))
    sums = m * n / lanes * 4 * (blocks - 1)
    return m * n * depth / lanes + copies + sums


def _number(count: int, size: int) -> int:
    return -(-count // size)


def blocked_scratch(spec: BlockedSpec, tile: BlockedTile) -> int:
    """Bytes of scratch memory that :func:`emit_blocked` needs."""
    return tile.slots * sum(tile.places(spec)) * np.dtype(spec.dtype).itemsize


def emit_blocked(
    spec: BlockedSpec, tile: BlockedTile, a: View, b: View, finish: Finish, scratch: View
) -> None:
    """Emits the loops of a product into the open kernel.

    Args:
        spec: what is multiplied.
        tile: `choose_blocked`'s.
        a: read at ``(m, *k)``.
        b: read at ``(*k, n)``, or, if ``spec.columns``, at ``(n, *k)``.
        finish: receives results at ``(m, n)``.
        scratch: a flat view of ``blocked_scratch`` bytes.
    """
    _Blocks(spec, tile, a, b, finish, scratch).run()


@dataclass(frozen=True)
class _Blocks:
    spec: BlockedSpec
    tile: BlockedTile
    a: View
    b: View
    finish: Finish
    scratch: View

    def run(self) -> None:
        spec, tile = self.spec, self.tile
        tiles, panels = RowTiles(spec.m, tile.mr), -(-spec.n // tile.nr)
        chunks, groups = ceil_div(tiles.number, tile.rows), _number(panels, tile.panels)
        blocks = maximum_extent(ceil_div(spec.depth, tile.block), 1)
        a_size, b_size, sums_size = tile.places(spec)

        def task(slot: Extent, indices: Sequence[Extent], _fresh: object) -> None:
            chunk, group = indices
            base = self.scratch.offset + slot * (a_size + b_size + sums_size)
            rows = self._own(base, (tile.tile_size(spec), 1, tile.mr))
            near = self._own(base + a_size, (tile.block * tile.nr, tile.nr, 1))
            sums = self._own(base + a_size + b_size, (tile.rows * tile.mr * tile.nr, tile.nr, 1))
            with loop(blocks) as number:
                first = number * tile.block
                count = self._count(first)
                if spec.turned:
                    self._copy_rows(tiles, chunk, first, count, rows)
                with loop(ceil_div(tile.panels, tile.together)) as some:
                    begin = group * tile.panels + some * tile.together
                    self._copy_panels(begin, first, count, near)
                    with loop(tile.together) as p:
                        panel = begin + p

                        def columns(width: int) -> None:
                            columns_of = self._own(near.position((p, 0, 0)), (tile.nr, 1))

                            def one(row: Extent, height: int, i: Extent) -> None:
                                place = (some * tile.together + p, i * tile.mr, 0)
                                self._multiply(
                                    (row, panel, number),
                                    (height, width),
                                    (first, count),
                                    self._own(rows.position((i, 0, 0)), (1, tile.mr)),
                                    columns_of,
                                    self._own(sums.position(place), (tile.nr, 1)),
                                    blocks,
                                )

                            tiles.emit_numbered(chunk, tile.rows, one)

                        with self._within(panel, some * tile.together + p):
                            self._widths(panel, columns)

        slot_loop((chunks, groups), tile.slots, task)

    def _own(self, offset: Extent, strides: tuple[int, ...]) -> View:
        return View(self.scratch.buffer, self.spec.dtype, strides, bind(i64(offset)))

    def _count(self, first: Extent) -> Extent:
        """Steps of a block."""
        known = static(self.spec.depth)
        if known is not None and known % self.tile.block == 0:
            return self.tile.block
        left = minimum_extent(self.spec.depth - first, self.tile.block)
        found = maximum_extent(left, 0)
        return found if isinstance(found, int) else bind(i64(found))

    @contextmanager
    def _within(self, panel: Extent, number: Extent) -> Iterator[None]:
        """Runs the body for panels of the result and of the task, which may end between panels copied together."""
        tile, panels = self.tile, -(-self.spec.n // self.tile.nr)
        with ExitStack() as stack:
            if panels % tile.panels or tile.panels % tile.together:
                stack.enter_context(when(i64(panel) < i64(panels)))
            if tile.panels % tile.together:
                stack.enter_context(when(i64(number) < i64(tile.panels)))
            yield

    def _widths(self, panel: Extent, body: Callable[[int], None]) -> None:
        """``body(columns)`` for a panel, which may be the last and narrower."""
        full, rest = divmod(self.spec.n, self.tile.nr)
        if not rest:
            body(self.tile.nr)
        else:
            branch(i64(panel) < i64(full), lambda: body(self.tile.nr), lambda: body(rest))

    def _copy_rows(
        self, tiles: RowTiles, chunk: Extent, first: Extent, count: Extent, into: View
    ) -> None:
        """Copies a task's rows of A, which lie side by side in memory at each step."""
        with loop(count) as i:
            at = unflatten(first + i, self.spec.k)

            def piece(row: Extent, height: int, number: Extent) -> None:
                for r, lanes in vector_pieces(height, self.tile.lanes):
                    source = View(
                        self.a.buffer, self.a.dtype, (1,), self.a.position((row + r, *at))
                    )
                    to = View(into.buffer, into.dtype, (1,), into.position((number, r, i)))
                    to.store(source.load((0,), lanes), (0,))

            tiles.emit_numbered(chunk, self.tile.rows, piece)

    def _copy_panels(self, begin: Extent, first: Extent, count: Extent, into: View) -> None:
        """Copies a block of the panels that are multiplied next."""
        together = self.tile.together

        def each(body: Callable[[Extent, Extent, int], None]) -> None:
            for p in range(together):
                panel = begin + p
                with self._within(
                    panel, panel - floor_div(panel, self.tile.panels) * self.tile.panels
                ):
                    self._widths(panel, lambda width, p=p, panel=panel: body(p, panel, width))  # type: ignore[misc]

        if not self.spec.columns:
            with loop(count) as i:
                at = unflatten(first + i, self.spec.k)

                def row(p: Extent, panel: Extent, width: int) -> None:
                    for c, size in vector_pieces(width, self.tile.lanes):
                        into.store(self.b.load((*at, panel * self.tile.nr + c), size), (p, i, c))

                each(row)
            return
        each(lambda p, panel, width: self._turn(p, panel, width, first, count, into))

    def _turn(
        self, p: Extent, panel: Extent, width: int, first: Extent, count: Extent, into: View
    ) -> None:
        """Copies a block of a panel whose columns lie one after the other."""
        start, lanes = panel * self.tile.nr, self.tile.lanes
        known = static(count)
        whole = known - known % lanes if known is not None and width % lanes == 0 else 0
        with loop(whole // lanes) as i:
            for c in range(0, width, lanes):
                lines = [
                    bind(self.b.load((start + c + j, first + i * lanes), lanes))
                    for j in range(lanes)
                ]
                for j, vector in enumerate(transposed(lines)):
                    into.store(vector, (p, i * lanes + j, c))
        with loop(count - whole) as i:
            for c in range(width):
                value = self.b.load((start + c, first + whole + i))
                into.store(value, (p, whole + i, c))

    def _multiply(
        self,
        place: tuple[Extent, Extent, Extent],
        size: tuple[int, int],
        steps: tuple[Extent, Extent],
        rows: View,
        panel: View,
        sums: View,
        blocks: Extent,
    ) -> None:
        """One register tile over one block; after the last one it is finished."""
        spec, tile = self.spec, self.tile
        (row, at, number), (height, width), (first, count) = place, size, steps
        pieces = vector_pieces(width, tile.lanes)
        a = rows if spec.turned else _Steps(self.a, row, first, spec.k)

        def start(acc: Registers) -> None:
            def zeros() -> None:
                for r in range(height):
                    for c, lanes in pieces:
                        acc.set(const(0.0, spec.dtype, lanes), r, c)

            def resume() -> None:
                for r in range(height):
                    for c, lanes in pieces:
                        acc.set(sums.load((r, c), lanes), r, c)

            if tile.several:
                branch(i64(number) < i64(1), zeros, resume)
            else:
                zeros()

        inner = MatmulTile(tile.mr, tile.nr, tile.lanes, True, 1, False, 0)
        known = static(count)
        acc = accumulate(
            MatmulSpec(height, width, count, (), "rows", spec.dtype),
            inner,
            a,
            panel,
            (),
            0,
            height,
            width,
            lambda k, column: (k, column),
            depth=count if known is None else None,
            start=start,
        )

        def finished() -> None:
            for r in range(height):
                for c, lanes in pieces:
                    self.finish((row + r, at * tile.nr + c), acc.get(r, c, lanes), lanes)

        def suspended() -> None:
            for r in range(height):
                for c, lanes in pieces:
                    sums.store(acc.get(r, c, lanes), (r, c))

        if tile.several:
            branch(i64(number) < i64(blocks) - 1, suspended, finished)
        else:
            finished()


@dataclass(frozen=True)
class _Steps:
    """Rows of A where they lie, as an operand of one tile and block."""

    a: View
    row: Extent
    first: Extent
    k: tuple[Extent, ...]

    def load(self, index: Sequence[Extent], lanes: int = 1) -> object:
        """See `Operand.load`."""
        r, step = index
        return self.a.load((self.row + r, *unflatten(self.first + step, self.k)), lanes)
