"""The gradient of max pooling, channels last, vectors along channels.

Two loops. The first goes over windows and notes the number of the first maximum in scratch memory, as large as the
pooled values. The second goes over x and adds up the cotangents of those windows around an element that have noted
it, so that each element is finished once, in registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from graphc.lowering.cpu import vmath
from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    Operand,
    Registers,
    View,
    bind,
    branch,
    cast,
    const,
    floor_div,
    i64,
    loop,
    maximum_extent,
    minimum_extent,
    product,
    select,
    splat,
    static,
    when,
    worth_threads,
)
from graphc.lowering.cpu.families.pooling.pool import PoolSpec, Taps, taps_of
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.sharing import shared_loop
from graphc.lowering.cpu.tiling import channel_blocks

__all__ = ["emit_pool_gradient"]

# Vectors of channels handled together, to share the arithmetic on positions: two registers each, and one.
_FIND_VECTORS, _GATHER_VECTORS = 4, 8
_NOWHERE = -1
"""The number of a window with a NaN, which no tap has."""


def emit_pool_gradient(
    spec: PoolSpec,
    target: CpuTarget,
    x: Operand,
    cotangent: Operand,
    scratch: View,
    finish: Finish,
) -> None:
    """Emits the loops into the open kernel.

    Args:
        spec: the pooling, of kind ``"max"``.
        target: the instruction set.
        x: read at ``(n, *positions, c)``, only within its extents.
        cotangent: read at ``(n, *output, c)``.
        scratch: of the cotangent's shape and ``spec.dtype``.
        finish: receives the cotangent of x at index ``(n, *positions, c)``.
    """
    threads = worth_threads(spec.flops)

    def find(indices: tuple[Extent, ...]) -> None:
        n, *output = indices
        axes = [taps_of(spec, d, o) for d, o in enumerate(output)]

        def window(last: Taps) -> None:
            def block(c: Extent, pieces: list[tuple[int, int]]) -> None:
                numbers = _first(spec, x, n, [*axes[:-1], last], c, pieces)
                for offset, lanes in pieces:
                    scratch.store(numbers.get(0, offset, lanes), (n, *output, c + offset))

            channel_blocks(spec.channels, target.lanes(spec.dtype), _FIND_VECTORS, block)

        # Along W the whole window is unrolled where it fits, as in pooling.
        clipped = axes[-1]
        if static(clipped.count) is not None:
            window(clipped)
        else:
            whole = Taps(clipped.first, spec.window[-1], clipped.dilation)
            fits = i64(clipped.count) == i64(spec.window[-1])
            branch(fits, lambda: window(whole), lambda: window(clipped))

    def gather(indices: tuple[Extent, ...]) -> None:
        n, *position = indices
        axes = [_around(spec, d, i) for d, i in enumerate(position)]

        def block(c: Extent, pieces: list[tuple[int, int]]) -> None:
            total = Registers(1, sum(lanes for _, lanes in pieces), spec.dtype)
            for offset, lanes in pieces:
                total.set(const(0, spec.dtype, lanes), 0, offset)

            def add(output: Sequence[Extent], number: Expr) -> None:
                for offset, lanes in pieces:
                    at = (n, *output, c + offset)
                    noted = scratch.load(at, lanes) == splat(number, lanes)
                    given = select(noted, cotangent.load(at, lanes), const(0, spec.dtype, lanes))
                    total.set(total.get(0, offset, lanes) + given, 0, offset)

            _each_window(spec, axes, add)
            for offset, lanes in pieces:
                finish((n, *position, c + offset), total.get(0, offset, lanes), lanes)

        channel_blocks(spec.channels, target.lanes(spec.dtype), _GATHER_VECTORS, block)

    shared_loop((spec.batch, *spec.output), find, threads=threads, flops=spec.flops)
    shared_loop((spec.batch, *spec.input), gather, threads=threads, flops=spec.flops)


def _first(
    spec: PoolSpec,
    x: Operand,
    n: Extent,
    window: Sequence[Taps],
    c: Extent,
    pieces: list[tuple[int, int]],
) -> Registers:
    """The number of the first maximum in one window, in row-major order, for a block of channels."""
    width = sum(lanes for _, lanes in pieces)
    best, numbers = (Registers(1, width, spec.dtype) for _ in range(2))
    first = _number(spec, [axis.skipped for axis in window])
    for offset, lanes in pieces:
        best.set(const(-math.inf, spec.dtype, lanes), 0, offset)
        numbers.set(splat(first, lanes), 0, offset)

    def tap(where: Sequence[Extent], number: Expr) -> None:
        for offset, lanes in pieces:
            value, so_far = bind(x.load((n, *where, c + offset), lanes)), best.get(0, offset, lanes)
            kept = numbers.get(0, offset, lanes)
            numbers.set(select(value > so_far, splat(number, lanes), kept), 0, offset)
            best.set(vmath.maximum(so_far, value), 0, offset)

    *slow, last = window
    with ExitStack() as stack:
        steps = [stack.enter_context(loop(axis.count)) for axis in slow]
        where = [a.first + i * a.dilation for a, i in zip(slow, steps, strict=True)]
        before = [a.skipped + i for a, i in zip(slow, steps, strict=True)]
        row = _number(spec, [*before, last.skipped])
        known = static(last.count)
        if known is None:
            with loop(last.count) as i:
                tap([*where, last.first + i * last.dilation], row + cast(i64(i), spec.dtype))
        else:
            for i in range(known):
                at = [*where, last.first + i * last.dilation]
                tap(at, row + const(i, spec.dtype))
    for offset, lanes in pieces:
        value, found = bind(best.get(0, offset, lanes)), numbers.get(0, offset, lanes)
        nowhere = const(_NOWHERE, spec.dtype, lanes)
        numbers.set(select(vmath.is_nan(value), nowhere, found), 0, offset)
    return numbers


def _number(spec: PoolSpec, taps: Sequence[Extent]) -> Expr:
    """Row-major position of a tap in the window, as an element."""
    flat: Extent = 0
    for tap, size in zip(taps, spec.window, strict=True):
        flat = flat * size + tap
    known = static(flat)
    return bind(cast(i64(flat), spec.dtype)) if known is None else const(known, spec.dtype)


@dataclass(frozen=True)
class _Windows:
    """The windows around a position along one dimension: ``count`` from ``first`` on; ``place`` in padded x."""

    place: Extent
    first: Extent
    count: Extent


def _around(spec: PoolSpec, dimension: int, i: Extent) -> _Windows:
    """Windows that reach over position ``i``; with a dilation some of them leave it out."""
    from tvm.script.ir_builder import tirx as t

    stride, (before, _) = spec.strides[dimension], spec.padding[dimension]
    size, covered = static(spec.input[dimension]), static(product([spec.output[dimension], stride]))
    disjoint = spec.window[dimension] == stride and spec.dilation[dimension] == 1
    if disjoint and before == 0 and size is not None and size == covered:
        return _Windows(i, bind(i64(floor_div(i, stride))), 1)
    reach = (spec.window[dimension] - 1) * spec.dilation[dimension]
    place = bind(i64(i) + before)
    # Numerators of quotients are clamped, for those round towards zero.
    first = t.truncdiv(maximum_extent(place - reach, 0) + (stride - 1), i64(stride))
    end = t.truncdiv(maximum_extent(place + stride, 0), i64(stride))
    first, end = bind(first), minimum_extent(end, spec.output[dimension])
    return _Windows(place, first, bind(maximum_extent(end - first, 0)))


def _each_window(
    spec: PoolSpec, axes: Sequence[_Windows], body: Callable[[Sequence[Extent], Expr], None]
) -> None:
    """Emits ``body(output, number)`` for the windows around a position; ``number`` is the position's in them."""
    with ExitStack() as stack:
        output, taps = [], []
        for axis, stride, dilation in zip(axes, spec.strides, spec.dilation, strict=True):
            o = bind(axis.first + stack.enter_context(loop(axis.count)))
            tap = bind(axis.place - o * stride)
            if dilation > 1:
                from tvm.script.ir_builder import tirx as t

                stack.enter_context(when(t.truncmod(tap, i64(dilation)) == i64(0)))
                tap = bind(t.truncdiv(tap, i64(dilation)))
            output.append(o)
            taps.append(tap)
        body(output, _number(spec, taps))
