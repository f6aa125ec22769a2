"""Cutting an axis of rows into register tiles and one of channels into blocks of vectors; handing over tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Registers,
    View,
    bind,
    branch,
    ceil_div,
    floor_div,
    i64,
    local,
    loop,
    maximum_extent,
    minimum_extent,
    near_equal_tiles,
    remainder,
    select,
    static,
    tiles,
    vector_pieces,
    when,
)

__all__ = ["RowTiles", "channel_blocks", "hand_over"]


_BYTES = 8  # of the widest element
_STACK = 1024  # bytes from which on TVM takes memory from the heap


class RowTiles:
    """The register tiles along an axis, numbered so that any run of them can be one task.

    A static extent gives near-equal tiles of two sizes. A symbolic one gives full tiles and a last
    one for what is left, which is made of tiles of a third of the height and then of single rows:
    few sizes, because each is compiled.

    Attributes:
        extent: rows in all.
        height: rows of a full tile.
        number: how many tiles there are.
    """

    def __init__(self, extent: Extent, height: int) -> None:
        self.extent, self.height = extent, height
        self.number = ceil_div(extent, height)

    def emit(self, chunk: Extent, per_chunk: int, body: Callable[[Extent, int], None]) -> None:
        """Emits ``body(first row, rows)`` for each of the ``per_chunk`` tiles of ``chunk``."""
        self.emit_numbered(chunk, per_chunk, lambda start, rows, _: body(start, rows))

    def emit_numbered(
        self, chunk: Extent, per_chunk: int, body: Callable[[Extent, int, Extent], None]
    ) -> None:
        """The same with the number of the tile in its chunk as a third argument of ``body``."""
        known = static(self.number)
        exact = known is not None and known % per_chunk == 0
        with loop(per_chunk) as i:
            number = chunk * per_chunk + i

            def numbered(start: Extent, rows: int) -> None:
                body(start, rows, i)

            if exact:
                self._tile(number, numbered)
            else:
                with when(i64(number) < i64(self.number)):
                    self._tile(number, numbered)

    def span(self, number: Extent) -> tuple[Extent, Extent]:
        """The first row of a tile and how many it has."""
        known = static(self.extent)
        if known is None:
            first = number * self.height
            return first, minimum_extent(self.height, self.extent - first)
        runs = near_equal_tiles(known, self.height)
        if len(runs) == 1:
            return number * runs[0][2], runs[0][2]
        (_, larger, size), (_, _, smaller) = runs
        left = maximum_extent(number - larger, 0)  # tiles of the smaller size before this one
        return (
            number * size - left * (size - smaller),
            select(i64(number) < i64(larger), i64(size), i64(smaller)),
        )

    def _tile(self, number: Extent, body: Callable[[Extent, int], None]) -> None:
        known = static(self.extent)
        if known is None:
            self._symbolic_tile(number, body)
            return
        runs = near_equal_tiles(known, self.height)
        if len(runs) == 1:
            body(number * runs[0][2], runs[0][2])
            return
        (_, larger, size), (start, _, smaller) = runs
        branch(
            i64(number) < i64(larger),
            lambda: body(number * size, size),
            lambda: body(start + (number - larger) * smaller, smaller),
        )

    def _symbolic_tile(self, number: Extent, body: Callable[[Extent, int], None]) -> None:
        start = number * self.height
        if self.height == 1:
            body(start, 1)
            return

        def rest() -> None:
            left = bind(i64(self.extent) - start)
            part = max(1, self.height // 3)
            with loop(floor_div(left, part)) as i:
                body(start + i * part, part)
            if part > 1:
                single = bind(remainder(left, part))
                with loop(single) as i:
                    body(start + (left - single) + i, 1)

        branch(i64(start) + self.height <= i64(self.extent), lambda: body(start, self.height), rest)


def hand_over(
    acc: Registers,
    pieces: Sequence[tuple[int, int]],
    body: Callable[[Extent, Extent, Expr, int], None],
    *,
    rows: range | None = None,
    rolled: bool = False,
) -> None:
    """Emits ``body(row, column, value, lanes)`` for the vectors ``pieces`` of each row of a tile.

    Args:
        acc: the tile.
        pieces: column and lanes of each vector of a row.
        body: what becomes of a vector; its row counts from the first of `rows`.
        rows: all by default.
        rolled: whether rows are walked by a loop, through memory. What takes long to compute, such as the noise of a
            dropout, would otherwise be compiled once for each row of each size of tile: seconds for one kernel.
    """
    rows = range(acc.rows) if rows is None else rows
    if not rolled or len(rows) == 1:
        for row in rows:
            for column, lanes in pieces:
                body(row - rows.start, column, acc.get(row, column, lanes), lanes)
        return
    lanes = pieces[0][1]
    if all(piece == (i * lanes, lanes) for i, piece in enumerate(pieces)) and (
        len(rows) * len(pieces) * lanes * _BYTES < _STACK
    ):
        copy = _copied(acc, rows, pieces)
        with loop(len(rows)) as at, loop(len(pieces)) as piece:
            body(at, piece * lanes, copy.load((at, piece * lanes), lanes), lanes)
        return
    copies = [_copied(acc, rows, [piece]) for piece in pieces]
    with loop(len(rows)) as at:
        for copy, (column, lanes) in zip(copies, pieces, strict=True):
            body(at, column, copy.load((at, 0), lanes), lanes)


def _copied(acc: Registers, rows: range, pieces: Sequence[tuple[int, int]]) -> View:
    """Vectors of rows of a tile in memory."""
    start, width = pieces[0][0], sum(lanes for _, lanes in pieces)
    copy = View(local(len(rows) * width, acc.dtype), acc.dtype, (width, 1))
    for row in rows:
        for column, lanes in pieces:
            copy.store(acc.get(row, column, lanes), (row - rows.start, column - start))
    return copy


def channel_blocks(
    channels: Extent,
    lanes: int,
    vectors: int,
    block: Callable[[Extent, list[tuple[int, int]]], None],
) -> None:
    """Covers a contiguous axis by ``block(first, pieces)``, several vectors of it at a time.

    ``pieces`` are the ``(offset, lanes)`` of the vectors of a block, of at most ``lanes`` elements
    and ``vectors`` in number where the extent allows.
    """
    known = static(channels)
    size = lanes * vectors
    if known is None:
        tiles(channels, size, lambda start, count: block(start, vector_pieces(count, lanes)))
        return
    whole, rest = divmod(known, size)
    if whole:
        with loop(whole) as i:
            block(i * size, vector_pieces(size, lanes))
    if rest:
        block(whole * size, vector_pieces(rest, lanes))
