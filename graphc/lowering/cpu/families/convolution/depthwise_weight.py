"""Gradients of depthwise convolutions by their weights: every channel by itself, vectors along channels.

``dW[c, *tap] = sum over (n, *p) of dy[n, *p, c] * x[n, *(p * stride + tap * dilation), c]``. The taps of a few vectors
of channels are summed in registers over a block of lines of pixels, then added to memory, which keeps long sums
accurate. Blocks are dealt to a fixed number of parts, added up at the end: the result does not depend on the number of
threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Registers,
    View,
    bind,
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
    static,
    worth_threads,
)
from graphc.lowering.cpu.families.convolution.depthwise import DepthwiseSpec
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import channel_blocks

__all__ = ["FinishTap", "depthwise_weight_scratch", "emit_depthwise_weight"]

_BLOCK = 256  # pixels that an accumulator takes before it is added to memory
_PARTS = 8  # partial results, and so pieces of work

FinishTap = Callable[[Sequence[Extent], Extent, Expr, int], None]
"""``finish(taps, channel, value, lanes)`` stores ``lanes`` results from a channel on."""


def _lines(spec: DepthwiseSpec) -> Extent:
    return product((spec.batch, *spec.output[:-1]))


def _parts(spec: DepthwiseSpec) -> int:
    lines = static(_lines(spec))
    per_block = max(1, _BLOCK // _width(spec))
    return _PARTS if lines is None else max(1, min(_PARTS, -(-lines // per_block)))


def _width(spec: DepthwiseSpec) -> int:
    width = static(spec.output[-1])
    assert width is not None
    return width


def depthwise_weight_scratch(spec: DepthwiseSpec) -> int:
    """Bytes of scratch memory that :func:`emit_depthwise_weight` needs."""
    count = _parts(spec) * math.prod(spec.kernel) * spec.channels
    return count * np.dtype(spec.dtype).itemsize


def emit_depthwise_weight(
    spec: DepthwiseSpec,
    target: CpuTarget,
    x: View,
    dy: View,
    finish: FinishTap,
    scratch: View,
) -> None:
    """Emits the loops of a weight gradient into the open kernel.

    Args:
        spec: the convolution; its spatial extents are static.
        target: the instruction set.
        x: read at ``(n, *positions, c)``; position 0 is the first tap of output 0, in the halo.
        dy: read at ``(n, *output, c)``.
        finish: receives the results.
        scratch: a flat view of ``depthwise_weight_scratch`` bytes.
    """
    parts = _parts(spec)
    shape = (parts, *spec.kernel, spec.channels)
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    partial = View(scratch.buffer, spec.dtype, strides, scratch.offset)
    lanes = target.lanes(spec.dtype)
    while lanes > 1 and lanes // 2 >= spec.channels:
        lanes //= 2
    taps = math.prod(spec.kernel)
    spare = target.vector_registers - 4
    together = spec.kernel if taps <= spare else spec.kernel[-1:]
    vectors = 2 if 2 * math.prod(together) <= spare and spec.channels >= 2 * lanes else 1
    looped = spec.kernel[: len(spec.kernel) - len(together)]
    per_block = max(1, _BLOCK // _width(spec))
    blocks = ceil_div(_lines(spec), per_block)
    share = ceil_div(blocks, parts)

    def task(indices: tuple[Extent, ...]) -> None:
        (part,) = indices

        def block(channel: Extent, pieces: list[tuple[int, int]]) -> None:
            with fused_loop(looped) as outer, loop(share) as i:
                first = (part * share + i) * per_block
                left = minimum_extent(_lines(spec) - first, per_block)
                lines = maximum_extent(left, 0)
                acc = _accumulated(spec, x, dy, outer, together, channel, pieces, first, lines)
                for t, tap in enumerate(itertools.product(*(range(k) for k in together))):
                    for offset, width in pieces:
                        place = (part, *outer, *tap, channel + offset)
                        value = acc.get(t, offset, width)
                        _add(partial, place, value, width, i)

        channel_blocks(spec.channels, lanes, vectors, block)

    shared_loop((parts,), task, threads=worth_threads(spec.flops), flops=spec.flops)
    with fused_loop(spec.kernel) as tap:

        def total(channel: Extent, pieces: list[tuple[int, int]]) -> None:
            for offset, width in pieces:
                value = partial.load((0, *tap, channel + offset), width)
                for part in range(1, parts):
                    value = value + partial.load((part, *tap, channel + offset), width)
                finish(tap, channel + offset, bind(value), width)

        channel_blocks(spec.channels, lanes, 1, total)


def _add(partial: View, place: Sequence[Extent], value: Expr, lanes: int, block: Extent) -> None:
    """Adds a block's sum, the first of which replaces what is there."""
    from tvm.script.ir_builder import tirx as t

    if static(block) == 0:
        partial.store(value, place)
        return
    with t.If(i64(block) == i64(0)):
        with t.Then():
            partial.store(value, place)
        with t.Else():
            partial.store(partial.load(place, lanes) + value, place)


def _accumulated(
    spec: DepthwiseSpec,
    x: View,
    dy: View,
    outer: Sequence[Extent],
    together: Sequence[int],
    channel: Extent,
    pieces: list[tuple[int, int]],
    first: Extent,
    lines: Extent,
) -> Registers:
    """The taps of a block of channels, summed over ``lines`` lines from ``first`` on."""
    taps = list(itertools.product(*(range(k) for k in together)))
    acc = Registers(len(taps), sum(lanes for _, lanes in pieces), spec.dtype)
    for t in range(len(taps)):
        for offset, lanes in pieces:
            acc.set(const(0.0, spec.dtype, lanes), t, offset)
    with loop(lines if isinstance(lines, int) else bind(i64(lines))) as i:
        rest, position = first + i, list[Extent]()
        for size in reversed(spec.output[:-1]):
            position.insert(0, bind(i64(remainder(rest, size))))
            rest = bind(i64(floor_div(rest, size)))
        with loop(_width(spec)) as w:
            pixel = (*position, w)
            given = [bind(dy.load((rest, *pixel, channel + c), lanes)) for c, lanes in pieces]
            for t, tap in enumerate(taps):
                where = [
                    p * s + k * d
                    for p, s, k, d in zip(
                        pixel, spec.strides, (*outer, *tap), spec.dilation, strict=True
                    )
                ]
                for (c, lanes), value in zip(pieces, given, strict=True):
                    read = x.load((rest, *where, channel + c), lanes)
                    acc.set(acc.get(t, c, lanes) + value * read, t, c)
    return acc
