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

The result's taps are its innermost dimensions, while vectors hold channels of one tap. So a row's vectors of all taps
are first turned in a small buffer that stays in cache, and leave it in the order of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Registers,
    View,
    along,
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
    near_equal_tiles,
    product,
    remainder,
    shuffle,
    splat,
    static,
    vector_pieces,
    when,
    worth_threads,
)
from graphc.lowering.cpu.families.matmul_spec import register_rows
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import RowTiles

__all__ = [
    "ConvWeightSpec",
    "ConvWeightTile",
    "Finish",
    "choose_conv_weight",
    "conv_weight_scratch",
    "emit_conv_weight",
]

_BLOCK = 192  # pixels that tiles go over at a time: 64 channels of them fill the first-level cache
_DIRECT = 512  # pixels up to which a tile is summed in one go
_TASKS = 8  # pieces of work that two to four threads share evenly
_PARTIAL_BYTES = 4 << 20  # what all partial results may take together
_UNROLLED = 4  # pixels of one loop step
_COPY_STRIDE = (
    512  # pixels that lie a multiple of so many bytes apart crowd few sets of the first-level cache
)
_COPY_ROWS = 4  # tiles of rows that make up for the copy of their columns
_SLOTS = 32  # buffers in which results are turned, and so the most tasks that run at once


@dataclass(frozen=True)
class ConvWeightSpec:
    """What is summed.

    Attributes:
        batch: images.
        output: spatial extents of the cotangent, slowest first; one to three of them.
        channels, features: input and output channels, of all groups.
        kernel, strides, dilation: per spatial dimension.
        groups: channels and features fall into this many independent groups.
        dtype: element type of operands, result and accumulation.
    """

    batch: Extent
    output: tuple[int, ...]
    channels: int
    features: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    dtype: str = "float32"

    @property
    def flops(self) -> Extent:
        """Floating-point operations, a multiply-add counting two."""
        per = product((2, *self.kernel, self.channels // self.groups, self.features))
        return product((self.batch, *self.output, per))


@dataclass(frozen=True)
class ConvWeightTile:
    """How the sums are cut up.

    Attributes:
        mr, nr: rows and columns of a register tile.
        lanes: elements of one vector; divides ``nr``.
        inputs_across: columns are input channels and rows output channels; else the other way round.
        merged: the input channels of all taps of the last dimension make one axis.
        rows, columns: extents of the result's two axes, for one group and one tap.
        taps: the taps that are loops.
        lines: lines of pixels (along the last dimension) of a block; 0 for all at once.
        parts: partial results.
        copied: the columns of a block are copied together before all rows go over them.
    """

    mr: int
    nr: int
    lanes: int
    inputs_across: bool
    merged: bool
    rows: int
    columns: int
    taps: tuple[int, ...]
    lines: int
    parts: int
    copied: bool = False

    @property
    def panels(self) -> int:
        """Tiles along the columns."""
        return -(-self.columns // self.nr)


class Finish(Protocol):
    """What receives results."""

    def run(self, feature: Extent, entry: Extent, value: Expr, lanes: int) -> None:
        """Takes ``lanes`` results of an output channel, from ``entry`` on of its flat ``[inputs, *kernel]``."""

    def across(
        self, feature: Extent, row: Extent, taps: Sequence[Extent], value: Expr, lanes: int
    ) -> None:
        """Takes the results of ``lanes`` output channels from ``feature`` on, for one row and tap of a tile."""


def choose_conv_weight(spec: ConvWeightSpec, target: CpuTarget) -> ConvWeightTile:
    """The tile whose inner loops cost least, by the model of ``choose_conv``."""
    inputs, features = spec.channels // spec.groups, spec.features // spec.groups
    best: tuple[float, int, int, bool, bool] | None = None
    for merged in (False, True):
        if merged and (spec.groups > 1 or spec.dilation[-1] != 1 or spec.kernel[-1] == 1):
            continue
        wide = inputs * (spec.kernel[-1] if merged else 1)
        repeats = 1 if merged else spec.kernel[-1]
        for across in (True, False):
            columns, rows = (wide, features) if across else (features, wide)
            if across and merged and columns > 2 * target.lanes(spec.dtype):
                continue  # a buffer is turned by constant positions, for one narrow panel
            lanes = _lanes(spec, target, columns)
            for vectors in range(4 if target.vector_registers == 32 else 3, 0, -1):
                panels = -(-columns // (vectors * lanes))
                if across and merged and panels > 1:
                    continue
                runs = near_equal_tiles(rows, register_rows(target, vectors))
                cost = (
                    repeats
                    * panels
                    * sum(
                        count * (max(r * vectors, 8) + (r + vectors) / 6 + 0.5)
                        for _, count, r in runs
                    )
                )
                cost *= 1 + 0.01 * (len(runs) - 1) + (0.02 if columns % (vectors * lanes) else 0)
                # Neighbouring output channels are far apart in the result.
                cost *= 1.0 if across else 1.05
                if best is None or cost < best[0]:
                    best = (cost, vectors, lanes, across, merged)
    assert best is not None
    _, vectors, lanes, across, merged = best
    wide = inputs * (spec.kernel[-1] if merged else 1)
    columns, rows = (wide, features) if across else (features, wide)
    tile = ConvWeightTile(
        mr=register_rows(target, vectors),
        nr=vectors * lanes,
        lanes=lanes,
        inputs_across=across,
        merged=merged,
        rows=rows,
        columns=columns,
        taps=spec.kernel[:-1] if merged else spec.kernel,
        lines=0,
        parts=1,
    )
    lines, parts = _blocks(spec, tile)
    stride = (spec.channels if across else spec.features) * np.dtype(spec.dtype).itemsize
    copied = lines > 0 and rows >= _COPY_ROWS * tile.mr and stride % _COPY_STRIDE == 0
    return replace(tile, lines=lines, parts=parts, copied=copied)


def _lanes(spec: ConvWeightSpec, target: CpuTarget, columns: int) -> int:
    lanes = target.lanes(spec.dtype)
    while lanes > 1 and lanes // 2 >= columns:
        lanes //= 2
    return lanes


def _blocks(spec: ConvWeightSpec, tile: ConvWeightTile) -> tuple[int, int]:
    """Lines of a block, 0 for a sum in one go, and the number of partial results."""
    pixels = static(product((spec.batch, *spec.output)))
    tiles = spec.groups * tile.panels * -(-tile.rows // tile.mr)
    if pixels is not None and pixels <= _DIRECT and tiles >= _TASKS:
        return 0, 1
    lines = max(1, _BLOCK // spec.output[-1])
    blocks = 1 << 30 if pixels is None else -(-pixels // spec.output[-1] // lines)
    wanted = -(-_TASKS // (spec.groups * tile.panels))
    most = max(1, _PARTIAL_BYTES // _result_bytes(spec, tile))
    parts = max(1, min(wanted, most, blocks))
    return lines, parts


def _result_bytes(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Bytes of one partial result: whole panels."""
    count = spec.groups * tile.panels * int(np.prod(tile.taps)) * tile.rows * tile.nr
    return count * np.dtype(spec.dtype).itemsize


def conv_weight_scratch(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Bytes of scratch memory that :func:`emit_conv_weight` needs."""
    partial = tile.parts * _result_bytes(spec, tile) if tile.lines else 0
    buffers = _slots(spec, tile) * _buffer(spec, tile) * np.dtype(spec.dtype).itemsize
    return int(partial + buffers + _copies(spec, tile) * np.dtype(spec.dtype).itemsize)


def _copies(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Elements of the copies of columns, one for each task that sums blocks."""
    if not tile.copied:
        return 0
    tasks = tile.parts * spec.groups * tile.panels
    return tasks * tile.lines * spec.output[-1] * tile.nr


def _buffer(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Elements in which a thread turns results; 0 where they leave the registers in the order of memory."""
    taps = math.prod(spec.kernel)
    if not tile.inputs_across or taps == 1:
        return 0
    width = tile.nr if not tile.merged else spec.channels // spec.groups
    return (1 if tile.lines else tile.mr) * width * taps


def _slots(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Pieces of work at the end, each with a buffer of its own."""
    rows = tile.rows if tile.lines else -(-tile.rows // tile.mr)
    return min(_SLOTS, spec.groups * tile.panels * rows)


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
        _in_one_go(loops, _Output(loops, finish, scratch, 0))
        return
    assert scratch is not None
    shape = (tile.parts, spec.groups, tile.panels, *tile.taps, tile.rows, tile.nr)
    partial = View(
        scratch.buffer,
        spec.dtype,
        tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape))),
        scratch.offset,
    )
    size = tile.parts * _result_bytes(spec, tile) // np.dtype(spec.dtype).itemsize
    pixels = tile.lines * spec.output[-1]
    task = pixels * tile.nr
    places = (spec.groups * tile.panels * task, tile.panels * task, task, tile.nr, 1)
    copies = View(scratch.buffer, spec.dtype, places, scratch.offset + size)
    _in_blocks(loops, partial, copies if tile.copied else None)
    buffers = size + _copies(spec, tile)
    _combined(loops, partial, _Output(loops, finish, scratch, buffers))


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


@dataclass(frozen=True)
class _Output:
    """Where results go: turned in a buffer, or straight to `finish`. The buffers start at `start` of the scratch."""

    loops: _Loops
    finish: Finish
    scratch: View | None
    start: int

    def tasks(self, extents: Sequence[Extent], threads: bool, body: Callable[..., None]) -> None:
        """``body(slot, *indices)`` over the product of ``extents``, at most one at a time for each slot."""
        tasks = product(extents)
        slots = _slots(self.loops.spec, self.loops.tile)
        share = ceil_div(tasks, slots)
        with loop(slots, parallel=threads) as slot, loop(share) as i:
            flat = slot * share + i
            with when(i64(flat) < i64(tasks)):
                rest, indices = flat, list[Extent]()
                for extent in reversed(extents[1:]):
                    indices.insert(0, bind(i64(remainder(rest, extent))) if extent != 1 else 0)
                    rest = bind(i64(floor_div(rest, extent))) if extent != 1 else rest
                body(slot, rest, *indices)

    def put(
        self,
        slot: Extent,
        group: Extent,
        row: Extent,
        inside: int,
        panel: Extent,
        taps: Sequence[Extent],
        column: int,
        value: Expr,
        lanes: int,
    ) -> None:
        """Takes results of row ``row + inside`` and of ``lanes`` columns from ``column`` of a panel on."""
        spec, tile = self.loops.spec, self.loops.tile
        if not tile.inputs_across:
            first = group * (spec.features // spec.groups) + panel * tile.nr
            self.finish.across(first + column, row + inside, taps, value, lanes)
            return
        buffer = self._rows(slot)
        if buffer is None:
            feature = group * tile.rows + row + inside
            self.finish.run(feature, panel * tile.nr + column, value, lanes)
            return
        if not tile.merged:
            buffer.store(value, (inside, _flat(taps, spec.kernel), column))
            return
        inputs = spec.channels // spec.groups
        line = _flat(taps, spec.kernel[:-1]) * spec.kernel[-1]
        for lane in range(lanes):
            tap, entry = divmod(column + lane, inputs)
            buffer.store(shuffle([value], [lane]), (inside, line + tap, entry))

    def done(
        self, slot: Extent, group: Extent, row: Extent, rows: int, panel: Extent, width: int
    ) -> None:
        """Finishes the rows whose taps have all been put."""
        spec, tile = self.loops.spec, self.loops.tile
        buffer = self._rows(slot)
        if buffer is None:
            return
        taps = math.prod(spec.kernel)
        flat = View(buffer.buffer, spec.dtype, (buffer.strides[0], 1), buffer.offset)
        count = (spec.channels // spec.groups if tile.merged else width) * taps
        with loop(rows) as r:
            feature = group * tile.rows + row + r

            def piece(at: Extent, lanes: int) -> None:
                value = bind(flat.load((r, at), lanes))
                self.finish.run(feature, panel * (tile.nr * taps) + at, value, lanes)

            along(count, tile.lanes, piece)

    def _rows(self, slot: Extent) -> View | None:
        """A slot's buffer, indexed (row, tap, column)."""
        spec, tile = self.loops.spec, self.loops.tile
        size = _buffer(spec, tile)
        if not size:
            return None
        assert self.scratch is not None
        row = size if tile.lines else size // tile.mr
        offset = self.scratch.offset + self.start + slot * size
        return View(self.scratch.buffer, spec.dtype, (row, 1, math.prod(spec.kernel)), offset)


def _flat(taps: Sequence[Extent], kernel: Sequence[int]) -> Extent:
    """The number of a tap in row-major order."""
    number: Extent = 0
    for tap, size in zip(taps, kernel, strict=True):
        number = number * size + tap
    return number


def _in_one_go(loops: _Loops, output: _Output) -> None:
    """Every tile over all pixels, and finished."""
    spec, tile = loops.spec, loops.tile
    tiles = RowTiles(tile.rows, tile.mr)

    def task(slot: Extent, group: Extent, number: Extent, panel: Extent) -> None:
        def columns(width: int) -> None:
            def rows(row: Extent, count: int) -> None:
                with fused_loop(tile.taps) as taps:
                    column = panel * tile.nr
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

        def block(number: Extent, width: int, clear: bool) -> None:
            first = number * tile.lines
            left = loops.lines - first
            count = (
                minimum_extent(left, tile.lines)
                if not clear
                else maximum_extent(minimum_extent(left, tile.lines), 0)
            )
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
                    for r in range(height):
                        for c, lanes in vector_pieces(width, tile.lanes):
                            place = (part, group, panel, *taps, row + r, c)
                            value = acc.get(r, c, lanes)
                            if not clear:
                                value = partial.load(place, lanes) + value
                            partial.store(value, place)

                with loop(tiles.number) as number_of_tile:
                    tiles.emit(number_of_tile, 1, rows)

        def columns(width: int) -> None:
            block(start, width, True)
            end = minimum_extent(share, blocks - start)
            rest = maximum_extent(end - 1, 0)
            with loop(rest if isinstance(rest, int) else bind(i64(rest))) as i:
                block(start + 1 + i, width, False)

        loops.widths(panel, columns)

    shared_loop(
        (tile.parts, spec.groups, tile.panels),
        task,
        threads=worth_threads(spec.flops),
        flops=spec.flops,
    )


def _combined(loops: _Loops, partial: View, output: _Output) -> None:
    """The sum of all parts, finished."""
    spec, tile = loops.spec, loops.tile

    def task(slot: Extent, group: Extent, row: Extent, panel: Extent) -> None:
        def columns(width: int) -> None:
            with fused_loop(tile.taps) as taps:
                for c, lanes in vector_pieces(width, tile.lanes):
                    value = partial.load((0, group, panel, *taps, row, c), lanes)
                    for part in range(1, tile.parts):
                        value = value + partial.load((part, group, panel, *taps, row, c), lanes)
                    output.put(slot, group, row, 0, panel, taps, c, bind(value), lanes)
            output.done(slot, group, row, 1, panel, width)

        loops.widths(panel, columns)

    threads = worth_threads(0, _result_bytes(spec, tile) * (tile.parts + 4))
    output.tasks((spec.groups, tile.rows, tile.panels), threads, task)
