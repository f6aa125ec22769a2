"""Small typed helpers over TVM's IRBuilder, in which every CPU kernel family is written.

A kernel is a plain C function over raw pointers and 64-bit extents::

    with kernel("scale", {"x": "float32", "y": "float32"}, dims=("n",)) as k:
        x, y = k.view("x", (k.dim("n"),)), k.view("y", (k.dim("n"),))

        def body(start, lanes):
            y.store(x.load((start,), lanes) * const(2.0, "float32", lanes), (start,))

        along(k.dim("n"), target.lanes("float32"), body)
    k.function  # a PrimFunc that returns int32 0

Conventions: all index arithmetic is int64; an extent is a Python ``int`` or an int64 expression; a
"vector" has any power-of-two number of lanes down to one, which is a scalar; memory is addressed
through :class:`View`, whose loads assume no more alignment than one element has. Comparisons and
arithmetic are the operators of TVM expressions.
"""

from __future__ import annotations

from graphc.lowering.cpu.emit.builder import (
    Expr,
    Extent,
    local,
    stores,
)
from graphc.lowering.cpu.emit.function import (
    Kernel,
    call,
    call_symbol,
    kernel,
    symbol,
)
from graphc.lowering.cpu.emit.loops import (
    SHARED_FLOPS,
    along,
    branch,
    fused_loop,
    loop,
    near_equal_tiles,
    power_of_two_ladder,
    remainder_tiles,
    swinging_loop,
    tiles,
    unflatten,
    vector_pieces,
    when,
    work_of,
    worth_threads,
)
from graphc.lowering.cpu.emit.memory import (
    Finish,
    Operand,
    Registers,
    View,
    clear,
    near,
    prefetch,
)
from graphc.lowering.cpu.emit.values import (
    as_named,
    bind,
    cast,
    ceil_div,
    const,
    dtype_of,
    floor_div,
    fold_lanes,
    i64,
    is_named,
    lanes_of,
    maximum_extent,
    minimum_extent,
    product,
    remainder,
    select,
    shuffle,
    splat,
    static,
    stored,
)

__all__ = [
    "SHARED_FLOPS",
    "Expr",
    "Extent",
    "Finish",
    "Kernel",
    "Operand",
    "Registers",
    "View",
    "along",
    "as_named",
    "bind",
    "branch",
    "call",
    "call_symbol",
    "cast",
    "ceil_div",
    "clear",
    "const",
    "dtype_of",
    "floor_div",
    "fold_lanes",
    "fused_loop",
    "i64",
    "is_named",
    "kernel",
    "lanes_of",
    "local",
    "loop",
    "maximum_extent",
    "minimum_extent",
    "near",
    "near_equal_tiles",
    "power_of_two_ladder",
    "prefetch",
    "product",
    "remainder",
    "remainder_tiles",
    "select",
    "shuffle",
    "splat",
    "static",
    "stored",
    "stores",
    "swinging_loop",
    "symbol",
    "tiles",
    "unflatten",
    "vector_pieces",
    "when",
    "work_of",
    "worth_threads",
]
