"""How the results of a weight gradient leave the registers.

The result's taps are its innermost dimensions, while vectors hold channels of one tap. So a row's vectors of all taps
wait in a small buffer that stays in cache, are turned there, and leave it in the order of memory.
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
    View,
    along,
    bind,
    ceil_div,
    floor_div,
    i64,
    loop,
    product,
    remainder,
    shuffle,
    vector_pieces,
    when,
)
from graphc.lowering.cpu.families.convolution.weight_spec import (
    ConvWeightSpec,
    ConvWeightTile,
    buffer_size,
    buffer_slots,
    staged_size,
    turns,
)

__all__ = ["Finish", "Output"]


class Finish(Protocol):
    """What receives results."""

    def run(self, feature: Extent, entry: Extent, value: Expr, lanes: int) -> None:
        """Takes ``lanes`` results of an output channel, from ``entry`` on of its flat ``[inputs, *kernel]``."""

    def across(
        self, feature: Extent, row: Extent, taps: Sequence[Extent], value: Expr, lanes: int
    ) -> None:
        """Takes the results of ``lanes`` output channels from ``feature`` on, for one row and tap of a tile."""

    def fetch(self, feature: Extent, entry: Extent) -> None:
        """Asks for the cache line of what `run` will read for an entry."""


@dataclass(frozen=True)
class Output:
    """Where results go: turned in a buffer, or straight to `finish`. The buffers start at `start` of the scratch."""

    spec: ConvWeightSpec
    tile: ConvWeightTile
    finish: Finish
    scratch: View | None
    start: int

    def tasks(self, extents: Sequence[Extent], threads: bool, body: Callable[..., None]) -> None:
        """``body(slot, *indices)`` over the product of ``extents``, at most one at a time for each slot."""
        tasks = product(extents)
        slots = buffer_slots(self.spec, self.tile)
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
        spec, tile = self.spec, self.tile
        if not tile.inputs_across:
            first = group * (spec.features // spec.groups) + panel * tile.nr
            self.finish.across(first + column, row + inside, taps, value, lanes)
            return
        if not turns(spec, tile):
            feature = group * tile.rows + row + inside
            self.finish.run(feature, panel * tile.nr + column, value, lanes)
            return
        self._stage(slot).store(value, (inside, _flat(taps, tile.taps), column))

    def fetch(
        self, group: Extent, row: Extent, rows: int, panel: Extent, taps: Sequence[Extent]
    ) -> None:
        """Asks for one tap's share of what the results of some rows will be combined with, while they are summed.

        Memory brings weights and momentum no faster than a thread computes their gradient: one after the other, both
        would take twice as long.
        """
        tile = self.tile
        if not tile.inputs_across:
            return
        line = 64 // np.dtype(self.spec.dtype).itemsize
        width = tile.columns if tile.merged else tile.nr
        start = panel * (tile.nr * math.prod(self.spec.kernel)) + _flat(taps, tile.taps) * width
        for r in range(rows):
            for at in range(0, width, line):
                self.finish.fetch(group * tile.rows + row + r, start + at)

    def done(
        self, slot: Extent, group: Extent, row: Extent, rows: int, panel: Extent, width: int
    ) -> None:
        """Finishes the rows whose taps have all been put."""
        spec, tile = self.spec, self.tile
        if not turns(spec, tile):
            return
        stage, turned = self._stage(slot), self._turned(slot)
        taps, inputs = math.prod(spec.kernel), spec.channels // spec.groups
        with loop(rows) as r:
            with loop(math.prod(tile.taps)) as tap:
                for c, lanes in vector_pieces(width, tile.lanes):
                    value = bind(stage.load((r, tap, c), lanes))
                    if not tile.merged:
                        turned.store(value, (tap, c))
                        continue
                    for lane in range(lanes):
                        last, entry = divmod(c + lane, inputs)
                        place = (tap * spec.kernel[-1] + last, entry)
                        turned.store(shuffle([value], [lane]), place)
            feature = group * tile.rows + row + r
            flat = replace(turned, strides=(1,))

            def piece(at: Extent, lanes: int) -> None:
                value = bind(flat.load((at,), lanes))
                self.finish.run(feature, panel * (tile.nr * taps) + at, value, lanes)

            along((inputs if tile.merged else width) * taps, tile.lanes, piece)

    def _stage(self, slot: Extent) -> View:
        """A slot's rows, indexed (row, tap, column)."""
        assert self.scratch is not None
        tile = self.tile
        strides = (math.prod(tile.taps) * tile.nr, tile.nr, 1)
        return View(self.scratch.buffer, self.scratch.dtype, strides, self._offset(slot))

    def _turned(self, slot: Extent) -> View:
        """A slot's row in the order of memory, indexed (tap, column)."""
        assert self.scratch is not None
        spec, tile = self.spec, self.tile
        start = self._offset(slot) + staged_size(spec, tile)
        return View(self.scratch.buffer, self.scratch.dtype, (1, math.prod(spec.kernel)), start)

    def _offset(self, slot: Extent) -> Extent:
        assert self.scratch is not None
        size = buffer_size(self.spec, self.tile)
        return self.scratch.offset + self.start + slot * size


def _flat(taps: Sequence[Extent], kernel: Sequence[int]) -> Extent:
    """The number of a tap in row-major order."""
    number: Extent = 0
    for tap, size in zip(taps, kernel, strict=True):
        number = number * size + tap
    return number
