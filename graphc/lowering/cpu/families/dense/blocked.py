"""Products of two operands of the run, block by block: gradients of weights `dY^T @ X` and of inputs `dY @ W`.

Such operands lie as other kernels left them, often with rows a power of two apart, which crowd few sets of the caches.
So a task, some rows by some columns of the result, copies what it is about to read: for each block of depth some panels
of B at a time, ``[panel][k][nr]``, and where neighbours along the rows of the result are neighbours in memory (A
turned) its rows of A, ``[tile][k][mr]``. Tiles then read both in the order of memory from the nearest caches. Where
there are several blocks, sums wait in the task's own memory. The depth may be two dimensions that do not merge, in
either operand's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    Registers,
    View,
    bind,
    branch,
    ceil_div,
    const,
    i64,
    loop,
    maximum_extent,
    minimum_extent,
    static,
    unflatten,
    vector_pieces,
    when,
)
from graphc.lowering.cpu.families.dense.accumulate import accumulate
from graphc.lowering.cpu.families.dense.blocked_spec import (
    FEW_PANELS,
    BlockedSpec,
    BlockedTile,
)
from graphc.lowering.cpu.families.dense.copied import transposed
from graphc.lowering.cpu.families.dense.spec import MatmulSpec, MatmulTile
from graphc.lowering.cpu.sharing import slot_loop
from graphc.lowering.cpu.tiling import RowTiles, hand_over

__all__ = ["emit_blocked"]


def emit_blocked(
    spec: BlockedSpec,
    tile: BlockedTile,
    a: View,
    b: View,
    finish: Finish,
    scratch: View,
    fetch: Callable[[Extent, Extent], None] | None = None,
    *,
    rolled: bool = False,
) -> None:
    """Emits the loops of a product into the open kernel.

    Args:
        spec: what is multiplied.
        tile: `choose_blocked`'s.
        a: read at ``(m, *k)``.
        b: read at ``(*k, n)``, or, if ``spec.columns``, at ``(n, *k)``.
        finish: receives results at ``(m, n)``.
        scratch: a flat view of ``blocked_scratch`` bytes.
        fetch: asks for the cache line of what ``finish`` will read at ``(m, n)``, while the product is under way.
        rolled: whether ``finish`` is long, see `tiling.hand_over`.
    """
    _Blocks(spec, tile, a, b, finish, scratch, fetch, rolled).run()


@dataclass(frozen=True)
class Panel:
    """Some columns: their number in the result, in the task, and among those copied together."""

    number: Extent
    of_task: Extent
    copied: Extent


@dataclass(frozen=True)
class _Blocks:
    spec: BlockedSpec
    tile: BlockedTile
    a: View
    b: View
    finish: Finish
    scratch: View
    fetch: Callable[[Extent, Extent], None] | None
    rolled: bool

    def run(self) -> None:
        spec, tile = self.spec, self.tile
        tiles, panels = RowTiles(spec.m, tile.mr), -(-spec.n // tile.nr)
        chunks, groups = ceil_div(tiles.number, tile.rows), ceil_div(panels, tile.panels)
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

                def one(i: Extent, row: Extent, height: int, panel: Panel, width: int) -> None:
                    place = (panel.of_task, i * tile.mr, 0)
                    self._multiply(
                        (row, panel.number, number),
                        (height, width),
                        (first, count),
                        self._own(rows.position((i, 0, 0)), (1, tile.mr)),
                        self._own(near.position((panel.copied, 0, 0)), (tile.nr, 1)),
                        self._own(sums.position(place), (tile.nr, 1)),
                        blocks,
                    )

                with loop(ceil_div(tile.panels, tile.together)) as some:
                    start = some * tile.together

                    def panel(p: Extent) -> Panel:
                        return Panel(group * tile.panels + start + p, start + p, p)

                    self._copy_panels(panel, first, count, near)
                    self._tiles(tiles, chunk, panel, one)

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

    def _tiles(
        self,
        tiles: RowTiles,
        chunk: Extent,
        panel: Callable[[Extent], Panel],
        one: Callable[[Extent, Extent, int, Panel, int], None],
    ) -> None:
        """The tiles of a task in some panels: ``one(i, row, height, panel, width)`` for each.

        Several blocks keep a panel in the first-level cache while rows pass by. One block's sums go into the result at
        once, so its rows are followed to their end: down a panel, each line of the result would be in another page.
        """
        rows, together = self.tile.rows, self.tile.together

        def across(row: Extent, height: int, i: Extent) -> None:
            with loop(together) as p:
                at = panel(p)
                with self._within(at):
                    self._widths(at, lambda width: one(i, row, height, at, width))

        if not self.tile.several:
            tiles.emit_numbered(chunk, rows, across)
            return
        with loop(together) as p:
            at = panel(p)

            def down(width: int) -> None:
                tiles.emit_numbered(chunk, rows, lambda row, h, i: one(i, row, h, at, width))

            with self._within(at):
                self._widths(at, down)

    @contextmanager
    def _within(self, panel: Panel) -> Iterator[None]:
        """Runs the body for panels of the result and of the task, which may end between panels copied together."""
        tile, panels = self.tile, -(-self.spec.n // self.tile.nr)
        with ExitStack() as stack:
            if panels % tile.panels or tile.panels % tile.together:
                stack.enter_context(when(i64(panel.number) < i64(panels)))
            if tile.panels % tile.together:
                stack.enter_context(when(i64(panel.of_task) < i64(tile.panels)))
            yield

    def _widths(self, panel: Panel, body: Callable[[int], None]) -> None:
        """``body(columns)`` for a panel, which may be the last and narrower."""
        full, rest = divmod(self.spec.n, self.tile.nr)
        if not rest:
            body(self.tile.nr)
        else:
            branch(i64(panel.number) < i64(full), lambda: body(self.tile.nr), lambda: body(rest))

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

    def _copy_panels(
        self, panel: Callable[[Extent], Panel], first: Extent, count: Extent, into: View
    ) -> None:
        """Copies a block of the panels that are multiplied next, a few at a time."""
        few = min(FEW_PANELS, self.tile.together)
        with loop(self.tile.together // few) as turn:

            def each(body: Callable[[Panel, int], None]) -> None:
                for p in range(few):
                    at = panel(turn * few + p)
                    with self._within(at):
                        self._widths(at, lambda width, at=at: body(at, width))  # type: ignore[misc]

            if self.spec.columns:
                each(lambda at, width: self._turn(at, width, first, count, into))
                return
            with loop(count) as i:
                step = unflatten(first + i, self.spec.k)

                def row(at: Panel, width: int) -> None:
                    for c, size in vector_pieces(width, self.tile.lanes):
                        value = self.b.load((*step, at.number * self.tile.nr + c), size)
                        into.store(value, (at.copied, i, c))

                each(row)

    def _turn(self, panel: Panel, width: int, first: Extent, count: Extent, into: View) -> None:
        """Copies a block of a panel whose columns lie one after the other."""
        start, lanes, p = panel.number * self.tile.nr, self.tile.lanes, panel.copied
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

        if self.fetch is not None:
            self._fetch(row, at * tile.nr, height, width, i64(number) >= i64(blocks) - 1)
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
            def give(r: Extent, c: Extent, value: Expr, lanes: int) -> None:
                self.finish((row + r, at * tile.nr + c), value, lanes)

            hand_over(acc, pieces, give, rolled=self.rolled)

        def suspended() -> None:
            for r in range(height):
                for c, lanes in pieces:
                    sums.store(acc.get(r, c, lanes), (r, c))

        if tile.several:
            branch(i64(number) < i64(blocks) - 1, suspended, finished)
        else:
            finished()

    def _fetch(self, row: Extent, column: Extent, height: int, width: int, last: Expr) -> None:
        """Fetches what results are stored over: a tile's own in its last block, or the next one's along its rows."""
        line = 64 // np.dtype(self.spec.dtype).itemsize

        def fetch() -> None:
            assert self.fetch is not None
            for r in range(height):
                for c in range(0, width, line):
                    self.fetch(row + r, column + c + (0 if self.tile.several else width))

        if self.tile.several:
            with when(last):
                fetch()
        else:
            fetch()


@dataclass(frozen=True)
class _Steps:
    """Rows of A where they lie, as an operand of one tile and block."""

    a: View
    row: Extent
    first: Extent
    k: tuple[Extent, ...]

    def load(self, index: Sequence[Extent], lanes: int = 1) -> Expr:
        """See `Operand.load`."""
        r, step = index
        return self.a.load((self.row + r, *unflatten(self.first + step, self.k)), lanes)
