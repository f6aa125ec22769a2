"""Products whose B is copied first, a panel at a time: it lies by columns, or only the run knows how many it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    Operand,
    Registers,
    View,
    along,
    bind,
    branch,
    ceil_div,
    floor_div,
    i64,
    loop,
    minimum_extent,
    product,
    remainder,
    shuffle,
    static,
    unflatten,
    vector_pieces,
    when,
)
from graphc.lowering.cpu.families.dense.accumulate import accumulate
from graphc.lowering.cpu.families.dense.spec import MatmulSpec, MatmulTile, scratch_slots
from graphc.lowering.cpu.tiling import RowTiles, hand_over

__all__ = ["emit_copied", "transposed"]


def emit_copied(
    spec: MatmulSpec,
    tile: MatmulTile,
    a: Operand,
    b: View,
    finish: Finish,
    scratch: View,
    rolled: bool,
) -> None:
    """Products whose B is copied, one panel per task, into scratch memory ``[slot][K + mr][nr]``.

    The last ``mr`` rows of a slot take a tile of results, where their columns must be counted off.
    """
    panels = ceil_div(spec.n, tile.nr)
    tasks = product((*spec.batch, panels))
    slots = scratch_slots(tasks)
    per_slot = ceil_div(tasks, slots)
    rows = RowTiles(spec.m, tile.mr)
    with loop(slots, parallel=tile.threads) as slot, loop(per_slot) as i:
        flat = slot * per_slot + i
        with when(i64(flat) < i64(tasks)):
            (*batch, panel) = unflatten(flat, (*spec.batch, panels))
            copy = View(
                scratch.buffer,
                spec.dtype,
                (tile.nr, 1),
                scratch.offset + slot * product((spec.k + tile.mr, tile.nr)),
            )
            _copy_panel(spec, tile, b, batch, panel, copy)
            _multiply_copied(spec, tile, a, copy, batch, panel, rows, finish, rolled)


def _multiply_copied(
    spec: MatmulSpec,
    tile: MatmulTile,
    a: Operand,
    copy: View,
    batch: Sequence[Extent],
    panel: Extent,
    rows: RowTiles,
    finish: Finish,
    rolled: bool,
) -> None:
    """All rows of A against one copied panel."""
    n = static(spec.n)
    start = panel * tile.nr

    def multiplied(row: Extent, count: int) -> Registers:
        return accumulate(
            spec, tile, a, copy, batch, row, count, tile.nr, lambda k, column: (k, column)
        )

    def whole(row: Extent, count: int) -> None:
        def give(i: Extent, column: Extent, value: Expr, lanes: int) -> None:
            finish((*batch, row + i, start + column), value, lanes)

        hand_over(multiplied(row, count), vector_pieces(tile.nr, tile.lanes), give)

    def in_registers() -> None:
        with loop(rows.number) as number:
            rows.emit(number, 1, whole)

    def in_memory() -> None:
        results = copy.shifted((spec.k, 0))
        _through_memory(spec, tile, multiplied, results, batch, start, rows, finish)

    if rolled:
        in_memory()
    elif n is not None and n % tile.nr == 0:
        in_registers()
    else:
        branch(i64(start) + tile.nr <= i64(spec.n), in_registers, in_memory)


def _through_memory(
    spec: MatmulSpec,
    tile: MatmulTile,
    multiplied: Callable[[Extent, int], Registers],
    results: View,
    batch: Sequence[Extent],
    start: Extent,
    rows: RowTiles,
    finish: Finish,
) -> None:
    """All rows of A against the copied panel from column ``start`` on; tiles of any size end in one place."""
    columns = bind(i64(minimum_extent(tile.nr, spec.n - start)))
    with loop(rows.number) as number:
        first, count = (bind(i64(e)) for e in rows.span(number))

        def keep(row: Extent, height: int) -> None:
            acc = multiplied(row, height)
            for i in range(height):
                for column, lanes in vector_pieces(tile.nr, tile.lanes):
                    results.store(acc.get(i, column, lanes), (row - first + i, column))

        rows.emit(number, 1, keep)
        with loop(count) as i:

            def give(column: Extent, lanes: int) -> None:
                value = results.load((i, column), lanes)
                finish((*batch, first + i, start + column), value, lanes)

            with loop(floor_div(columns, tile.lanes)) as vector:
                give(vector * tile.lanes, tile.lanes)
            rest = bind(remainder(columns, tile.lanes))
            with loop(rest) as column:
                give(columns - rest + column, 1)


def _copy_panel(
    spec: MatmulSpec,
    tile: MatmulTile,
    b: View,
    batch: Sequence[Extent],
    panel: Extent,
    copy: View,
) -> None:
    """Copies columns ``panel * nr ...`` of B to ``copy[k, column]``.

    Columns beyond N repeat the last one: their results are computed and never used.
    """
    start = panel * tile.nr

    def source(column: int) -> Expr:
        return minimum_extent(i64(start + column), i64(spec.n) - 1)

    if spec.b == "rows":

        def row(k: Extent) -> None:
            def vectors() -> None:
                for column, lanes in vector_pieces(tile.nr, tile.lanes):
                    copy.store(b.load((*batch, k, start + column), lanes), (k, column))

            def scalars() -> None:
                for column in range(tile.nr):
                    copy.store(b.load((*batch, k, source(column))), (k, column))

            branch(i64(start) + tile.nr <= i64(spec.n), vectors, scalars)

        with loop(spec.k) as k:
            row(k)
        return
    lanes = tile.lanes

    def block(k: Extent, width: int) -> None:
        for first in range(0, tile.nr, lanes):
            vectors = [bind(b.load((*batch, source(first + i), k), width)) for i in range(lanes)]
            if width < lanes:
                for i, vector in enumerate(vectors):
                    copy.store(vector, (k, first + i))
                continue
            for i, vector in enumerate(transposed(vectors)):
                copy.store(vector, (k + i, first))

    def narrow(k: Extent, width: int) -> None:
        if width == lanes:
            block(k, lanes)
        else:  # What is left of K goes one element of each column at a time.
            for i in range(width):
                block(k + i, 1)

    along(spec.k, lanes, narrow)


def transposed(vectors: Sequence[Expr]) -> list[Expr]:
    """Transposes a square of lanes by interleaving halves log2 times (a perfect shuffle network)."""
    lanes = len(vectors)
    current = list(vectors)
    low = [j // 2 + (j % 2) * lanes for j in range(lanes)]
    high = [lanes // 2 + j for j in low]
    step = 1
    while step < lanes:
        following: list[Expr] = []
        for i in range(lanes // 2):
            pair = (current[i], current[i + lanes // 2])
            following += [bind(shuffle(pair, low)), bind(shuffle(pair, high))]
        current, step = following, step * 2
    return current
