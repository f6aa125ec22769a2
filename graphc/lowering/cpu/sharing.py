"""Loops that decide while running whether their work is worth sharing among threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.lowering.cpu.emit import (
    SHARED_FLOPS,
    Extent,
    branch,
    fused_loop,
    i64,
    static,
    worth_threads,
)

__all__ = ["least_value", "shared_loop"]


def least_value(extent: Extent) -> int:
    """The value of an extent where every named dim is 1."""
    import tvm
    import tvm_ffi
    from tvm.sym import Analyzer

    known = static(extent)
    if known is not None:
        return known
    ones = tvm_ffi.structural_map(extent, (tvm.ir.Var, lambda _: i64(1)), order="post")
    value = static(Analyzer().simplify(ones))
    if value is None:
        raise ValueError(f"an extent of more than named dims: {extent}")
    return value


def shared_loop(
    extents: Sequence[Extent],
    body: Callable[[tuple[Extent, ...]], None],
    *,
    threads: bool,
    flops: Extent,
    bytes_moved: Extent = 0,
) -> None:
    """Emits ``body(indices)`` over the product of ``extents``, as ``emit.fused_loop`` does.

    Args:
        extents: trip counts, slowest first.
        body: emits one iteration; called twice where the decision is made while running.
        threads: ``False`` keeps the loop on one thread.
        flops, bytes_moved: the work of the whole loop. If it is symbolic and small for dims of 1, as in
            a small model of any batch size, a serial copy of the loop takes over below about 5 µs.
    """

    def emit(parallel: bool) -> None:
        with fused_loop(extents, parallel=parallel) as indices:
            body(indices)

    undecided = threads and static(flops) is None
    if undecided and not worth_threads(least_value(flops), least_value(bytes_moved)):
        branch(i64(flops) >= i64(SHARED_FLOPS), lambda: emit(True), lambda: emit(False))
    else:
        emit(threads)
