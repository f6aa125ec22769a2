"""What the gradient of a convolution by its weight sums, how it is cut into tiles, and the memory that takes.

The loops themselves are in :mod:`graphc.lowering.cpu.families.convolution.weight`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from graphc.lowering.cpu.emit import Extent, near_equal_tiles, product, static
from graphc.lowering.cpu.families.dense.spec import register_rows
from graphc.lowering.cpu.features import CpuTarget

__all__ = [
    "ConvWeightSpec",
    "ConvWeightTile",
    "buffer_size",
    "buffer_slots",
    "choose_conv_weight",
    "conv_weight_scratch",
    "copied_size",
    "result_size",
    "staged_size",
    "turns",
]

_BLOCK = 192  # pixels that tiles go over at a time: 64 channels of them fill the first-level cache
_DIRECT = 512  # pixels up to which a tile is summed in one go
_TASKS = 8  # pieces of work that two to four threads share evenly
_PARTIAL_BYTES = 4 << 20  # what all partial results may take together
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
    most = max(1, _PARTIAL_BYTES // result_size(spec, tile))
    parts = max(1, min(wanted, most, blocks))
    return lines, parts


def result_size(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Bytes of one partial result: whole panels."""
    count = spec.groups * tile.panels * int(np.prod(tile.taps)) * tile.rows * tile.nr
    return count * np.dtype(spec.dtype).itemsize


def conv_weight_scratch(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Bytes of scratch memory that :func:`emit_conv_weight` needs."""
    partial = tile.parts * result_size(spec, tile) if tile.lines else 0
    buffers = buffer_slots(spec, tile) * buffer_size(spec, tile) * np.dtype(spec.dtype).itemsize
    return int(partial + buffers + copied_size(spec, tile) * np.dtype(spec.dtype).itemsize)


def copied_size(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Elements of the copies of columns, one for each task that sums blocks."""
    if not tile.copied:
        return 0
    tasks = tile.parts * spec.groups * tile.panels
    return tasks * tile.lines * spec.output[-1] * tile.nr


def buffer_size(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Elements in which a thread turns results; 0 where they leave the registers in the order of memory."""
    if not turns(spec, tile):
        return 0
    width = tile.nr if not tile.merged else spec.channels // spec.groups
    return staged_size(spec, tile) + width * math.prod(spec.kernel)


def turns(spec: ConvWeightSpec, tile: ConvWeightTile) -> bool:
    """Whether vectors hold channels of one tap, which lie apart in the result."""
    return tile.inputs_across and math.prod(spec.kernel) > 1


def staged_size(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Elements of the rows that wait until all their taps are there."""
    return (1 if tile.lines else tile.mr) * math.prod(tile.taps) * tile.nr


def buffer_slots(spec: ConvWeightSpec, tile: ConvWeightTile) -> int:
    """Pieces of work at the end, each with a buffer of its own."""
    rows = tile.rows if tile.lines else -(-tile.rows // tile.mr)
    return min(_SLOTS, spec.groups * tile.panels * rows)
