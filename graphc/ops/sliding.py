"""Arithmetic that convolution and pooling share: output sizes, padding, windows, layouts.

`channels_last=False` is N C *S, `channels_last=True` is N *S C. Padding is one (low, high) pair per spatial
dimension; a negative entry crops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.dim import DimLike, Shape, floordiv
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, Emitter, Expr, OpError
from graphc.ir.types import TensorType
from graphc.ops.errors import check_length, check_positive, show
from graphc.ops.shape import Slice

Padding = tuple[tuple[int, int], ...]


def spatial_axes(rank: int, channels_last: bool) -> range:
    """The spatial axes of a tensor of this rank."""
    return range(1, rank - 1) if channels_last else range(2, rank)


def channel_axis(rank: int, channels_last: bool) -> int:
    """The channel axis of a tensor of this rank."""
    return rank - 1 if channels_last else 1


def join(batch: DimLike, channels: DimLike, spatial: Shape, channels_last: bool) -> Shape:
    """A shape in the given layout."""
    return (batch, *spatial, channels) if channels_last else (batch, channels, *spatial)


def place(batch: Expr, channel: Expr, spatial: Sequence[Expr], channels_last: bool) -> list[Expr]:
    """An index in the given layout."""
    return [batch, *spatial, channel] if channels_last else [batch, channel, *spatial]


def channels_first(x: Array, channels_last: bool) -> Array:
    """A view of `x` as N C *S."""
    return np.moveaxis(x, -1, 1) if channels_last else x


def in_layout(x: Array, channels_last: bool) -> Array:
    """An N C *S array in the given layout, dense."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1) if channels_last else x)


def relayout(permutation: tuple[int, ...], channels_last: bool) -> bool | None:
    """The layout in front of a transpose which `channels_last` sees behind it; None for other permutations."""
    rank = len(permutation)
    if permutation == tuple(range(rank)):
        return channels_last
    to_last = (0, *range(2, rank), 1)
    to_first = (0, rank - 1, *range(1, rank - 1))
    if channels_last and permutation == to_last:
        return False
    return True if not channels_last and permutation == to_first else None


def check_window(
    op: str,
    x: TensorType,
    spatial: Shape,
    window: Sequence[DimLike],
    strides: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
) -> Shape:
    """Output sizes floor((size + low + high - dilation * (window - 1) - 1) / stride) + 1.

    Raises OpError E0207 for bad attributes, E0208 for a window larger than the padded input.
    """
    for what, values in (
        ("window", window),
        ("strides", strides),
        ("padding", padding),
        ("dilation", dilation),
    ):
        check_length(op, what, values, len(spatial), x.shape)
    check_positive(op, "window", [w for w in window if isinstance(w, int)])
    check_positive(op, "strides", strides)
    check_positive(op, "dilation", dilation)
    sizes: list[DimLike] = []
    rows = zip(spatial, window, strides, padding, dilation, strict=True)
    for size, k, stride, (low, high), d in rows:
        padded = size + (low + high)
        reach = (k - 1) * d + 1
        room = padded - reach
        if isinstance(room, int) and room < 0:
            raise OpError(
                f"{op}: a window of {show(window)}"
                + (f" with dilation {show(dilation)}" if any(v > 1 for v in dilation) else "")
                + f" spans {reach}, more than the {padded} elements of {x} with padding"
                f" {list(padding)}",
                operand=0,
                code="E0208",
                help=f"a padding of {-(-(reach - size) // 2)} on each side would be enough"
                if isinstance(reach - size, int)
                else None,
            )
        sizes.append(floordiv(room, stride) + 1)
    return tuple(sizes)


def padded(x: Array, padding: Padding, dilation: Sequence[int], value: float | int) -> Array:
    """An N C *S array with `dilation - 1` fill elements between neighbours, then padded or cropped."""
    spatial = [(n - 1) * d + 1 if n else 0 for n, d in zip(x.shape[2:], dilation, strict=True)]
    grown = [n + max(lo, 0) + max(hi, 0) for n, (lo, hi) in zip(spatial, padding, strict=True)]
    out = np.full((*x.shape[:2], *grown), value, x.dtype)
    inside = [
        slice(max(lo, 0), max(lo, 0) + n, d)
        for n, (lo, _), d in zip(spatial, padding, dilation, strict=True)
    ]
    every = [slice(None), slice(None)]
    out[tuple(every + inside)] = x
    crop = [slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi) in zip(grown, padding, strict=True)]
    result: Array = out[tuple(every + crop)]
    return result


def windows(
    x: Array, window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Array:
    """A read-only view [N, C, *out, *window] of every window of a padded N C *S array."""
    rank = len(window)
    reach = tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))
    axes = tuple(range(2, 2 + rank))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    steps = [slice(None, None, s) for s in strides]
    taps = [slice(None, None, d) for d in dilation]
    box = (slice(None), slice(None), *steps, *taps)
    result: Array = view[box]
    return result


def tap(
    e: Emitter,
    spatial: Shape,
    index: Sequence[Expr],
    k: Sequence[Expr],
    strides: Sequence[int],
    padding: Padding,
    rhs_dilation: Sequence[int],
    lhs_dilation: Sequence[int],
    window: Sequence[DimLike],
) -> tuple[list[Expr], Expr]:
    """The spatial operand position of one window element, and the condition that there is one (None: always).

    A condition is left out where shapes prove it: no padding on that side.
    """
    position: list[Expr] = []
    inside: Expr = None
    rows = zip(spatial, index, k, strides, padding, rhs_dilation, lhs_dilation, window, strict=True)
    for size, i, j, stride, (low, high), d, spread, reach in rows:
        at = i if stride == 1 else i * stride
        if reach != 1:
            at = at + (j if d == 1 else j * d)
        if low:
            at = at - low
        checks = []
        if low > 0:
            checks.append(e.compare("ge", at, e.dim(0)))
        if spread > 1:
            checks.append(e.compare("eq", at % spread, e.dim(0)))
            at = at // spread
        if high > 0:
            checks.append(e.compare("lt", at, e.dim(size)))
        for check in checks:
            inside = check if inside is None else e.binary("and", inside, check)
        position.append(at)
    return position, inside


def padding_back(
    op: str,
    spatial: Shape,
    window: Sequence[DimLike],
    strides: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
) -> Padding:
    """The padding with which a window of stride 1 goes over results, `strides` apart, to get operands back.

    What the last window leaves over is added at the end, or as much as there can be where named dims decide: then
    the outcome is too long (see `trimmed`). Raises OpError E0811 for a window whose size is named.
    """
    pads = []
    for size, k, s, (low, high), d in zip(spatial, window, strides, padding, dilation, strict=True):
        if not isinstance(k, int):
            raise OpError(
                f"{op} with a window of {show(window)} has no gradient: the size is not known",
                code="E0811",
                help="give the spatial dimensions of the input as numbers",
            )
        reach = (k - 1) * d + 1
        rest = left_over(size, reach, s, (low, high))
        pads.append((reach - 1 - low, reach - 1 - high + (s - 1 if rest is None else rest)))
    return tuple(pads)


def left_over(size: DimLike, reach: DimLike, stride: int, pad: tuple[int, int]) -> int | None:
    """Elements that no window reaches, after the last one; None where named dims decide."""
    room = size + (pad[0] + pad[1]) - reach
    rest = room - floordiv(room, stride) * stride
    return rest if isinstance(rest, int) else None


def trimmed(b: GraphBuilder, x: Value, shape: Shape) -> Value:
    """The front of x, of a shape; x itself when it has it."""
    if b.type_of(x).shape == shape:
        return x
    return b(Slice((0,) * len(shape), shape, (1,) * len(shape)), x)


def cropped(b: GraphBuilder, x: Value, crop: Padding, channels_last: bool) -> Value:
    """x without `crop` elements before and after each spatial dimension."""
    shape = b.type_of(x).shape
    start, limit = [0] * len(shape), list(shape)
    for axis, (low, high) in zip(spatial_axes(len(shape), channels_last), crop, strict=True):
        start[axis], limit[axis] = low, shape[axis] - high
    return b(Slice(tuple(start), tuple(limit), (1,) * len(shape)), x)
