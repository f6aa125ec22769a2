"""Numbers and vectors: expressions, what is known of them, and names for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from graphc.ir.dim import Dim, floordiv
from graphc.lowering.cpu.emit.builder import (
    Expr,
    Extent,
    builder,
    load,
    local,
    store,
)


def static(extent: Extent) -> int | None:
    """The value of ``extent`` where it is known while compiling, else ``None``."""
    if isinstance(extent, int):
        return extent
    value = getattr(extent, "value", None)
    return value if isinstance(value, int) else None


def i64(value: Extent) -> Expr:
    """``value`` as an int64 expression."""
    return _integer(value) if isinstance(value, int) else value


# Expressions never change, so that one object may stand in many places.
@lru_cache(maxsize=1 << 14)
def _integer(value: int) -> Expr:
    return builder().int64(value)


@lru_cache(maxsize=1 << 12)
def _ramp(start: int, lanes: int) -> Expr:
    return i64(start) if lanes == 1 else builder().ramp(i64(start), i64(1), lanes)


def consecutive(start: Extent, lanes: int) -> Expr:
    """The index of ``lanes`` neighbours from ``start`` on."""
    if isinstance(start, int):
        return _ramp(start, lanes)
    return start if lanes == 1 else builder().ramp(start, i64(1), lanes)


_TYPES: dict[int, tuple[Any, str, int]] = {}
"""By address, of TVM's types, of which there is one for each dtype: the type, which keeps it there, and its parts."""


def _type_of(value: Expr) -> tuple[Any, str, int]:
    type = value.ty
    known = _TYPES.get(type.__chandle__())
    if known is None:
        dtype = type.dtype
        known = (type, str(dtype).partition("x")[0], int(dtype.lanes))
        if len(_TYPES) < 1 << 10:
            _TYPES[type.__chandle__()] = known
    return known


def dtype_of(value: Expr) -> str:
    """The element type of a scalar or vector expression, e.g. ``"float32"``."""
    return _type_of(value)[1]


def lanes_of(value: Expr) -> int:
    """The number of lanes of an expression; 1 for a scalar."""
    return _type_of(value)[2]


def splat(value: Expr, lanes: int) -> Expr:
    """``lanes`` copies of a scalar; a vector that has them already is returned as it is."""
    if lanes == 1 or lanes_of(value) == lanes:
        return value
    return builder().broadcast(value, lanes)


def const(value: float | int | bool, dtype: str, lanes: int = 1) -> Expr:
    """A constant of ``dtype`` in every lane; infinities and NaN are allowed."""
    import tvm.tirx as tx

    return splat(tx.const(value, dtype), lanes)


def bind(value: Expr) -> Expr:
    """Names ``value``, so that using it twice computes it once.

    Floats and vectors go through a stack slot, which LLVM turns back into a register: TVM's
    simplifier would substitute a ``Bind`` into its uses again, in exponential time.
    """
    if is_named(value):
        return value
    dtype, lanes = dtype_of(value), lanes_of(value)
    if dtype == "bool" or (lanes == 1 and "float" not in dtype):
        return builder().bind(value)
    return stored(value)


def stored(value: Expr) -> Expr:
    """``value`` by way of memory, where TVM's simplifier does not look; LLVM makes a register of it.

    A divisor made safe by ``select(d == 0, 1, d)`` would become d again inside of
    ``select(d == 0, 0, a / d)``, both sides of which are evaluated.
    """
    if is_named(value):
        return value
    _, dtype, lanes = _type_of(value)
    slot = local(lanes, dtype)
    index = consecutive(0, lanes)
    store(slot, value, index)
    return as_named(load(slot, index))


def is_named(value: Expr) -> bool:
    """Whether an expression is a slot that is written once: it may be used twice as it stands."""
    return getattr(value, "graphc_named", False)


def as_named(value: Expr) -> Expr:
    """Marks an expression as one that may be used twice, see :func:`is_named`."""
    value.graphc_named = True
    return value


def select(condition: Expr, true_value: Expr, false_value: Expr) -> Expr:
    """Lane by lane ``condition ? true_value : false_value``; both are evaluated."""
    return builder().Select(condition, true_value, false_value)


def cast(value: Expr, dtype: str) -> Expr:
    """``value`` converted to element type ``dtype``, as C converts (truncation towards zero)."""
    if dtype_of(value) == dtype:
        return value
    lanes = lanes_of(value)
    return builder().Cast(dtype if lanes == 1 else f"{dtype}x{lanes}", value)


def shuffle(vectors: Sequence[Expr], lanes: Sequence[int]) -> Expr:
    """The vector whose lanes are those numbered ``lanes`` of the concatenated ``vectors``."""
    import tvm.tirx as tx

    return tx.Shuffle(list(vectors), [tx.const(i, "int32") for i in lanes])


def ceil_div(extent: Extent, size: int) -> Extent:
    """``extent / size`` rounded up, for a non-negative extent."""
    known = static(extent)
    return -(-known // size) if known is not None else floor_div(extent + (size - 1), size)


def remainder(extent: Extent, size: int) -> Extent:
    """``extent % size`` for a non-negative extent."""
    known = static(extent)
    return known % size if known is not None else builder().truncmod(extent, i64(size))


def minimum_extent(a: Extent, b: Extent) -> Extent:
    """The smaller of two extents."""
    x, y = static(a), static(b)
    return min(x, y) if x is not None and y is not None else builder().min(i64(a), i64(b))


def maximum_extent(a: Extent, b: Extent) -> Extent:
    """The larger of two extents."""
    x, y = static(a), static(b)
    return max(x, y) if x is not None and y is not None else builder().max(i64(a), i64(b))


def product(extents: Sequence[Extent]) -> Extent:
    """The product of extents, static where all are; 1 for none."""
    result: Extent = 1
    for extent in extents:
        known = static(extent)
        result = result * (extent if known is None else known)
    return result


def floor_div(a: Extent, b: Extent) -> Extent:
    """``a // b`` of non-negative extents."""
    x, y = static(a), static(b)
    if isinstance(a, Dim) or isinstance(b, Dim):  # before there is code: sizes of scratch memory
        return floordiv(a, b)
    return x // y if x is not None and y is not None else builder().truncdiv(i64(a), i64(b))


def fold_lanes(value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """Reduces a vector to a scalar by an associative ``combine``, halving log2(lanes) times."""
    lanes = lanes_of(value)
    while lanes > 1:
        lanes //= 2
        whole = bind(value)
        dtype = dtype_of(whole) + (f"x{lanes}" if lanes > 1 else "")
        low = builder().vectorlow(dtype, whole)
        value = combine(low, builder().vectorhigh(dtype, whole))
    return value
