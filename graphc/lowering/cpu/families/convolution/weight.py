"""Gradients of convolutions by their weights: long sums over all pixels of a batch, channels last.

``dW[o, i, *tap] = sum over (n, *p) of dy[n, *p, o] * x[n, *(p * stride + tap * dilation), i]``. For each tap that is a
product of two matrices with pixels as rows, whose result is small and whose depth is long. A register tile holds
``mr`` rows by ``nr`` columns of the result: for each pixel one element of an operand is broadcast against
``nr / lanes`` vectors of the other. The columns are either neighbouring input channels (with those of the neighbouring
taps, where there are few channels: they follow in memory) or output channels, whichever fills the registers better.

Few pixels are summed in one go and finished from registers. Many are cut into blocks that stay in cache while all tiles
go over them; each tile is added to memory of its own after a block, which also keeps long sums accurate. If there are
too few columns to share among threads, blocks are dealt to a fixed number of parts, which are added up at the end: the
result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Registers,
    View,
    bind,
    branch,
    ceil_div,
    const,
    floor_div,
    fused_loop,
    i64,
    loop,
    maximum_extent,
    minimum_extent,
    product,
    remainder,
    splat,
    static,
    vector_pieces,
    worth_threads,
)
from graphc.lowering.cpu.families.convolution.weight_output import Finish, Output
from graphc.lowering.cpu.families.convolution.weight_spec import (
    ConvWeightSpec,
    ConvWeightTile,
    copied_size,
    result_size,
)
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import RowTiles

__all__ = ["emit_conv_weight"]

_UNROLLED = 4  # pixels of one loop step


def emit_conv_weight(
    spec: ConvWeightSpec,
    tile: ConvWeightTile,
    x: View,
    dy: View,
    finish: Finish,
    scratch: View | None = None,
) -> None:
    """Emits the loops of a weight gradient into the open kernel.

    Args:
        spec: what is summed.
        tile: `choose_conv_weight`'s.
        x: read at ``(n, *positions, c)``; position 0 is the first tap of output 0, in the halo. Its last dimension
            is dense, and a merged tile reads from one pixel on into the next.
        dy: read at ``(n, *output, o)``.
        finish: receives the results.
        scratch: a flat view of ``conv_weight_scratch`` bytes, where that is not 0.
    """
    loops = _Loops(spec, tile, x, dy)
    if tile.lines == 0:
        _in_one_go(loops, Output(spec, tile, finish, scratch, 0))
        return
    assert scratch is not None
    shape = (tile.parts, spec.groups, tile.panels, *tile.taps, tile.rows, tile.nr)
    partial = View(
        scratch.buffer,
        spec.dtype,
        tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape))),
        scratch.offset,
    )
    size = tile.parts * result_size(spec, tile) // np.dtype(spec.dtype).itemsize
    pixels = tile.lines * spec.output[-1]
    task = pixels * tile.nr
    places = (spec.groups * tile.panels * task, tile.panels * task, task, tile.nr, 1)
    copies = View(scratch.buffer, spec.dtype, places, scratch.offset + size)
    _in_blocks(loops, partial, copies if tile.copied else None)
    buffers = size + copied_size(spec, tile)
    _combined(loops, partial, Output(spec, tile, finish, scratch, buffers))


@dataclass(frozen=True)
class _Loops:
    """The parts of a kernel that know where operands lie."""

    spec: ConvWeightSpec
    tile: ConvWeightTile
    x: View
    dy: View

    @property
    def lines(self) -> Extent:
        """Lines of pixels along the last dimension, of the whole batch."""
        return product((self.spec.batch, *self.spec.output[:-1]))

    def widths(self, panel: Extent, body: Callable[[int], None]) -> None:
        """``body(columns)`` for a panel, which may be the last and narrower."""
        full, rest = divmod(self.tile.columns, self.tile.nr)
        if not rest:
            body(self.tile.nr)
        elif not full:
            body(rest)
        else:
            branch(i64(panel) < i64(full), lambda: body(self.tile.nr), lambda: body(rest))

    def accumulate(
        self,
        group: Extent,
        taps: Sequence[Extent],
        row: Extent,
        rows: int,
        column: Extent,
        width: int,
        first: Extent,
        lines: Extent,
        copy: View | None = None,
    ) -> Registers:
        """The sum of a tile over ``lines`` lines of pixels from ``first`` on.

        `copy` holds the tile's columns, indexed (pixel, column).
        """
        spec, tile = self.spec, self.tile
        pieces = vector_pieces(width, tile.lanes)
        acc = Registers(rows, width, spec.dtype)
        for r in range(rows):
            for c, lanes in pieces:
                acc.set(const(0.0, spec.dtype, lanes), r, c)

        def step(number: Extent, line: Sequence[Extent], w: Extent) -> None:
            across, down = self._readers(group, taps, line, w)
            if copy is None:
                vectors = [bind(across(column + c, lanes)) for c, lanes in pieces]
            else:
                vectors = [bind(copy.load((number, c), lanes)) for c, lanes in pieces]
            for r in range(rows):
                scalar = bind(down(row + r, 1))
                for (c, lanes), vector in zip(pieces, vectors, strict=True):
                    acc.set(acc.get(r, c, lanes) + splat(scalar, lanes) * vector, r, c)

        width_of_line = spec.output[-1]
        unroll = next(u for u in range(_UNROLLED, 0, -1) if width_of_line % u == 0)
        with loop(lines) as i:
            line = self._line(first + i)
            with loop(width_of_line // unroll) as w:
                for u in range(unroll):
                    at = w * unroll + u
                    step(i * width_of_line + at, line, at)
        return acc

    def copy(
        self,
        group: Extent,
        taps: Sequence[Extent],
        column: Extent,
        width: int,
        first: Extent,
        lines: Extent,
        into: View,
    ) -> None:
        """Copies the columns of a tile for ``lines`` lines of pixels from ``first`` on to ``into[pixel, column]``."""
        size = self.spec.output[-1]
        with loop(lines) as i:
            line = self._line(first + i)
            with loop(size) as w:
                across, _ = self._readers(group, taps, line, w)
                for c, lanes in vector_pieces(width, self.tile.lanes):
                    into.store(across(column + c, lanes), (i * size + w, c))

    def _readers(
        self, group: Extent, taps: Sequence[Extent], line: Sequence[Extent], w: Extent
    ) -> tuple[Callable[[Extent, int], Expr], Callable[[Extent, int], Expr]]:
        """What reads the columns, and what reads the rows, of one pixel."""
        spec, tile = self.spec, self.tile
        inputs, features = spec.channels // spec.groups, spec.features // spec.groups
        tap = (*taps, 0) if tile.merged else tuple(taps)
        n, *outer = line
        pixel = (*outer, w)
        where = [
            p * s + t * d
            for p, s, t, d in zip(pixel, spec.strides, tap, spec.dilation, strict=True)
        ]

        def at_x(i: Extent, lanes: int) -> Expr:
            return self.x.load((n, *where, group * inputs + i), lanes)

        def at_dy(o: Extent, lanes: int) -> Expr:
            return self.dy.load((n, *pixel, group * features + o), lanes)

        return (at_x, at_dy) if tile.inputs_across else (at_dy, at_x)

    def _line(self, number: Extent) -> tuple[Extent, ...]:
        """The batch and outer spatial indices of a line."""
        indices: list[Extent] = []
        rest = number
        for size in reversed(self.spec.output[:-1]):
            if size == 1:
                indices.append(0)
                continue
            known = static(rest)
            indices.append(known % size if known is not None else bind(remainder(rest, size)))
            rest = known // size if known is not None else bind(floor_div(rest, size))
        return (rest, *reversed(indices))


def _in_one_go(loops: _Loops, output: Output) -> None:
    """Every tile over all pixels, and finished."""
    spec, tile = loops.spec, loops.tile
    tiles = RowTiles(tile.rows, tile.mr)

    def task(slot: Extent, group: Extent, number: Extent, panel: Extent) -> None:
        def columns(width: int) -> None:
            def rows(row: Extent, count: int) -> None:
                with fused_loop(tile.taps) as taps:
                    column = panel * tile.nr
                    output.fetch(group, row, count, panel, taps)
                    acc = loops.accumulate(group, taps, row, count, column, width, 0, loops.lines)
                    for r in range(count):
                        for c, lanes in vector_pieces(width, tile.lanes):
                            value = acc.get(r, c, lanes)
                            output.put(slot, group, row, r, panel, taps, c, value, lanes)
                output.done(slot, group, row, count, panel, width)

            tiles.emit(number, 1, rows)

        loops.widths(panel, columns)

    number = static(tiles.number)
    assert number is not None
    output.tasks((spec.groups, number, tile.panels), worth_threads(spec.flops), task)


def _in_blocks(loops: _Loops, partial: View, copies: View | None) -> None:
    """Every part's share of the blocks, each added to the part's own result."""
    spec, tile = loops.spec, loops.tile
    tiles = RowTiles(tile.rows, tile.mr)
    blocks = ceil_div(loops.lines, tile.lines)
    share = ceil_div(blocks, tile.parts)

    def task(indices: tuple[Extent, ...]) -> None:
        part, group, panel = indices
        start = part * share

        def block(number: Extent, width: int) -> None:
            first = (start + number) * tile.lines
            count = maximum_extent(minimum_extent(loops.lines - first, tile.lines), 0)
            lines = count if isinstance(count, int) else bind(i64(count))
            column = panel * tile.nr
            copy = None
            if copies is not None:
                offset = copies.position((part, group, panel, 0, 0))
                copy = View(copies.buffer, spec.dtype, (tile.nr, 1), offset)
            with fused_loop(tile.taps) as taps:
                if copy is not None:
                    loops.copy(group, taps, column, width, first, lines, copy)

                def rows(row: Extent, height: int) -> None:
                    acc = loops.accumulate(
                        group, taps, row, height, column, width, first, lines, copy
                    )

                    def store(again: bool) -> None:
                        for r in range(height):
                            for c, lanes in vector_pieces(width, tile.lanes):
                                place = (part, group, panel, *taps, row + r, c)
                                value = acc.get(r, c, lanes)
                                if again:
                                    value = partial.load(place, lanes) + value
                                partial.store(value, place)

                    if static(number) == 0:
                        store(False)
                    else:
                        branch(i64(number) == i64(0), lambda: store(False), lambda: store(True))

                with loop(tiles.number) as number_of_tile:
                    tiles.emit(number_of_tile, 1, rows)

        def columns(width: int) -> None:
            # A part without blocks has one of no lines: its results are zeros.
            count = maximum_extent(minimum_extent(share, blocks - start), 1)
            with loop(count if isinstance(count, int) else bind(i64(count))) as i:
                block(i, width)

        loops.widths(panel, columns)

    shared_loop(
        (tile.parts, spec.groups, tile.panels),
        task,
        threads=worth_threads(spec.flops),
        flops=spec.flops,
    )


def _combined(loops: _Loops, partial: View, output: Output) -> None:
    """The sum of all parts, finished."""
    spec, tile = loops.spec, loops.tile

    def task(slot: Extent, group: Extent, row: Extent, panel: Extent) -> None:
        def columns(width: int) -> None:
            with fused_loop(tile.taps) as taps:
                output.fetch(group, row, 1, panel, taps)
                for c, lanes in vector_pieces(width, tile.lanes):
                    value = partial.load((0, group, panel, *taps, row, c), lanes)
                    for part in range(1, tile.parts):
                        value = value + partial.load((part, group, panel, *taps, row, c), lanes)
                    output.put(slot, group, row, 0, panel, taps, c, bind(value), lanes)
            output.done(slot, group, row, 1, panel, width)

        loops.widths(panel, columns)

    threads = worth_threads(0, result_size(spec, tile) * (tile.parts + 4))
    output.tasks((spec.groups, tile.rows, tile.panels), threads, task)
