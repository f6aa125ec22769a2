"""A pointwise convolution and the depthwise one that reads it, in one kernel: the values between never leave the cache.

Inverted residuals widen an image several times, filter each channel on its own, and narrow it again: the wide image is
by far the largest. Here a task takes a block of output rows and a panel of channels; it computes the rows of the wide
image that they need, borders included, in scratch memory that stays in the core's second-level cache, and filters
them. Rows on the seam of two blocks are computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    Operand,
    View,
    along,
    bind,
    branch,
    const,
    i64,
    loop,
    splat,
    static,
    vector_pieces,
)
from graphc.lowering.cpu.families.convolution.depthwise import DepthwiseSpec, emit_depthwise_tile
from graphc.lowering.cpu.families.dense.accumulate import accumulate
from graphc.lowering.cpu.families.dense.spec import MatmulSpec, MatmulTile, register_rows
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import slot_loop
from graphc.lowering.cpu.tiling import RowTiles, channel_blocks

__all__ = ["ExpandSpec", "ExpandTile", "choose_expand", "emit_expand", "scratch_bytes"]

# A wide image up to this size stays in the caches of two kernels one after the other.
_NEAR_BYTES = 100_000
# Rows of the wide image that a task keeps, and rows computed twice at most, to those that are needed.
_REGION_BYTES, _SEAM = 384 * 1024, 1.3
_SLOTS = 32

Hidden = Callable[[Sequence[Extent], Expr, int], Expr]


@dataclass(frozen=True)
class ExpandSpec:
    """What is computed.

    Attributes:
        image: extents of the input, which are those of the wide image without its border.
        channels: of the input.
        low, high: rows and columns of border before and after the wide image.
        border: what the border holds.
        depthwise: the second convolution; its channels are those of the wide image.
    """

    image: tuple[int, int]
    channels: int
    low: tuple[int, int]
    high: tuple[int, int]
    border: float
    depthwise: DepthwiseSpec

    @property
    def width(self) -> int:
        """Columns of the wide image, border included."""
        return self.low[1] + self.image[1] + self.high[1]

    @property
    def height(self) -> int:
        """Rows of the wide image, border included."""
        return self.low[0] + self.image[0] + self.high[0]


@dataclass(frozen=True)
class ExpandTile:
    """How the work is cut up.

    Attributes:
        rows: output rows of a task; divides their number.
        needed: rows of the wide image that they read.
        mr, nr: pixels and channels of a register tile of the first convolution; ``nr`` channels are a panel.
        columns: pixels of a register tile of the second.
        lanes: elements of one vector.
        slots: regions of scratch memory.
    """

    rows: int
    needed: int
    mr: int
    nr: int
    columns: int
    lanes: int
    slots: int


def choose_expand(spec: ExpandSpec, target: CpuTarget) -> ExpandTile | None:
    """How to compute both at once, or None where two kernels are as good: the wide image is small, or cuts badly."""
    second = spec.depthwise
    lanes, item = target.lanes(second.dtype), np.dtype(second.dtype).itemsize
    vectors = next((v for v in (2, 3, 1) if second.channels % (v * lanes) == 0), None)
    height = static(second.output[0])
    if vectors is None or height is None:
        return None
    images = static(second.batch) or 1
    if images * spec.height * spec.width * second.channels * item < _NEAR_BYTES:
        return None
    nr, stride, taps = vectors * lanes, second.strides[0], second.kernel[0]
    for rows in range(height, 0, -1):
        needed = (rows - 1) * stride + taps
        fits = needed * spec.width * nr * item <= _REGION_BYTES
        if height % rows == 0 and fits and needed <= _SEAM * rows * stride:
            mr = min(register_rows(target, vectors), spec.image[1])
            columns = target.vector_registers // (2 * min(2, vectors))
            return ExpandTile(rows, needed, mr, nr, columns, lanes, _SLOTS)
    return None


def scratch_bytes(spec: ExpandSpec, tile: ExpandTile) -> int:
    """Bytes of scratch memory."""
    item = np.dtype(spec.depthwise.dtype).itemsize
    return tile.slots * tile.needed * spec.width * tile.nr * item


def emit_expand(
    spec: ExpandSpec,
    x: Operand,
    w: View,
    filters: View,
    hidden: Hidden,
    finish: Finish,
    scratch: View,
    *,
    tile: ExpandTile,
) -> None:
    """Emits the loops of both convolutions into the open kernel.

    Args:
        spec: what is computed.
        x: read at ``(n, y, x, channel)``.
        w: weights of the first convolution as ``pack_matmul`` makes them, ``(panel, channel, column)``.
        filters: those of the second as ``pack_depthwise`` makes them, ``(*tap, channel)``.
        hidden: ``hidden(index, value, lanes)`` makes values of the wide image from results of the first
            convolution at index ``(n, y, x, channel)``.
        finish: receives results of the second convolution at index ``(n, y, x, channel)``.
        scratch: a flat view of the element type with ``scratch_bytes`` bytes.
        tile: as :func:`choose_expand` makes them.
    """
    second = spec.depthwise
    height = static(second.output[0]) or 0
    size = tile.needed * spec.width * tile.nr
    blocks, panels = height // tile.rows, second.channels // tile.nr

    def task(slot: Extent, indices: tuple[Extent, ...], fresh: Expr) -> None:
        n, block, panel = indices
        region = View(
            scratch.buffer,
            second.dtype,
            (spec.width * tile.nr, tile.nr, 1),
            scratch.offset + slot * size,
        )
        first = block * (tile.rows * second.strides[0])
        with loop(tile.needed) as row:
            line = region.shifted((row, 0, 0))
            y = bind(i64(first + row - spec.low[0]))
            _emit_row(spec, tile, x, w, hidden, line, (n, y), panel)
        _emit_filters(spec, tile, filters, finish, region, (n, block * tile.rows), panel)

    slot_loop((second.batch, blocks, panels), tile.slots, task)


def _emit_row(
    spec: ExpandSpec,
    tile: ExpandTile,
    x: Operand,
    w: View,
    hidden: Hidden,
    line: View,
    place: tuple[Extent, Expr],
    panel: Extent,
) -> None:
    """A panel of one row of the wide image: of ``place``'s image and row, which may be border."""
    n, y = place
    height, width = spec.image
    dtype = spec.depthwise.dtype

    def fill(start: int, columns: int) -> None:
        value = const(spec.border, dtype)
        flat = View(line.buffer, dtype, (1,), line.position((0, start, 0)))
        along(
            columns * tile.nr,
            tile.lanes,
            lambda at, lanes: flat.store(splat(value, lanes), (at,)),
        )

    product = MatmulSpec(width, spec.depthwise.channels, spec.channels, (1, 1), dtype=dtype)
    shape = MatmulTile(tile.mr, tile.nr, tile.lanes, True, 1, False, 0)
    runs = RowTiles(width, tile.mr)

    def pixels(start: Extent, count: int) -> None:
        acc = accumulate(
            product,
            shape,
            x,
            w,
            (n, y),
            start,
            count,
            tile.nr,
            lambda k, column: (panel, k, column),
        )
        for i in range(count):
            for column, lanes in vector_pieces(tile.nr, tile.lanes):
                index = (n, y, start + i, panel * tile.nr + column)
                value = hidden(index, acc.get(i, column, lanes), lanes)
                line.store(value, (0, spec.low[1] + start + i, column))

    def inside() -> None:
        fill(0, spec.low[1])
        with loop(runs.number) as number:
            runs.emit(number, 1, pixels)
        fill(spec.low[1] + width, spec.high[1])

    if spec.low[0] or spec.high[0]:
        from tvm.tirx import And

        held = And(y >= i64(0), y < i64(height))
        branch(held, inside, lambda: fill(0, spec.width))
    else:
        inside()


def _emit_filters(
    spec: ExpandSpec,
    tile: ExpandTile,
    filters: View,
    finish: Finish,
    region: View,
    place: tuple[Extent, Extent],
    panel: Extent,
) -> None:
    """A panel of a block of output rows, from ``place``'s image and first row."""
    n, first = place
    second = spec.depthwise
    image = View(region.buffer, region.dtype, (0, *region.strides), region.offset)
    own = filters.shifted((0,) * len(second.kernel) + (panel * tile.nr,))
    columns = RowTiles(second.output[1], tile.columns)

    def place_result(index: Sequence[Extent], value: Expr, lanes: int) -> None:
        _, y, x, c = index
        finish((n, first + y, x, panel * tile.nr + c), value, lanes)

    def block(c: Extent, pieces: list[tuple[int, int]]) -> None:
        with loop(tile.rows) as y, loop(columns.number) as number:
            columns.emit(
                number,
                1,
                lambda start, count: emit_depthwise_tile(
                    second, image, own, place_result, (0, y), start, count, c, pieces
                ),
            )

    channel_blocks(tile.nr, tile.lanes, 2, block)
