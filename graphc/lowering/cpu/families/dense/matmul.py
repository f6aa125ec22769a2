"""Matrix products: ``C[batch..., M, N] = A[batch..., M, K] @ B``, with the epilogue in registers.

A tile of ``mr`` rows by ``nr`` columns of C lives in vector registers while the loop over K runs: one
element of A is broadcast against ``nr / lanes`` vectors of B. Rows are emitted outermost, since LLVM
otherwise keeps all broadcasts alive and spills. B comes in one of three layouts:

* ``packed``: constant weights, ``[batch..., ceil(N / nr), K, nr]`` as `packing.pack_matmul` makes them,
  zero in the columns beyond N;
* ``rows``: an operand of the run ``[batch..., K, N]`` whose rows are contiguous;
* ``columns``: one ``[batch..., N, K]`` whose columns (of B) are contiguous, as keys in attention.

Weights that come from memory are fetched in the background: while the tiles of a panel run, the
panel that follows moves into the second-level cache, and a K too deep for that cache is cut into
passes over all tiles. Unpacked operands with a static N and contiguous rows are read in place.
Otherwise each task first copies its panel into scratch memory of the caller, transposing in registers
where needed.

Longer than most: the three layouts share their tiles, and are read together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

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
    const,
    floor_div,
    i64,
    loop,
    minimum_extent,
    near,
    prefetch,
    product,
    remainder,
    select,
    shuffle,
    splat,
    static,
    unflatten,
    vector_pieces,
    when,
)
from graphc.lowering.cpu.families.dense.spec import (
    MatmulSpec,
    MatmulTile,
    choose_matmul,
    needs_scratch,
    scratch_bytes,
    scratch_slots,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import RowTiles, hand_over

_ROUND = 4  # steps of K in one round of the loop, where something happens once a round
# Steps of K from which on one or two rows read B in as many streams as a round has steps.
_STREAMED_STEPS = 1024

__all__ = [
    "MatmulSpec",
    "MatmulTile",
    "accumulate",
    "choose_matmul",
    "emit_matmul",
    "scratch_bytes",
    "transposed",
]


def emit_matmul(
    spec: MatmulSpec,
    target: CpuTarget,
    a: Operand,
    b: View,
    finish: Finish,
    *,
    tile: MatmulTile | None = None,
    scratch: View | None = None,
    rolled: bool = False,
) -> None:
    """Emits the loops of a product into the open kernel.

    Args:
        spec: what is multiplied.
        target: the instruction set.
        a: read at ``(*batch, m, k)``; either of its last two dimensions may be the contiguous one.
        b: indexed ``(*batch, panel, k, column)``, ``(*batch, k, n)`` or ``(*batch, n, k)``, as
            ``spec.b`` says, with stride 1 along the last dimension.
        finish: receives results at index ``(*batch, m, n)``.
        tile: by default :func:`choose_matmul`'s; packed weights must have its ``nr``.
        scratch: a flat view of ``spec.dtype`` with :func:`scratch_bytes` bytes, where that is not 0.
        rolled: whether ``finish`` is long, see `tiling.hand_over`.

    Raises:
        ValueError: scratch memory is needed and was not given.
    """
    tile = tile or choose_matmul(spec, target)
    if needs_scratch(spec):
        if scratch is None:
            raise ValueError("this product needs scratch memory, see scratch_bytes")
        _emit_copied(spec, tile, a, b, finish, scratch, rolled)
    elif tile.passes(spec.k) > 1 and scratch is None:
        raise ValueError("this product needs scratch memory, see scratch_bytes")
    else:
        with loop(tile.passes(spec.k)) as number:
            _emit_in_place(spec, tile, a, b, finish, scratch, number, rolled)


def _emit_in_place(
    spec: MatmulSpec,
    tile: MatmulTile,
    a: Operand,
    b: View,
    finish: Finish,
    scratch: View | None,
    number: Extent,
    rolled: bool,
) -> None:
    """One pass of a product whose B is read where it lies; N is static."""
    n = static(spec.n)
    assert n is not None
    full, rest = divmod(n, tile.nr)
    panels = full + (1 if rest else 0)
    rows = RowTiles(spec.m, tile.mr)
    chunks = ceil_div(rows.number, tile.row_tiles)
    nested = (chunks, panels) if tile.rows_first else (panels, chunks)
    passes = tile.passes(spec.k)
    depth = tile.depth if passes > 1 else spec.k
    begin = number * depth if passes > 1 else 0

    def task(indices: tuple[Extent, ...]) -> None:
        *batch, first, second = indices
        chunk, panel = (first, second) if tile.rows_first else (second, first)

        def b_index(k: Extent, column: int) -> tuple[Extent, ...]:
            if spec.b == "packed":
                return (*batch, panel, k, column)
            return (*batch, k, panel * tile.nr + column)

        def fetch(tile_number: Extent) -> Callable[[Extent], None] | None:
            if not tile.coming:
                return None
            following = bind(i64(panel + 1))
            if tile.rows_first:  # the first panel comes again, for other rows
                following = bind(select(following < i64(panels), following, i64(0)))
            return _fetch(spec, tile, b, (*batch, following, begin), depth, tile_number)

        def multiply(width: int) -> None:
            # Packed panels are padded, so whole vectors are read there and nowhere else.
            read = -(-width // tile.lanes) * tile.lanes if spec.b == "packed" else width

            def results(row: Extent, acc: Registers) -> None:
                def give(i: Extent, column: Extent, value: Expr, lanes: int) -> None:
                    finish((*batch, row + i, panel * tile.nr + column), value, lanes)

                hand_over(acc, vector_pieces(width, tile.lanes), give, rolled=rolled)

            def one(row: Extent, count: int, tile_number: Extent) -> None:
                def accumulated(start: Callable[[Registers], None] | None) -> Registers:
                    return accumulate(
                        spec,
                        tile,
                        a,
                        b,
                        batch,
                        row,
                        count,
                        read,
                        b_index,
                        begin=begin,
                        depth=depth,
                        start=start,
                        between=fetch(tile_number),
                    )

                if passes == 1:
                    results(row, accumulated(None))
                    return
                assert scratch is not None
                partial = _partial_sums(spec, tile, scratch, panel, row)
                acc = accumulated(lambda acc: _resume(acc, partial, tile, number))
                branch(
                    i64(number) < i64(passes - 1),
                    lambda: _suspend(acc, partial, tile),
                    lambda: results(row, acc),
                )

            rows.emit_numbered(chunk, tile.row_tiles, one)

        if not rest:
            multiply(tile.nr)
        elif not full:
            multiply(rest)
        else:
            branch(panel < i64(full), lambda: multiply(tile.nr), lambda: multiply(rest))

    shared_loop(
        (*spec.batch, *nested),
        task,
        threads=tile.threads,
        flops=spec.flops,
        bytes_moved=product((n, spec.k, np.dtype(spec.dtype).itemsize)),
    )


def accumulate(
    spec: MatmulSpec,
    tile: MatmulTile,
    a: Operand,
    b: View,
    batch: Sequence[Extent],
    row: Extent,
    rows: int,
    width: int,
    b_index: Callable[[Extent, int], tuple[Extent, ...]],
    *,
    begin: Extent = 0,
    depth: Extent | None = None,
    start: Callable[[Registers], None] | None = None,
    ahead: Callable[[Extent], None] | None = None,
    between: Callable[[Extent], None] | None = None,
) -> Registers:
    """The loop over K of one register tile; ``width`` columns of B are read at ``b_index``.

    Only ``depth`` steps from ``begin`` on are taken where that is given, and ``start`` sets the
    registers to what they are added to. ``ahead(k)`` emits what else should be fetched at each step,
    ``between(i)`` what should be at the i-th round of the loop.
    """
    pieces = vector_pieces(width, tile.lanes)
    acc = Registers(rows, width, spec.dtype)
    if start is None:
        _clear(acc, tile)
    else:
        start(acc)

    still = (0,) * len(batch)

    def step(k: Extent) -> None:
        if tile.ahead:
            for column, _ in pieces:
                prefetch(b.address(b_index(k + tile.ahead, column)))
        if ahead is not None:
            ahead(k)
        weights, beside = b.near(b_index(k, 0)), near(a, (*batch, row, k))
        across = (0,) * (len(b.strides) - 1)
        vectors = [bind(weights.load((*across, column), lanes)) for column, lanes in pieces]
        for i in range(rows):
            scalar = bind(beside.load((*still, i, 0)))
            for (column, lanes), vector in zip(pieces, vectors, strict=True):
                acc.set(acc.get(i, column, lanes) + splat(scalar, lanes) * vector, i, column)

    steps = spec.k if depth is None else depth
    known = static(steps)
    unroll = _ROUND if rows <= 2 or between is not None else 2
    if known is None:
        with loop(steps) as k:
            step(begin + k)
    elif rows <= 2 and known >= _STREAMED_STEPS:
        # Weights that are used once: memory delivers several streams faster than one.
        part = known // _ROUND
        with loop(part) as k:
            for u in range(_ROUND):
                step(begin + k + u * part)
        for k in range(part * _ROUND, known):
            step(begin + k)
    else:
        with loop(known // unroll) as k:
            if between is not None:
                between(k)
            for u in range(unroll):
                step(begin + k * unroll + u)
        for k in range(known - known % unroll, known):
            step(begin + k)
    return acc


def _fetch(
    spec: MatmulSpec,
    tile: MatmulTile,
    b: View,
    at: tuple[Extent, ...],
    depth: Extent,
    number: Extent,
) -> Callable[[Extent], None]:
    """Prefetches ``tile.coming`` lines of the packed panel at ``at`` in each round of tile ``number``'s loop.

    The tiles share the panel: each takes the next part, and those that come after the end the last
    part again, which costs nothing.
    """
    line = 64 // np.dtype(spec.dtype).itemsize
    known = static(depth)
    assert known is not None
    part = known // _ROUND * tile.coming * line
    last = max(known * tile.nr - part, 0)
    first = bind(i64(minimum_extent(number * part, last)))
    base = bind(i64(b.position((*at, first))))
    flat = View(b.buffer, b.dtype, (1,), base)

    def between(i: Extent) -> None:
        for j in range(tile.coming):
            prefetch(flat.address(((i * tile.coming + j) * line,)), near=2)

    return between


def _clear(acc: Registers, tile: MatmulTile) -> None:
    for i in range(acc.rows):
        for column, lanes in vector_pieces(acc.width, tile.lanes):
            acc.set(const(0.0, acc.dtype, lanes), i, column)


def _partial_sums(
    spec: MatmulSpec, tile: MatmulTile, scratch: View, panel: Extent, row: Extent
) -> View:
    """Where the sums of a tile wait for the next pass, ``[panel][m][nr]``."""
    offset = scratch.offset + (panel * spec.m + row) * tile.nr
    return View(scratch.buffer, spec.dtype, (tile.nr, 1), offset)


def _resume(acc: Registers, partial: View, tile: MatmulTile, number: Extent) -> None:
    """Registers before pass ``number``: zero before the first one."""

    def load() -> None:
        for i in range(acc.rows):
            for column, lanes in vector_pieces(acc.width, tile.lanes):
                acc.set(partial.load((i, column), lanes), i, column)

    branch(i64(number) < i64(1), lambda: _clear(acc, tile), load)


def _suspend(acc: Registers, partial: View, tile: MatmulTile) -> None:
    for i in range(acc.rows):
        for column, lanes in vector_pieces(acc.width, tile.lanes):
            partial.store(acc.get(i, column, lanes), (i, column))


def _emit_copied(
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

    def partial(row: Extent, count: int) -> None:
        # The number of columns is not known: through memory, so that they can be counted off.
        acc = multiplied(row, count)
        results = copy.shifted((spec.k, 0))
        for i in range(count):
            for column, lanes in vector_pieces(tile.nr, tile.lanes):
                results.store(acc.get(i, column, lanes), (i, column))
        left = bind(i64(spec.n - start))
        with loop(count) as i:

            def store(column: Extent, lanes: int) -> None:
                finish((*batch, row + i, start + column), results.load((i, column), lanes), lanes)

            along(left, tile.lanes, store)

    def every_row(body: Callable[[Extent, int], None]) -> None:
        with loop(rows.number) as number:
            rows.emit(number, 1, body)

    if rolled:
        _through_memory(
            spec, tile, multiplied, copy.shifted((spec.k, 0)), batch, start, rows, finish
        )
        return
    if n is not None and n % tile.nr == 0:
        every_row(whole)
    else:
        branch(
            i64(start) + tile.nr <= i64(spec.n),
            lambda: every_row(whole),
            lambda: every_row(partial),
        )


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
