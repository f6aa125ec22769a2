"""Convolution over an input with holes: transposed convolution, directly and without multiplying zeros.

Every phase (see :mod:`graphc.lowering.generic.phases`) is an ordinary convolution with stride 1 over
the input without its holes, with every n-th tap of the weights. Each is emitted by
:func:`graphc.lowering.cpu.families.convolution.direct.emit_conv`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    View,
    ceil_div,
    const,
    floor_div,
    fused_loop,
    static,
)
from graphc.lowering.cpu.families.convolution.direct import (
    ConvSpec,
    ConvTile,
    choose_conv,
    emit_conv,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.tiling import channel_blocks
from graphc.lowering.generic.phases import Taps, taps_of

__all__ = ["HoledConvSpec", "choose_holed_conv", "emit_holed_conv", "halo"]


@dataclass(frozen=True)
class HoledConvSpec:
    """What is convolved; strides are 1.

    Attributes:
        batch: images.
        output: spatial extents of the result, slowest first; one to three of them.
        channels, features: input and output channels, of all groups.
        kernel, dilation: of the weights, per spatial dimension.
        holes: distance between neighbours of the input (its ``lhs_dilation``), per dimension.
        before: zeros before the first element of the input, per dimension; less than ``holes``,
            since whole elements belong to the input's :func:`halo`. Negative crops.
        groups: channels and features fall into this many independent groups.
        dtype: element type of input, weights and accumulation.
    """

    batch: Extent
    output: tuple[Extent, ...]
    channels: int
    features: int
    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    holes: tuple[int, ...]
    before: tuple[int, ...]
    groups: int = 1
    dtype: str = "float32"
    functions: int = 0

    def __post_init__(self) -> None:
        if any(low >= hole for low, hole in zip(self.before, self.holes, strict=True)):
            raise ValueError("padding of a whole element and more belongs to the input's halo")

    def dense(self) -> ConvSpec:
        """The largest phase as an ordinary convolution, for choosing a tile."""
        return ConvSpec(
            self.batch,
            tuple(ceil_div(o, h) for o, h in zip(self.output, self.holes, strict=True)),
            self.channels,
            self.features,
            tuple(-(-k // h) for k, h in zip(self.kernel, self.holes, strict=True)),
            (1,) * len(self.kernel),
            (1,) * len(self.kernel),
            self.groups,
            self.dtype,
            self.functions,
        )


def halo(padding: Sequence[tuple[int, int]], holes: Sequence[int]) -> list[tuple[int, int]]:
    """Whole zero elements that (before, after) ``padding`` of a holed input amounts to."""
    return [
        (max(low, 0) // hole, max(high, 0) // hole)
        for (low, high), hole in zip(padding, holes, strict=True)
    ]


def choose_holed_conv(spec: HoledConvSpec, target: CpuTarget) -> ConvTile:
    """The tile of every phase; its ``nr`` is the width to pack weights with (``pack_conv``)."""
    return choose_conv(spec.dense(), target)


def emit_holed_conv(
    spec: HoledConvSpec,
    target: CpuTarget,
    x: View,
    w: View,
    finish: Finish,
    *,
    tile: ConvTile | None = None,
) -> None:
    """Emits the loops of a convolution over a holed input into the open kernel.

    Args:
        spec: what is convolved.
        target: the instruction set.
        x: the input without its holes, ``(n, *positions, c)``; position 0 is the first element of
            its halo, to which ``spec.before`` refers.
        w: weights as ``pack_conv`` makes them, indexed ``(group, panel, *tap, channel, column)``.
        finish: receives results at index ``(n, *output, feature)``.
        tile: by default :func:`choose_holed_conv`'s; ``w`` must have its ``nr``.
    """
    tile = tile or choose_holed_conv(spec, target)
    for phase in itertools.product(*(range(h) for h in spec.holes)):
        known = [static(o) for o in spec.output]
        if any(o is not None and o <= r for o, r in zip(known, phase, strict=True)):
            continue
        taps = [
            taps_of(*parts)
            for parts in zip(
                phase, spec.kernel, spec.dilation, spec.holes, spec.before, strict=True
            )
        ]
        _emit_phase(spec, target, x, w, finish, tile, phase, taps)


def _emit_phase(
    spec: HoledConvSpec,
    target: CpuTarget,
    x: View,
    w: View,
    finish: Finish,
    tile: ConvTile,
    phase: tuple[int, ...],
    taps: Sequence[Taps],
) -> None:
    """The output positions of one phase."""
    output = tuple(
        # Positions r, r + h, ... below o, counted so that no numerator is negative for o >= 0.
        floor_div(o + (h - 1 - r), h)
        for o, r, h in zip(spec.output, phase, spec.holes, strict=True)
    )

    def spread(index: Sequence[Extent], value: Expr, lanes: int) -> None:
        n, *inner, feature = index
        places = [q * h + r for q, h, r in zip(inner, spec.holes, phase, strict=True)]
        finish((n, *places, feature), value, lanes)

    if any(t.count == 0 for t in taps):
        _emit_zeros(spec, target, output, spread)
        return
    dense = replace(
        spec.dense(),
        output=output,
        kernel=tuple(t.count for t in taps),
        dilation=tuple(t.reach for t in taps),
    )
    # Negative shifts cannot occur: the halo holds every element that a tap can meet.
    data = x.shifted((0, *(t.shift for t in taps), 0))
    weights = w.shifted((0, 0, *(t.first for t in taps), 0, 0))
    strides = list(weights.strides)
    for d, t in enumerate(taps):
        strides[2 + d] = strides[2 + d] * t.step
    weights = replace(weights, strides=tuple(strides))
    emit_conv(dense, target, data, weights, spread, tile=tile)


def _emit_zeros(
    spec: HoledConvSpec, target: CpuTarget, output: tuple[Extent, ...], finish: Finish
) -> None:
    """Positions that no tap reaches: where the kernel is shorter than the distance of elements."""
    lanes = target.lanes(spec.dtype)
    with fused_loop((spec.batch, *output)) as index:

        def block(c: Extent, pieces: list[tuple[int, int]]) -> None:
            for offset, width in pieces:
                finish((*index, c + offset), const(0.0, spec.dtype, width), width)

        channel_blocks(spec.features, lanes, 1, block)
