"""Loops that decide while running whether their work is worth sharing among threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from graphc.lowering.cpu.emit import (
    SHARED_FLOPS,
    Expr,
    Extent,
    bind,
    branch,
    ceil_div,
    fused_loop,
    i64,
    local,
    loop,
    product,
    static,
    unflatten,
    when,
    worth_threads,
)

__all__ = ["least_value", "shared_loop", "slot_loop"]


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


def slot_loop(
    extents: Sequence[Extent],
    slots: int,
    body: Callable[[Extent, tuple[Extent, ...], Expr], None],
) -> None:
    """Emits ``body(slot, indices, fresh)`` over the product of ``extents``, shared among threads.

    A slot numbers a region of scratch memory that no other thread uses meanwhile. A thread keeps the slot of
    its first task, so that what it leaves there is still in its cache at the next one; at most ``slots``
    threads take part. ``fresh`` holds in a thread's first task, and wherever the last of ``extents`` begins anew:
    in between the region is as the task before left it.
    """
    import tvm.tirx as tx
    from tvm.script.ir_builder import tirx as t

    tasks = product(extents)
    per_slot = ceil_div(tasks, slots)
    used = ceil_div(tasks, per_slot)
    with ExitStack() as stack:
        if static(used) != 1:
            # What stands between here and the loop runs once in every thread.
            launch = t.attr(tx.const(0, "int32"), "pragma_parallel_launch_point", 1)
            stack.enter_context(launch)
        mine = local(1, "int64")
        t.buffer_store(mine, i64(-1), [0])
        slot = stack.enter_context(loop(used, parallel=True))
        i = stack.enter_context(loop(per_slot))
        flat = bind(i64(slot * per_slot + i))
        first = t.bind(mine[0] < i64(0))
        with when(first):
            t.buffer_store(mine, i64(slot), [0])
        with when(flat < i64(tasks)):
            indices = unflatten(flat, extents)
            body(bind(mine[0]), indices, tx.Or(first, i64(indices[-1]) == i64(0)))
