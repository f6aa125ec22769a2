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
where needed (`copied.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    Operand,
    Registers,
    View,
    bind,
    branch,
    ceil_div,
    i64,
    loop,
    minimum_extent,
    prefetch,
    product,
    select,
    static,
    vector_pieces,
)
from graphc.lowering.cpu.families.dense.accumulate import ROUND, accumulate, clear_tile
from graphc.lowering.cpu.families.dense.copied import emit_copied
from graphc.lowering.cpu.families.dense.spec import (
    MatmulSpec,
    MatmulTile,
    choose_matmul,
    needs_scratch,
    scratch_bytes,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import RowTiles, hand_over

__all__ = [
    "MatmulSpec",
    "MatmulTile",
    "choose_matmul",
    "emit_matmul",
    "scratch_bytes",
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
        emit_copied(spec, tile, a, b, finish, scratch, rolled)
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
        flops=spec.work,
        bytes_moved=product((n, spec.k, np.dtype(spec.dtype).itemsize)),
    )


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
    part = known // ROUND * tile.coming * line
    last = max(known * tile.nr - part, 0)
    first = bind(i64(minimum_extent(number * part, last)))
    base = bind(i64(b.position((*at, first))))
    flat = View(b.buffer, b.dtype, (1,), base)

    def between(i: Extent) -> None:
        for j in range(tile.coming):
            prefetch(flat.address(((i * tile.coming + j) * line,)), near=2)

    return between


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

    branch(i64(number) < i64(1), lambda: clear_tile(acc, tile), load)


def _suspend(acc: Registers, partial: View, tile: MatmulTile) -> None:
    for i in range(acc.rows):
        for column, lanes in vector_pieces(acc.width, tile.lanes):
            partial.store(acc.get(i, column, lanes), (i, column))
