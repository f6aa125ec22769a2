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
    near_equal_tiles,
    product,
    remainder,
    splat,
    static,
    vector_pieces,
    worth_threads,
)
from graphc.lowering.cpu.families.matmul_spec import register_rows
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import RowTiles

__all__ = [
    "ConvWeightSpec",
    "ConvWeightTile",
    "FinishTile",
    "choose_conv_weight",
    "conv_weight_scratch",
    "emit_conv_weight",
]

_BLOCK = 192  # pixels that tiles go over at a time: 64 channels of them fill the first-level cache
_DIRECT = 512  # pixels up to which a tile is summed in one go
_TASKS = 8  # pieces of work that two to four threads share evenly
_PARTIAL_BYTES = 4 << 20  # what all partial results may take together
_UNROLLED = 4  # pixels of one loop step


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

    @property
    def panels(self) -> int:
        """Tiles along the columns."""
        return -(-self.columns // self.nr)


FinishTile = Callable[[Extent, Sequence[Extent], Extent, Extent, Expr, int], None]
"""``finish(group, taps, row, column, value, lanes)`` stores ``lanes`` results from a column on."""


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
            lanes = _lanes(spec, target, columns)
            for vectors in range(4 if target.vector_registers == 32 else 3, 0, -1):
                panels = -(-columns // (vectors * lanes))
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
    return ConvWeightTile(**{**tile.__dict__, "lines": lines, "parts": parts})


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
    return tile.parts * _result_bytes(spec, tile) if tile.lines else 0


def emit_conv_weight(
    spec: ConvWeightSpec,
    tile: ConvWeightTile,
    x: View,
    dy: View,
    finish: FinishTile,
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
        _in_one_go(loops, finish)
        return
    assert scratch is not None
    shape = (tile.parts, spec.groups, tile.panels, *tile.taps, tile.rows, tile.nr)
    partial = View(
        scratch.buffer,
        spec.dtype,
        tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape))),
        scratch.offset,
    )
    _in_blocks(loops, partial)
    _combined(loops, partial, finish)


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
    ) -> Registers:
        """The sum of a tile over ``lines`` lines of pixels from ``first`` on."""
        spec, tile = self.spec, self.tile
        pieces = vector_pieces(width, tile.lanes)
        acc = Registers(rows, width, spec.dtype)
        for r in range(rows):
            for c, lanes in pieces:
                acc.set(const(0.0, spec.dtype, lanes), r, c)
        inputs, features = spec.channels // spec.groups, spec.features // spec.groups
        tap = (*taps, 0) if tile.merged else tuple(taps)

        def step(line: Sequence[Extent], w: Extent) -> None:
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

            across, along = (at_x, at_dy) if tile.inputs_across else (at_dy, at_x)
            vectors = [bind(across(column + c, lanes)) for c, lanes in pieces]
            for r in range(rows):
                scalar = bind(along(row + r, 1))
                for (c, lanes), vector in zip(pieces, vectors, strict=True):
                    acc.set(acc.get(r, c, lanes) + splat(scalar, lanes) * vector, r, c)

        width_of_line = spec.output[-1]
        unroll = next(u for u in range(_UNROLLED, 0, -1) if width_of_line % u == 0)
        with loop(lines) as i:
            line = self._line(first + i)
            with loop(width_of_line // unroll) as w:
                for u in range(unroll):
                    step(line, w * unroll + u)
        return acc

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


def _in_one_go(loops: _Loops, finish: FinishTile) -> None:
    """Every tile over all pixels, finished from registers; the taps of a tile, neighbours in memory, by one thread."""
    spec, tile = loops.spec, loops.tile
    tiles = RowTiles(tile.rows, tile.mr)

    def task(indices: tuple[Extent, ...]) -> None:
        group, number, panel = indices

        def columns(width: int) -> None:
            def rows(row: Extent, count: int) -> None:
                with fused_loop(tile.taps) as taps:
                    column = panel * tile.nr
                    acc = loops.accumulate(group, taps, row, count, column, width, 0, loops.lines)
                    for r in range(count):
                        for c, lanes in vector_pieces(width, tile.lanes):
                            finish(group, taps, row + r, column + c, acc.get(r, c, lanes), lanes)

            tiles.emit(number, 1, rows)

        loops.widths(panel, columns)

    shared_loop(
        (spec.groups, tiles.number, tile.panels),
        task,
        threads=worth_threads(spec.flops),
        flops=spec.flops,
    )


def _in_blocks(loops: _Loops, partial: View) -> None:
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
            with fused_loop(tile.taps) as taps, loop(tiles.number) as number_of_tile:

                def rows(row: Extent, height: int) -> None:
                    column = panel * tile.nr
                    acc = loops.accumulate(group, taps, row, height, column, width, first, lines)
                    for r in range(height):
                        for c, lanes in vector_pieces(width, tile.lanes):
                            place = (part, group, panel, *taps, row + r, c)
                            value = acc.get(r, c, lanes)
                            if not clear:
                                value = partial.load(place, lanes) + value
                            partial.store(value, place)

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


def _combined(loops: _Loops, partial: View, finish: FinishTile) -> None:
    """The sum of all parts, finished; the taps of a row, neighbours in memory, by one thread."""
    spec, tile = loops.spec, loops.tile

    def task(indices: tuple[Extent, ...]) -> None:
        group, row, panel = indices

        def columns(width: int) -> None:
            with fused_loop(tile.taps) as taps:
                for c, lanes in vector_pieces(width, tile.lanes):

                    def of(part: int, c: int = c, lanes: int = lanes) -> Expr:
                        return partial.load((part, group, panel, *taps, row, c), lanes)

                    value = of(0)
                    for part in range(1, tile.parts):
                        value = value + of(part)
                    finish(group, taps, row, panel * tile.nr + c, bind(value), lanes)

        loops.widths(panel, columns)

    size = _result_bytes(spec, tile)
    with fused_loop(
        (spec.groups, tile.rows, tile.panels),
        parallel=worth_threads(0, size * (tile.parts + 4)),
    ) as indices:
        task(indices)
