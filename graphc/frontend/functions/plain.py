"""Functions of plain values: numbers, strings and lists, while the graph is built."""

from __future__ import annotations

import builtins
from typing import Any

from graphc.frontend.kinds import Number
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.dim import DimLike
from graphc.ir.graph import GraphBuilder, Value

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Values")

Items = tuple[Any, ...]


@_add
def range_(b: GraphBuilder, start: int, stop: int | None = None, step: int = 1) -> builtins.range:
    """The integers from `start` (0 where only one number is given) up to and without `stop`."""
    if step == 0:
        raise RejectError("`step` of range cannot be 0", argument="step")
    return builtins.range(start) if stop is None else builtins.range(start, stop, step)


@_add
def enumerate_(b: GraphBuilder, items: Items, start: int = 0) -> list[Any]:
    """Pairs of a number, counted from `start`, and an element."""
    return list(builtins.enumerate(items, start))


@_add
def zip_(b: GraphBuilder, *items: Items) -> list[Any]:
    """Tuples of the first elements, the second ones, ...; all lists need one length."""
    if len({len(i) for i in items}) > 1:
        lengths = ", ".join(str(len(i)) for i in items)
        raise RejectError(f"zip needs lists of one length and gets {lengths}")
    return list(builtins.zip(*items, strict=True))


@_add
def reversed_(b: GraphBuilder, items: Items) -> list[Any]:
    """The elements, last one first."""
    return list(items)[::-1]


@_add
def len_(b: GraphBuilder, items: Items | str) -> int:
    """The number of elements."""
    return builtins.len(items)


@_add
def int_(b: GraphBuilder, x: int | float) -> int:
    """The number without its fraction, toward zero."""
    if isinstance(x, float) and not abs(x) < 2.0**63:
        raise RejectError(f"{x} is too large for an integer", code="E0513", argument="x")
    return builtins.int(x)


@_add
def float_(b: GraphBuilder, x: float) -> float:
    """The number as floating point."""
    return builtins.float(x)


@_add
def str_(b: GraphBuilder, x: Any) -> str:
    """The value as text."""
    if isinstance(x, Value):
        raise RejectError("a tensor has no text", code="E0404", argument="x")
    return builtins.str(x) if not isinstance(x, bool) else builtins.str(x).lower()


@_add
def shape_(b: GraphBuilder, x: Value, dim: int | None = None) -> DimLike | tuple[DimLike, ...]:
    """The sizes of a tensor, or one of them."""
    sizes = b.type_of(x).shape
    if dim is None:
        return sizes
    if not -len(sizes) <= dim < len(sizes):
        raise RejectError(
            f"`dim` is {dim}, which {b.type_of(x)} does not have", code="E0211", argument="dim"
        )
    return sizes[dim]


@_add
def rank(b: GraphBuilder, x: Value) -> int:
    """The number of dimensions of a tensor."""
    return b.type_of(x).rank


@_add
def is_integer(b: GraphBuilder, x: Number) -> bool:
    """True for a number without a fraction."""
    return builtins.float(x).is_integer() if isinstance(x, float) else True
