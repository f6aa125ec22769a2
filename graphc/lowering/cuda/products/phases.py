"""Convolutions whose pixels have zeros between them, without multiplying these: a product for each phase of the stride.

How cotangents go back through strides, and transposed convolutions. Pixels of the result with the same remainder modulo
the stride (a phase, see `lowering/generic/phases.py`) meet the same taps of the filter. All phases are one launch, in
which blocks are numbered by phase along y; those with the most taps come first. The filter is stored phase by phase,
as [features, taps and channels].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

from graphc.ir.dim import DimLike, product
from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.lowering.cuda.emit import (
    Expr,
    cast,
    const,
    dtype_of,
    equal,
    i32,
    i64,
    pure,
    select,
    when,
)
from graphc.lowering.cuda.io import Kernel
from graphc.lowering.cuda.products import tiles
from graphc.lowering.cuda.products.dense import TileAt, pack_rows, product_kernel
from graphc.lowering.cuda.products.tiles import Units
from graphc.lowering.generic.index import unflatten
from graphc.lowering.generic.phases import Taps, taps_of
from graphc.lowering.generic.strides import Axis, Product
from graphc.lowering.packing import Packing
from graphc.ops import Concatenate, ConvGeneral, Fusion, Reshape, Slice, Transpose

__all__ = ["ConvolutionPhases", "phases_kernel"]


@dataclass(frozen=True)
class ConvolutionPhases:
    """A convolution of strides 1 over pixels with zeros between them.

    Attributes:
        op: what it computes.
        slots: operands of the kernel: pixels and filter.
        x, weight, result: their shapes, and the result's.
        units: what multiplies.
    """

    op: ConvGeneral
    slots: tuple[int, int]
    x: tuple[DimLike, ...]
    weight: tuple[int, ...]
    result: tuple[DimLike, ...]
    units: Units

    @cached_property
    def all(self) -> tuple[tuple[tuple[int, ...], tuple[Taps, ...]], ...]:
        """Remainders, and taps along each dimension: the most first."""
        op = self.op
        before = [low for low, _ in op.padding]
        rows = list(zip(self.weight[2:], op.rhs_dilation, op.lhs_dilation, before, strict=True))
        found = [
            (rest, tuple(taps_of(r, *row) for r, row in zip(rest, rows, strict=True)))
            for rest in itertools.product(*(range(hole) for hole in op.lhs_dilation))
        ]
        return tuple(sorted(found, key=lambda each: -math.prod(t.count for t in each[1])))

    @cached_property
    def depths(self) -> list[int]:
        """Taps times channels of each phase."""
        return [math.prod(t.count for t in taps) * self.weight[1] for _, taps in self.all]

    @cached_property
    def rows(self) -> list[int]:
        """The same in whole steps: elements of the filter's rows."""
        return [-(-depth // self.units.depth) * self.units.depth for depth in self.depths]

    @property
    def mean(self) -> int:
        """Steps of K, on average."""
        return max(1, -(-sum(self.rows) // (self.units.depth * len(self.all))))

    @property
    def pixels(self) -> tuple[DimLike, ...]:
        """[N, *pixels] of the largest phase."""
        batch, *sizes, _ = self.result
        holes = self.op.lhs_dilation
        return (batch, *((d + (hole - 1)) // hole for d, hole in zip(sizes, holes, strict=True)))

    def product(self) -> Product:
        """The products: phases are a batch."""
        last = len(self.result) - 1
        return Product(
            (Axis(len(self.all), 0, 0),),
            Axis(product(self.pixels), 0, 0, tuple(range(last))),
            Axis(self.result[-1], 0, sum(self.rows), (last,)),
            Axis(max(self.rows), 1, 1),
        )

    def packed(self, b: GraphBuilder, w: Value) -> Value:
        """The filter as it is stored."""
        rank, parts = len(self.weight), []
        for depth, row, (_, taps) in zip(self.depths, self.rows, self.all, strict=True):
            if depth == 0:
                continue
            limit = [t.first + (t.count - 1) * t.step + 1 for t in taps]
            start = (0, 0, *(t.first for t in taps))
            met = b(Slice(start, (*self.weight[:2], *limit), (1, 1, *(t.step for t in taps))), w)
            flat = b(Reshape((self.weight[0], depth)), b(Transpose((0, *range(2, rank), 1)), met))
            parts.append(pack_rows(b, flat, row))
        return parts[0] if len(parts) == 1 else b(Concatenate(1), *parts)

    # In an open kernel

    def _of(self, at: TileAt, values: Sequence[int]) -> DimLike:
        """One of the phases' numbers, by the tile's phase."""
        if len(set(values)) == 1:
            return values[0]
        number = at.e.expr(at.batch[0])
        found = i32(values[-1])
        for i, value in reversed(list(enumerate(values[:-1]))):
            found = select(equal(number, const(i, dtype_of(number))), i32(value), found)
        return at.e.bound(found, min(values), max(values))

    def steps(self, at: TileAt) -> DimLike:
        """Steps of K of the tile's phase."""
        return self._of(at, [row // self.units.depth for row in self.rows])

    @contextmanager
    def placed(self, at: TileAt, row: DimLike, index: list[DimLike]) -> Iterator[None]:
        """Writes the pixel that a row of the phase is to `index`; inside, it is one of the result's."""
        e = at.e
        image, *pixel = (
            e.bound(e.expr(i), 0, d - 1)
            for i, d in zip(unflatten(row, self.pixels), self.pixels, strict=True)
        )
        index[0] = image
        with ExitStack() as stack:
            for d, (i, hole) in enumerate(zip(pixel, self.op.lhs_dilation, strict=True)):
                size = self.result[1 + d]
                place = e.expr(i * hole + self._of(at, [rest[d] for rest, _ in self.all]))
                if not (isinstance(size, int) and size % hole == 0):
                    stack.enter_context(when(place < cast(e.expr(size), dtype_of(place))))
                    stack.enter_context(e.scope())
                index[1 + d] = e.bound(place, 0, size - 1)
            yield

    def loader(self, at: TileAt, side: int) -> Expr:
        """Those of the pixels under the taps of the phase, and of the filter."""
        return self._filter(at) if side else self._windows(at)

    def _filter(self, at: TileAt) -> Expr:
        e, first = at.e, at.first[1]
        starts = list(itertools.accumulate(self.rows, initial=0))[:-1]
        base = at.io.operands[self.slots[1]].address(
            e.expr(first * sum(self.rows) + self._of(at, starts))
        )
        left, depth = e.expr(self.result[-1] - first), e.expr(self._of(at, self.rows))
        return tiles.rows(self.units, at.tile.n, at.tile, base, i64(sum(self.rows)), left, depth)

    def _windows(self, at: TileAt) -> Expr:
        e, channels = at.e, self.weight[1]
        reach = [max(taps[d].reach for _, taps in self.all) for d in range(len(self.weight) - 2)]
        template = (self.units.element, at.tile.m, at.tile.threads, channels, *_two(reach, 1))
        shifts = [self._of(at, [-taps[d].shift for _, taps in self.all]) for d in range(len(reach))]
        across = self._of(at, [max(taps[-1].count, 1) for _, taps in self.all])
        sizes = (
            *_two(self.x[1:-1], 1),
            *_two(self.pixels[1:], 1),
            *_two(shifts, 0),
            across,
            self._of(at, self.depths),
        )
        return pure(
            f"graphc_phase_windows<{', '.join(map(str, template))}>",
            "int32",
            at.io.operands[self.slots[0]].address(i32(0)),
            cast(e.expr(at.first[0]), "int64"),
            i64(e.wide(product(self.pixels))),
            *(cast(e.expr(size), "int32") for size in sizes),
        )


def phases_kernel(fusion: Fusion, root: Node, phases: ConvolutionPhases) -> Kernel:
    """The kernel of a root that is such a convolution."""
    op, units = phases.op, phases.units
    before = [low for low, _ in op.padding]
    name = f"phases{op.lhs_dilation}{op.rhs_dilation}{before}/{units.depth}"
    packing = {phases.slots[1]: Packing.written(name, phases.packed)}
    return product_kernel(
        fusion, root, phases.product(), units, phases.loader, packing, phases=phases
    )


def _two(values: Sequence[DimLike], one: DimLike) -> tuple[DimLike, ...]:
    """Height and width; of one dimension, it is the width."""
    return tuple(values) if len(values) == 2 else (one, *values)
