"""Convolutions on AMX tiles, channels last: rows of a tile are neighbouring pixels, read where they lie.

The input ``[N, *spatial, C]`` holds its halo, so the pixels under one line of a filter are contiguous: a step along K
takes a stretch of such a line. A block of results is up to 32 pixels of one output row by 32 output channels, or, where
rows are short, two output rows of up to 16 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    View,
    bind,
    branch,
    ceil_div,
    fused_loop,
    i64,
    loop,
    product,
    static,
    when,
    worth_threads,
)
from graphc.lowering.cpu.families.tile.amx import (
    COLUMNS,
    ROWS,
    Array,
    Blocks,
    Shape,
    Tiles,
    chunk_depth,
    pack_tiles,
)

__all__ = ["TileConv", "emit_tile_conv", "pack_tile_conv"]

# Weights up to this size stay in a core's second-level cache while it walks over pixels.
_RESIDENT_BYTES = 1_000_000
_LEAST_DEPTH = 8  # below, most of a tile is empty
_TASKS = 32  # enough for threads to end at about the same time


@dataclass(frozen=True)
class TileConv:
    """What is convolved.

    Attributes:
        batch: images.
        output: spatial extents of the result, slowest first; one to three of them.
        channels, features: of input and result.
        kernel, strides, dilation: per spatial dimension.
        split: whether input and weights are pairs.
    """

    batch: Extent
    output: tuple[Extent, ...]
    channels: int
    features: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    split: bool = False

    @property
    def line(self) -> int:
        """Contiguous elements of the input under one line of the filter, or under one tap of a dilated one."""
        return self.channels * (self.kernel[-1] if self.dilation[-1] == 1 else 1)

    @property
    def taps(self) -> tuple[int, ...]:
        """Extents of the loops over lines."""
        return (*self.kernel[:-1], 1 if self.dilation[-1] == 1 else self.kernel[-1])

    @property
    def depth(self) -> int:
        """Elements of K of one step."""
        return chunk_depth(self.line)

    @property
    def fits(self) -> bool:
        """Whether lines divide into steps of which tiles are not mostly empty."""
        return self.depth >= _LEAST_DEPTH

    @property
    def shape(self) -> Shape:
        """Tiles of a block."""
        return Shape(2, 2)

    @property
    def panels(self) -> int:
        """Blocks along the output channels."""
        return -(-self.features // self.shape.columns)

    @property
    def parts(self) -> int:
        """Bfloat16 numbers that stand for one."""
        return 2 if self.split else 1

    @property
    def pairs_rows(self) -> bool:
        """Whether a block is two output rows rather than a stretch of one."""
        width = static(self.output[-1])
        return len(self.output) > 1 and width is not None and width <= ROWS

    @property
    def depth_in_all(self) -> int:
        """Elements of K."""
        return math.prod(self.kernel) * self.channels

    @property
    def flops(self) -> Extent:
        """Floating-point operations, a multiply-add counting two."""
        return product((self.batch, *self.output, 2, self.depth_in_all, self.features))


def pack_tile_conv(weight: Array, spec: TileConv) -> Array:
    """Weights ``[O, I, *kernel]`` in the order in which they are read."""
    lines = np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, weight.shape[0])
    return pack_tiles(lines.astype(np.float32), spec.depth, spec.shape.across, split=spec.split)


def emit_tile_conv(spec: TileConv, x: Sequence[View], w: View, finish: Finish) -> None:
    """Emits the loops of a convolution into the open kernel.

    Args:
        spec: what is convolved.
        x: the parts of the input as 16-bit words, indexed ``(n, *positions, c)``: output ``o`` reads positions
            ``o * stride + tap * dilation``.
        w: packed words, with stride 1.
        finish: receives results at index ``(n, *output, feature)``.
    """
    _Emission(spec, x, w, finish).emit()


class _Emission:
    def __init__(self, spec: TileConv, x: Sequence[View], w: View, finish: Finish) -> None:
        self.spec, self.x, self.w, self.finish = spec, x, w, finish
        *outer, width = spec.output
        height = outer.pop() if outer else 1
        self.outer, self.height, self.width = outer, height, width
        self.ranked = len(spec.output) > 1
        if spec.pairs_rows:
            self.blocks = Blocks(2 * width, spec.shape.rows)
            self.rows = ceil_div(height, 2)
        else:
            self.blocks = Blocks(width, spec.shape.rows)
            self.rows = height

    def emit(self) -> None:
        """Tasks are some rows (times all output channels) while weights stay near, else channels first."""
        spec = self.spec
        weights = spec.depth_in_all * spec.features * 2 * spec.parts
        images = product((spec.batch, *self.outer))
        known, lines = static(images), static(self.rows)
        rows_first = weights <= _RESIDENT_BYTES
        per_task = 8
        if known is not None and lines is not None:
            tasks = known * lines * (1 if rows_first else spec.panels)
            per_task = max(1, min(lines, tasks // _TASKS))
        chunks = ceil_div(self.rows, per_task)
        pixels = (spec.batch, *self.outer, chunks)
        order = pixels if rows_first else (spec.panels, *pixels)
        flops = static(spec.flops)
        parallel = flops is None or worth_threads(flops // 8, weights)
        with fused_loop(order, parallel=parallel) as indices:
            n, *outer, chunk = indices if rows_first else indices[1:]
            tiles = Tiles(spec.shape, spec.depth, split=spec.split)
            with tiles.configured(self.blocks) as fit, loop(per_task) as i:
                row = bind(i64(chunk * per_task + i))
                with when(row < i64(self.rows)):
                    if rows_first:
                        self._row(tiles, fit, (n, *outer), row, None)
                    else:
                        self._row(tiles, fit, (n, *outer), row, indices[0])

    def _row(
        self,
        tiles: Tiles,
        fit: Callable[[Extent], None],
        image: Sequence[Extent],
        row: Extent,
        panel: Extent | None,
    ) -> None:
        """All blocks of one row (or pair of rows)."""

        def one(block: Extent, rows: Extent) -> None:
            if panel is not None:
                self._block(tiles, image, row, block, rows, panel)
                return
            with loop(self.spec.panels) as each:
                self._block(tiles, image, row, block, rows, each)

        if self.spec.pairs_rows:
            one(0, self.blocks.rows(0))
            return
        with loop(self.blocks.number) as block:
            rows = self.blocks.rows(block)
            fit(rows)
            one(block, rows)

    def _block(
        self,
        tiles: Tiles,
        image: Sequence[Extent],
        row: Extent,
        block: Extent,
        rows: Extent,
        panel: Extent,
    ) -> None:
        """One block of results, and its epilogue."""
        wide = self.spec.shape.columns
        full, rest = divmod(self.spec.features, wide)
        emit = self._pair if self.spec.pairs_rows else self._stretch

        def compute(columns: int) -> None:
            emit(tiles, image, row, block, rows, panel, columns)

        if not rest:
            compute(wide)
        elif not full:
            compute(rest)
        else:
            branch(i64(panel) < i64(full), lambda: compute(wide), lambda: compute(rest))

    def _stretch(
        self,
        tiles: Tiles,
        image: Sequence[Extent],
        row: Extent,
        block: Extent,
        rows: Extent,
        panel: Extent,
        columns: int,
    ) -> None:
        start = self.blocks.start(block)

        def first_pixel(tile: int, first: Extent) -> tuple[Extent, ...]:
            return (*image, *((row,) if self.ranked else ()), start + first)

        self._multiply(tiles, rows, columns, panel, first_pixel, single=self.blocks.single)
        self._store(tiles, rows, columns, panel, 0, lambda q: first_pixel(0, q))

    def _pair(
        self,
        tiles: Tiles,
        image: Sequence[Extent],
        row: Extent,
        block: Extent,
        rows: Extent,
        panel: Extent,
        columns: int,
    ) -> None:
        first = row * 2

        def first_pixel(tile: int, _: Extent) -> tuple[Extent, ...]:
            return (*image, first + tile, 0)

        def store(tile: int) -> None:
            def pixel(q: Extent) -> tuple[Extent, ...]:
                return (*image, first + tile, q)

            self._store(tiles, self.width, columns, panel, tile * self.width, pixel)

        def compute(down: int) -> None:
            self._multiply(tiles, rows, columns, panel, first_pixel, down=down)
            for tile in range(down):
                store(tile)

        even = static(self.height)
        if even is not None and even % 2 == 0:
            compute(2)
        else:
            branch(i64(first) + 1 < i64(self.height), lambda: compute(2), lambda: compute(1))

    def _multiply(
        self,
        tiles: Tiles,
        rows: Extent,
        columns: int,
        panel: Extent,
        first_pixel: Callable[[int, Extent], tuple[Extent, ...]],
        *,
        single: bool = False,
        down: int = 2,
    ) -> None:
        """Sums over all lines of the filter, each in steps."""
        spec = self.spec
        across = -(-columns // COLUMNS)
        steps = spec.line // spec.depth
        words = spec.depth_in_all * spec.shape.columns * spec.parts

        def over(step: Callable[..., None]) -> None:
            with ExitStack() as stack:
                step(*(stack.enter_context(loop(e)) for e in (*spec.taps, steps)))

        def from_x(tile: int, first: Extent, part: int, *at: Extent) -> tuple[Expr, Extent]:
            *tap, s = at
            n, *where = first_pixel(tile, first)
            position = [
                o * stride + t * d
                for o, stride, t, d in zip(where, spec.strides, tap, spec.dilation, strict=True)
            ]
            view = self.x[part]
            return (
                view.address((n, *position, s * spec.depth)),
                view.strides[-2] * spec.strides[-1] * 2,
            )

        def from_w(tile: int, part: int, *at: Extent) -> Expr:
            step: Extent = 0
            for extent, index in zip((*spec.taps, steps), at, strict=True):
                step = step * extent + index
            place = ((step * spec.parts + part) * across + tile) * (spec.depth * COLUMNS)
            return self.w.address((panel * words + place,))

        tiles.block(rows, across, over, from_x, from_w, single=single, down=down)

    def _store(
        self,
        tiles: Tiles,
        rows: Extent,
        columns: int,
        panel: Extent,
        start: Extent,
        pixel: Callable[[Extent], tuple[Extent, ...]],
    ) -> None:
        feature = panel * self.spec.shape.columns

        def store(q: Extent, column: int, value: Expr, lanes: int) -> None:
            self.finish((*pixel(q), feature + column), value, lanes)

        tiles.each_row(rows, columns, store, start)
