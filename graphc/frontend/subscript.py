"""Slices of tensors: `x[:, 0]`, `x[..., ::2]`, `x[:, -1]`, `x[none]` and indices that are tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.frontend.report import RejectError
from graphc.ir.dim import Dim, DimLike, proves_ge
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import Reverse, Slice, Take, arith


@dataclass(frozen=True)
class Range:
    """An evaluated slice."""

    start: DimLike | None
    stop: DimLike | None
    step: int


class Ellipsis:
    """`...` in a subscript."""


Item = Range | Ellipsis | DimLike | Value | None


def index(b: GraphBuilder, x: Value, items: Sequence[Item]) -> Value:
    """`x[items]` with NumPy's meaning; one tensor of integers may stand among the items.

    Raises RejectError E0205 (too many items), E0213 (out of range), E0219 (not decided).
    """
    kind = b.type_of(x)
    taken = sum(1 for i in items if not isinstance(i, Ellipsis) and i is not None)
    if taken > kind.rank:
        raise RejectError(
            f"{taken} subscripts for {kind}, which has {kind.rank} dimensions", code="E0205"
        )
    dots = sum(isinstance(i, Ellipsis) for i in items)
    if dots > 1:
        raise RejectError("a subscript can hold `...` once", code="E0213")
    full: list[Item] = []
    for item in items:
        if isinstance(item, Ellipsis):
            full += [Range(None, None, 1)] * (kind.rank - taken)
        else:
            full.append(item)
    full += [Range(None, None, 1)] * (kind.rank - sum(i is not None for i in full))
    if sum(isinstance(i, Value) for i in full) > 1:
        raise RejectError(
            "one tensor of indices at most can stand in a subscript",
            code="E0213",
            help="use `gather` or `take` step by step",
        )
    return _apply(b, x, full)


def _apply(b: GraphBuilder, x: Value, items: Sequence[Item]) -> Value:
    shape = b.type_of(x).shape
    starts: list[DimLike] = []
    stops: list[DimLike] = []
    steps: list[int] = []
    final: list[DimLike] = []
    reverse: list[int] = []
    tensors: list[tuple[int, Value]] = []
    axis = 0
    for item in items:
        if item is None:
            final.append(1)
            continue
        size = shape[axis]
        start: DimLike = 0
        stop, step, keep = size, 1, True
        if isinstance(item, Value):
            tensors.append((len(final), item))
        elif isinstance(item, Range):
            start, stop, step = _range(b, item, size)
            if step < 0:
                reverse.append(axis)
                step = -step
        elif isinstance(item, (int, Dim)):
            start = _position(b, item, size, axis)
            stop, keep = start + 1, False
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        if keep:
            final.append(_count(start, stop, step))
        axis += 1
    if any(s != 0 for s in starts) or tuple(stops) != shape or any(s != 1 for s in steps):
        if reverse:
            return _reversed(b, x, shape, starts, stops, steps, reverse, final, tensors)
        x = b(Slice(start=tuple(starts), limit=tuple(stops), strides=tuple(steps)), x)
    elif reverse:
        x = b(Reverse(axes=tuple(reverse)), x)
    return _finish(b, x, final, tensors)


def _reversed(
    b: GraphBuilder,
    x: Value,
    shape: tuple[DimLike, ...],
    starts: list[DimLike],
    stops: list[DimLike],
    steps: list[int],
    reverse: list[int],
    final: list[DimLike],
    tensors: list[tuple[int, Value]],
) -> Value:
    """Steps below zero: cut without steps, turn around, then step."""
    x = b(Slice(start=tuple(starts), limit=tuple(stops), strides=(1,) * len(shape)), x)
    x = b(Reverse(axes=tuple(reverse)), x)
    cut = b.type_of(x).shape
    if any(s != 1 for s in steps):
        x = b(Slice(start=(0,) * len(shape), limit=cut, strides=tuple(steps)), x)
    return _finish(b, x, final, tensors)


def _finish(
    b: GraphBuilder, x: Value, final: list[DimLike], tensors: list[tuple[int, Value]]
) -> Value:
    x = arith.reshape(b, x, tuple(final))
    for axis, indices in tensors:
        x = b(Take(axis=axis), x, indices)
    return x


def _count(start: DimLike, stop: DimLike, step: int) -> DimLike:
    return stop - start if step == 1 else (stop - start + (step - 1)) // step


def _position(b: GraphBuilder, item: DimLike, size: DimLike, axis: int) -> DimLike:
    """A single index, counted from the start."""
    at = item + size if isinstance(item, int) and item < 0 else item
    if isinstance(at, int) and isinstance(size, int):
        if not 0 <= at < size:
            raise RejectError(
                f"index {item} is out of range for dimension {axis}, which has {size} elements",
                code="E0213",
            )
        return at
    if proves_ge(at, 0, b.dims) and proves_ge(size - 1, at, b.dims):
        return at
    raise RejectError(
        f"index {item} may be out of range for dimension {axis}, which has {size} elements",
        code="E0213",
    )


def _range(b: GraphBuilder, item: Range, size: DimLike) -> tuple[DimLike, DimLike, int]:
    """(start, stop, step) within the dimension; with a step below zero the range to turn around."""
    if item.step == 0:
        raise RejectError("the step of a slice cannot be 0", code="E0213")
    if item.step < 0:
        start, stop = _backward(b, item, size)
        return start, stop, item.step
    start = _clip(b, 0 if item.start is None else item.start, size)
    stop = _clip(b, size if item.stop is None else item.stop, size)
    if not _ordered(b, start, stop):
        stop = start
    return start, stop, item.step


def _backward(b: GraphBuilder, item: Range, size: DimLike) -> tuple[DimLike, DimLike]:
    high = size if item.start is None else _clip(b, item.start, size - 1) + 1
    low: DimLike = 0 if item.stop is None else _clip(b, item.stop, size) + 1
    return (low, high) if _ordered(b, low, high) else (low, low)


def _clip(b: GraphBuilder, at: DimLike, size: DimLike) -> DimLike:
    """A bound of a slice, counted from the start and moved into the dimension. Raises RejectError (E0219)."""
    if isinstance(at, int) and at < 0:
        at = at + size
        if isinstance(at, int):
            return max(0, at)
        if proves_ge(at, 0, b.dims):
            return at
        raise _undecided(at, "0", at)
    if at == size or proves_ge(size, at, b.dims):
        return at
    if proves_ge(at, size, b.dims):
        return size
    raise _undecided(at, str(size), size)


def _ordered(b: GraphBuilder, low: DimLike, high: DimLike) -> bool:
    if low == high or proves_ge(high, low, b.dims):
        return True
    if proves_ge(low, high, b.dims):
        return False
    raise _undecided(low, str(high), high)


def _undecided(at: DimLike, other: str, dim: DimLike) -> RejectError:
    names = (at if isinstance(at, Dim) else dim if isinstance(dim, Dim) else Dim.symbol("T")).names
    return RejectError(
        f"whether {at} or {other} is smaller depends on the dim `{names[0]}`",
        code="E0219",
        label="cannot be decided while the graph is built",
        help=f"fix the dim with `--dim {names[0]}=8`",
    )
