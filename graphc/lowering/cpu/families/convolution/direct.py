"""Convolution in one to three spatial dimensions, directly, channels last.

The input ``[N, *spatial, C]`` already holds its halo, so that every window lies inside it and padding
costs nothing here. A register tile is a run of output positions along W (and a few along H) by
``nr`` output channels; for each tap and input channel one element of the input is broadcast against
``nr / lanes`` vectors of weights, packed ``[groups, OC / nr, *kernel, IC, nr]``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

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
    const,
    i64,
    loop,
    near,
    near_equal_tiles,
    prefetch,
    product,
    splat,
    static,
    vector_pieces,
    work_of,
    worth_threads,
)
from graphc.lowering.cpu.families.dense.spec import register_rows
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import RowTiles, hand_over

__all__ = ["ConvSpec", "ConvTile", "choose_conv", "emit_conv", "is_matmul"]

# Weights up to this size stay in a core's second-level cache while it walks over pixels.
_RESIDENT_BYTES = 1_300_000
# A panel of weights up to this size stays in the first-level cache.
_PANEL_BYTES = 24 * 1024


@dataclass(frozen=True)
class ConvSpec:
    """What is convolved.

    Attributes:
        batch: images.
        output: spatial extents of the result, slowest first; one to three of them.
        channels: input channels, of all groups.
        features: output channels, of all groups.
        kernel, strides, dilation: per spatial dimension.
        groups: channels and features fall into this many independent groups.
        dtype: element type of input, weights and accumulation.
        functions: functions, such as tanh, that are computed for each result.
    """

    batch: Extent
    output: tuple[Extent, ...]
    channels: int
    features: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    dtype: str = "float32"
    functions: int = 0

    def __post_init__(self) -> None:
        rank = len(self.output)
        if not rank == len(self.kernel) == len(self.strides) == len(self.dilation):
            raise ValueError("output, kernel, strides and dilation differ in rank")
        if self.channels % self.groups or self.features % self.groups:
            raise ValueError(
                f"{self.channels} channels and {self.features} features in {self.groups} groups"
            )

    @property
    def flops(self) -> Extent:
        """Floating-point operations, a multiply-add counting two."""
        taps = product(self.kernel)
        per = product((2, taps, self.channels // self.groups, self.features))
        return product((self.batch, *self.output, per))

    @property
    def work(self) -> Extent:
        """All arithmetic, as threads would share it."""
        return work_of(self.flops, self.functions, (self.batch, *self.output, self.features))

    @property
    def weight_bytes(self) -> int:
        """Bytes of the unpacked weights."""
        count = self.features * (self.channels // self.groups) * int(np.prod(self.kernel))
        return count * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class ConvTile:
    """How a convolution is cut up.

    Attributes:
        th, tw: output positions of a register tile along H and W.
        nr: output channels of a register tile.
        lanes: elements of one vector; divides ``nr``.
        pixels_first: tasks are numbered along pixels first (weights stay near, whole pixels are
            finished together); otherwise along output channels first.
        w_tiles: register tiles along W per task.
        threads: whether tasks are shared out among threads.
        ahead: input channels of weights to prefetch ahead of their use; 0 for none.
    """

    th: int
    tw: int
    nr: int
    lanes: int
    pixels_first: bool
    w_tiles: int
    threads: bool
    ahead: int


def is_matmul(spec: ConvSpec) -> bool:
    """Whether the convolution is a product ``[N * pixels, C] @ [C, OC]`` (over a dense input)."""
    return spec.groups == 1 and all(k == 1 for k in spec.kernel) and set(spec.strides) == {1}


def choose_conv(spec: ConvSpec, target: CpuTarget) -> ConvTile:
    """The tile for a convolution: the cheapest by a small model of the inner loop.

    Per tap and channel a tile of ``r`` positions by ``v`` vectors costs ``r v`` multiply-adds, and
    about a sixth of one for each of its ``r + v`` loads. Below eight multiply-adds their latency
    shows, and below six for every 64 bytes of weights that come from the second-level cache, how
    long that takes. Partial panels and tiles count at full price. The order follows the size of the
    weights (see ``benchmarks/NOTES.md``).
    """
    features = spec.features // spec.groups
    lanes = target.lanes(spec.dtype)
    while lanes > 1 and lanes // 2 >= features:
        lanes //= 2
    width = static(spec.output[-1])
    height = static(spec.output[-2]) if len(spec.output) > 1 else 1
    best: tuple[float, int, int, int] | None = None
    for vectors in range(4 if target.vector_registers == 32 else 3, 0, -1):
        panels = -(-features // (vectors * lanes))
        most = register_rows(target, vectors, plain=True)
        if spec.channels == 1 and spec.kernel[-1] > 1:
            # Neighbouring taps read the same elements: LLVM keeps those of a whole tile at hand.
            most = max(1, min(most, (target.vector_registers - vectors) // (vectors + 1)))
        for th in (1, 2, 3, 4):
            if th > most or (th > 1 and (height is None or width is None)):
                continue
            columns = near_equal_tiles(width or 56, most // th)
            rows = near_equal_tiles(height or 1, th) if th > 1 else [(0, height or 1, 1)]
            panel = (
                math.prod(spec.kernel)
                * spec.channels
                // spec.groups
                * vectors
                * target.vector_bits
                // 8
            )
            least = max(8, 6 * vectors * target.vector_bits // 512 if panel > _PANEL_BYTES else 0)
            cost = 0.0
            for (_, high, h), (_, wide, w) in itertools.product(rows, columns):
                cost += high * wide * (max(h * w * vectors, least) + (h * w + vectors) / 6 + 0.5)
            # A second tile size is compiled too, and slightly slower to decide on.
            cost *= panels * (1 + 0.01 * (len(rows) * len(columns) - 1) + 0.01 * (th - 1))
            cost *= 1.02 if features % (vectors * lanes) else 1.0
            if best is None or cost < best[0]:
                best = (cost, th, max(tile for _, _, tile in columns), vectors)
    assert best is not None
    _, th, tw, vectors = best
    if width is None:
        tw = register_rows(target, vectors, plain=True)
    tiles = ceil_div(spec.output[-1], tw)
    known = static(tiles)
    return ConvTile(
        th=th,
        tw=tw,
        nr=vectors * lanes,
        lanes=lanes,
        pixels_first=spec.weight_bytes // spec.groups <= _RESIDENT_BYTES,
        w_tiles=(known or 8) if len(spec.output) > 1 else min(known or 8, 8),
        threads=worth_threads(spec.work, spec.weight_bytes),
        ahead=16 if spec.weight_bytes > _RESIDENT_BYTES and spec.channels >= 16 else 0,
    )


def emit_conv(
    spec: ConvSpec,
    target: CpuTarget,
    x: Operand,
    w: View,
    finish: Finish,
    *,
    tile: ConvTile | None = None,
    finish_run: Finish | None = None,
    rolled: bool = False,
) -> None:
    """Emits the loops of a convolution into the open kernel.

    Args:
        spec: what is convolved.
        target: the instruction set.
        x: read at ``(n, *positions, c)``, where output ``o`` reads positions
            ``o * stride + tap * dilation``: position 0 is the first tap of output 0, in the halo.
        w: packed weights, indexed ``(group, panel, *tap, channel, column)``.
        finish: receives results at index ``(n, *output, feature)``.
        tile: by default :func:`choose_conv`'s; ``w`` must have its ``nr``.
        finish_run: the same for vectors that go on beyond the last feature, into the next position: with it,
            channels that do not fill a vector are finished together with those of the pixel beside.
        rolled: whether ``finish`` is long, see `tiling.hand_over`.
    """
    tile = tile or choose_conv(spec, target)
    if rolled or spec.features > tile.nr or spec.features % tile.lanes == 0:
        finish_run = None
    features = spec.features // spec.groups
    full, rest = divmod(features, tile.nr)
    panels = full + (1 if rest else 0)
    *outer, width = spec.output
    height = RowTiles(outer[-1], tile.th) if outer else None
    if height is not None:
        outer[-1] = height.number
    columns = RowTiles(width, tile.tw)
    chunks = ceil_div(columns.number, tile.w_tiles)
    pixels = (spec.batch, *outer, chunks)
    channels = (spec.groups, panels)
    order = (*pixels, *channels) if tile.pixels_first else (*channels, *pixels)

    def task(indices: tuple[Extent, ...]) -> None:
        if tile.pixels_first:
            (*position, chunk), (group, panel) = indices[: len(pixels)], indices[len(pixels) :]
        else:
            (group, panel), (*position, chunk) = indices[:2], indices[2:]
        n, *position = position

        def convolve(valid: int) -> None:
            def rows(first: Extent | None, th: int) -> None:
                slow = position if first is None else [*position[:-1], first]

                def one(start: Extent, tw: int) -> None:
                    where = _Place(n, tuple(slow), start, group, panel)
                    acc = _emit_tile(spec, tile, x, w, where, th, tw, valid)
                    if finish_run is not None and tw > 1:
                        _finish_rows(acc, tile, finish_run, where, th, tw, valid)
                    else:
                        _finish_pixels(acc, spec, tile, finish, where, th, valid, rolled)

                columns.emit(chunk, tile.w_tiles, one)

            if height is None:
                rows(None, 1)
            else:
                height.emit(position[-1], 1, rows)

        if not rest:
            convolve(tile.nr)
        elif not full:
            convolve(rest)
        else:
            branch(i64(panel) < i64(full), lambda: convolve(tile.nr), lambda: convolve(rest))

    shared_loop(order, task, threads=tile.threads, flops=spec.work, bytes_moved=spec.weight_bytes)


@dataclass(frozen=True)
class _Place:
    """Where a register tile lies: image, outer output position, first column, group, panel."""

    n: Extent
    outer: tuple[Extent, ...]
    column: Extent
    group: Extent
    panel: Extent

    def output(self, row: int, column: Extent) -> tuple[Extent, ...]:
        """The spatial output index of a position of the tile."""
        if not self.outer:
            return (self.column + column,)
        *slow, fast = self.outer
        return (*slow, fast + row, self.column + column)


def _emit_tile(
    spec: ConvSpec,
    tile: ConvTile,
    x: Operand,
    w: View,
    place: _Place,
    th: int,
    tw: int,
    valid: int,
) -> Registers:
    """One register tile of ``th`` by ``tw`` positions, a row each, and ``valid`` output channels."""
    channels = spec.channels // spec.groups
    spots = [(i, q) for i in range(th) for q in range(tw)]
    used = -(-valid // tile.lanes) * tile.lanes
    pieces = vector_pieces(used, tile.lanes)
    acc = Registers(len(spots), used, spec.dtype)
    for row in range(len(spots)):
        for column, lanes in pieces:
            acc.set(const(0.0, spec.dtype, lanes), row, column)

    def channels_from(tap: Sequence[Extent], first: Extent) -> Callable[[int], None]:
        where = [
            o * s + t * d
            for o, s, t, d in zip(place.output(0, 0), spec.strides, tap, spec.dilation, strict=True)
        ]
        inputs = near(x, (place.n, *where, place.group * channels + first))
        weights = w.near((place.group, place.panel, *tap, first, 0))
        still = (0,) * (len(tap) + 2)

        def step(c: int) -> None:
            if tile.ahead:
                for column, _ in pieces:
                    prefetch(weights.address((*still, c + tile.ahead, column)))
            vectors = [bind(weights.load((*still, c, column), lanes)) for column, lanes in pieces]
            for row, (i, q) in enumerate(spots):
                beside = (*still[: len(tap) - 1], i * spec.strides[-2] if i else 0)[: len(tap)]
                scalar = bind(inputs.load((*beside, q * spec.strides[-1], c)))
                for (column, lanes), vector in zip(pieces, vectors, strict=True):
                    acc.set(
                        acc.get(row, column, lanes) + splat(scalar, lanes) * vector, row, column
                    )

        return step

    with ExitStack() as stack:
        tap = tuple(stack.enter_context(loop(extent)) for extent in spec.kernel)
        _over_channels(channels, partial(channels_from, tap))
    return acc


def _finish_pixels(
    acc: Registers,
    spec: ConvSpec,
    tile: ConvTile,
    finish: Finish,
    place: _Place,
    th: int,
    valid: int,
    rolled: bool,
) -> None:
    """Hands over each position's channels."""
    tw = acc.rows // th
    for i in range(th):

        def give(q: Extent, column: Extent, value: Expr, lanes: int, i: int = i) -> None:
            feature = place.group * (spec.features // spec.groups) + place.panel * tile.nr + column
            finish((place.n, *place.output(i, q), feature), value, lanes)

        pieces = vector_pieces(valid, tile.lanes)
        hand_over(acc, pieces, give, rows=range(i * tw, (i + 1) * tw), rolled=rolled)


def _finish_rows(
    acc: Registers, tile: ConvTile, finish_run: Finish, place: _Place, th: int, tw: int, valid: int
) -> None:
    """Hands over the channels of all positions of a row as one run: side by side in a small buffer, where each
    position's zeros give way to the next one's channels.
    """
    whole = vector_pieces(acc.width, tile.lanes)
    for i in range(th):
        line = Registers(1, tw * valid + acc.width - valid, acc.dtype)
        for q in range(tw):
            for column, lanes in whole:
                line.set(acc.get(i * tw + q, column, lanes), 0, q * valid + column)
        for start, lanes in vector_pieces(tw * valid, tile.lanes):
            position, feature = divmod(start, valid)
            finish_run(
                (place.n, *place.output(i, position), feature), line.get(0, start, lanes), lanes
            )


def _over_channels(channels: int, start: Callable[[Extent], Callable[[int], None]]) -> None:
    """Emits ``start(first)(c)`` for every input channel ``first + c``, unrolled by four, wholly if there are few."""
    if channels < 8:
        step = start(0)
        for c in range(channels):
            step(c)
        return
    unroll = next(u for u in (4, 2, 1) if channels % u == 0)
    with loop(channels // unroll) as first:
        step = start(first * unroll)
        for c in range(unroll):
            step(c)
