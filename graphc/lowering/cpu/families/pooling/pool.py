"""Pooling windows, channels last, vectors along channels.

Windows are clipped at the borders of the input, so that padding needs no padded input: a maximum over
what exists is the maximum with minus infinity around it, and a sum the one with zeros. Along W, where
most windows lie wholly inside, those take an unrolled path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from graphc.lowering.cpu import vmath
from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    Operand,
    Registers,
    bind,
    branch,
    cast,
    const,
    i64,
    loop,
    maximum_extent,
    minimum_extent,
    product,
    splat,
    static,
    worth_threads,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import channel_blocks

__all__ = ["PoolSpec", "Taps", "emit_pool", "taps_of"]

_KINDS = ("max", "sum", "average")
# Vectors of channels handled together, to share the arithmetic on positions.
_VECTORS = 4


@dataclass(frozen=True)
class PoolSpec:
    """A sliding reduction.

    Attributes:
        kind: ``"max"`` (NaN wins), ``"sum"`` or ``"average"``.
        batch: images.
        input, output: spatial extents, slowest first; one to three of them.
        channels: channels of input and result.
        window, strides, dilation: per spatial dimension.
        padding: (before, after) per spatial dimension; negative crops. Every window lies within the
            padded input.
        count_include_pad: whether an average divides by the whole window even where it covers
            padding, which is PyTorch's default, or by the elements that exist.
        divisor: a divisor of averages that replaces the count.
        dtype: element type; sums and averages are accumulated in it.
    """

    kind: str
    batch: Extent
    input: tuple[Extent, ...]
    output: tuple[Extent, ...]
    channels: Extent
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    count_include_pad: bool = True
    divisor: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"pooling kind {self.kind!r} is not one of {', '.join(_KINDS)}")
        parts = (self.input, self.window, self.strides, self.padding, self.dilation)
        if any(len(part) != len(self.output) for part in parts):
            raise ValueError("input, output, window, strides, padding and dilation differ in rank")

    @property
    def flops(self) -> Extent:
        """Additions or comparisons."""
        return product((self.batch, *self.output, self.channels, *self.window))


@dataclass(frozen=True)
class Taps:
    """The taps of one window along one dimension that exist: ``first + i * dilation`` for ``i < count``.

    ``skipped`` taps lie before the input.
    """

    first: Extent
    count: Extent
    dilation: int
    skipped: Extent = 0


def emit_pool(spec: PoolSpec, target: CpuTarget, x: Operand, finish: Finish) -> None:
    """Emits the loops of a pooling into the open kernel.

    Args:
        spec: what is reduced.
        target: the instruction set.
        x: read at ``(n, *positions, c)``, only within the input's extents.
        finish: receives results at index ``(n, *output, c)``.
    """

    def task(indices: tuple[Extent, ...]) -> None:
        n, *output = indices
        axes = [taps_of(spec, d, o) for d, o in enumerate(output)]
        scale = _divisor(spec, axes)

        def pixel(last: Taps) -> None:
            window = [*axes[:-1], last]

            def block(c: Extent, pieces: list[tuple[int, int]]) -> None:
                acc = _reduce(spec, x, n, window, c, pieces)
                for offset, lanes in pieces:
                    value = acc.get(0, offset, lanes)
                    if scale is not None:
                        value = value / _filled(scale, spec.dtype, lanes)
                    finish((n, *output, c + offset), value, lanes)

            channel_blocks(spec.channels, target.lanes(spec.dtype), _VECTORS, block)

        # Along W the whole window is unrolled where it fits; elsewhere its clipped part is a loop.
        clipped = axes[-1]
        if static(clipped.count) is not None:
            pixel(clipped)
        else:
            whole = Taps(clipped.first, spec.window[-1], clipped.dilation)
            fits = i64(clipped.count) == i64(spec.window[-1])
            branch(fits, lambda: pixel(whole), lambda: pixel(clipped))

    threads = worth_threads(spec.flops)
    shared_loop((spec.batch, *spec.output), task, threads=threads, flops=spec.flops)


def taps_of(spec: PoolSpec, dimension: int, o: Extent) -> Taps:
    """The part of window number ``o`` along a dimension that lies within the input."""
    from tvm.script.ir_builder import tirx as t

    window, dilation = spec.window[dimension], spec.dilation[dimension]
    before, after = spec.padding[dimension]
    start = o * spec.strides[dimension] - before
    if before <= 0 and after <= 0:
        return Taps(start, window, dilation)
    start, size = i64(start), i64(spec.input[dimension])
    # Negative numerators never occur below: both quotients are of clamped values.
    skipped = bind(t.truncdiv(maximum_extent(0 - start, 0) + (dilation - 1), i64(dilation)))
    room = maximum_extent(size - start, 0) + (dilation - 1)
    end = minimum_extent(t.truncdiv(room, i64(dilation)), window)
    first = bind(start + skipped * dilation)
    return Taps(first, bind(maximum_extent(end - skipped, 0)), dilation, skipped)


def _divisor(spec: PoolSpec, axes: Sequence[Taps]) -> Expr | int | None:
    """What averages of one pixel are divided by; None for other reductions."""
    if spec.kind != "average":
        return None
    if spec.divisor is not None:
        return spec.divisor
    if spec.count_include_pad:
        return int(product(spec.window))
    count = product([axis.count for axis in axes])
    known = static(count)
    return bind(cast(count, spec.dtype)) if known is None else known


def _reduce(
    spec: PoolSpec,
    x: Operand,
    n: Extent,
    window: Sequence[Taps],
    c: Extent,
    pieces: list[tuple[int, int]],
) -> Registers:
    """The reduction over one window of a block of channels."""
    acc = Registers(1, sum(lanes for _, lanes in pieces), spec.dtype)
    for offset, lanes in pieces:
        acc.set(const(_identity(spec.kind, spec.dtype), spec.dtype, lanes), 0, offset)

    def tap(where: Sequence[Extent]) -> None:
        for offset, lanes in pieces:
            value = bind(x.load((n, *where, c + offset), lanes))
            acc.set(_combine(spec.kind, acc.get(0, offset, lanes), value), 0, offset)

    *slow, last = window
    with ExitStack() as stack:
        where = [a.first + stack.enter_context(loop(a.count)) * a.dilation for a in slow]
        known = static(last.count)
        if known is None:
            with loop(last.count) as i:
                tap([*where, last.first + i * last.dilation])
        else:
            for i in range(known):
                tap([*where, last.first + i * last.dilation])
    return acc


def _identity(kind: str, dtype: str) -> float | int:
    """The value of an empty reduction."""
    if kind != "max":
        return 0
    return -math.inf if np.dtype(dtype).kind == "f" else int(np.iinfo(dtype).min)


def _combine(kind: str, accumulated: Expr, value: Expr) -> Expr:
    return vmath.maximum(accumulated, value) if kind == "max" else accumulated + value


def _filled(value: Expr | int, dtype: str, lanes: int) -> Expr:
    """A divisor in every lane."""
    return const(value, dtype, lanes) if isinstance(value, int) else splat(value, lanes)
