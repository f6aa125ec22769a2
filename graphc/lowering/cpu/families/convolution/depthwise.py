"""Depthwise convolution: every channel with its own kernel, vectors along channels.

The input ``[N, *spatial, C]`` already holds its halo. A register tile is a run of output positions
along W by up to two vectors of channels, whose taps are all unrolled: neighbouring windows share
most of their input, which then comes from registers or the first-level cache.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from graphc.lowering.cpu.emit import (
    Extent,
    Finish,
    Operand,
    Registers,
    View,
    bind,
    ceil_div,
    const,
    fused_loop,
    product,
    static,
    work_of,
    worth_threads,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import RowTiles, channel_blocks

__all__ = ["DepthwiseSpec", "emit_depthwise", "emit_depthwise_tile"]

# Taps up to this many are unrolled; above, only those of the last dimension are.
_UNROLLED_TAPS = 30


@dataclass(frozen=True)
class DepthwiseSpec:
    """What is convolved.

    Attributes:
        batch: images.
        output: spatial extents of the result, slowest first; one to three of them.
        channels: channels of input and result.
        kernel, strides, dilation: per spatial dimension.
        dtype: element type of input, weights and accumulation.
        functions: functions, such as tanh, that are computed for each result.
    """

    batch: Extent
    output: tuple[Extent, ...]
    channels: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    dtype: str = "float32"
    functions: int = 0

    def __post_init__(self) -> None:
        rank = len(self.output)
        if not rank == len(self.kernel) == len(self.strides) == len(self.dilation):
            raise ValueError("output, kernel, strides and dilation differ in rank")

    @property
    def flops(self) -> Extent:
        """Floating-point operations, a multiply-add counting two."""
        per = product((2, product(self.kernel), self.channels))
        return product((self.batch, *self.output, per))

    @property
    def work(self) -> Extent:
        """All arithmetic, as threads would share it."""
        return work_of(self.flops, self.functions, (self.batch, *self.output, self.channels))


def emit_depthwise(
    spec: DepthwiseSpec, target: CpuTarget, x: Operand, w: View, finish: Finish
) -> None:
    """Emits the loops of a depthwise convolution into the open kernel.

    Args:
        spec: what is convolved.
        target: the instruction set.
        x: read at ``(n, *positions, c)``, where output ``o`` reads positions
            ``o * stride + tap * dilation``: position 0 is the first tap of output 0, in the halo.
        w: weights as ``packing.pack_depthwise`` makes them, indexed ``(*tap, c)``.
        finish: receives results at index ``(n, *output, c)``.
    """
    lanes = target.lanes(spec.dtype)
    while lanes > 1 and lanes // 2 >= spec.channels:
        lanes //= 2
    vectors = 2 if spec.channels >= 2 * lanes else 1
    # Accumulators take half of the registers; the other half holds weights and input in flight.
    height = max(1, target.vector_registers // (2 * vectors))
    *outer, width = spec.output
    columns = RowTiles(width, min(height, static(width) or height))
    per_task: int = (static(columns.number) or 4) if outer else 1
    chunks = ceil_div(columns.number, per_task)

    def task(indices: tuple[Extent, ...]) -> None:
        n, *position, chunk = indices

        def block(c: Extent, pieces: list[tuple[int, int]]) -> None:
            def one(start: Extent, count: int) -> None:
                emit_depthwise_tile(spec, x, w, finish, (n, *position), start, count, c, pieces)

            columns.emit(chunk, per_task, one)

        channel_blocks(spec.channels, lanes, vectors, block)

    threads = worth_threads(spec.work)
    shared_loop((spec.batch, *outer, chunks), task, threads=threads, flops=spec.work)


def emit_depthwise_tile(
    spec: DepthwiseSpec,
    x: Operand,
    w: View,
    finish: Finish,
    outer: tuple[Extent, ...],
    start: Extent,
    count: int,
    c: Extent,
    pieces: list[tuple[int, int]],
) -> None:
    """``count`` neighbouring output positions from ``start`` on, of one block of channels at ``c``.

    ``outer`` are the image and the other output positions, ``pieces`` the ``(offset, lanes)`` of the block's vectors.
    """
    n, *position = outer
    width = sum(lanes for _, lanes in pieces)
    acc = Registers(count, width, spec.dtype)
    for q in range(count):
        for offset, lanes in pieces:
            acc.set(const(0.0, spec.dtype, lanes), q, offset)

    def step(tap: tuple[Extent, ...]) -> None:
        weights = [bind(w.load((*tap, c + offset), lanes)) for offset, lanes in pieces]
        for q in range(count):
            where = [
                o * s + t * d
                for o, s, t, d in zip(
                    (*position, start + q), spec.strides, tap, spec.dilation, strict=True
                )
            ]
            for (offset, lanes), weight in zip(pieces, weights, strict=True):
                value = x.load((n, *where, c + offset), lanes)
                acc.set(acc.get(q, offset, lanes) + value * weight, q, offset)

    if product(spec.kernel) <= _UNROLLED_TAPS:
        for tap in itertools.product(*(range(k) for k in spec.kernel)):
            step(tap)
    else:
        with fused_loop(spec.kernel[:-1]) as slow:
            for last in range(spec.kernel[-1]):
                step((*slow, last))
    for q in range(count):
        for offset, lanes in pieces:
            finish((n, *position, start + q, c + offset), acc.get(q, offset, lanes), lanes)
