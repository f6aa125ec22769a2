"""Reading images at computed places, in graph ops: what crops, rotations and other warps are made of.

A batch of images is [N, C, H, W]. Places are worked out flat, [N, C, h * w], for every channel anew: a warp is then one
kernel, which costs less than keeping them. Numbers that each image draws for itself are [N, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.frontend import draws
from graphc.frontend.keys import RandomKey
from graphc.frontend.report import RejectError
from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import (
    And,
    ArgMax,
    Constant,
    Convert,
    Exp,
    Floor,
    Iota,
    ReduceAny,
    RoundNearestEven,
    Slice,
    Sqrt,
    TakeAlongAxis,
    arith,
)

Fill = float | tuple[float, ...]
"""What comes from outside of an image: one number, or one for each channel."""

ATTEMPTS = 10
"""Boxes drawn before giving up on one that fits: torchvision's number."""


@dataclass(frozen=True)
class Images:
    """The type of a batch of images."""

    n: DimLike
    channels: int
    height: int
    width: int
    dtype: DType

    @property
    def shape(self) -> tuple[DimLike, int, int, int]:
        """[N, C, H, W]."""
        return self.n, self.channels, self.height, self.width


def images(b: GraphBuilder, name: str, x: Value) -> Images:
    """The type of `x`. Raises RejectError (E0205, E0206, E0216) unless it is a batch of images of known size."""
    kind = b.type_of(x)
    if kind.rank != 4:
        raise RejectError(
            f"{name} needs images [N, C, H, W] and gets {kind}", code="E0205", operand=0
        )
    if not kind.dtype.is_float:
        raise RejectError(
            f"{name} needs floating-point images and gets {kind}",
            code="E0206",
            operand=0,
            help="convert them first: `astype(image, f32) / 255`",
        )
    n, *sizes = kind.shape
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(fixed) < 3:
        raise RejectError(f"{name} needs images of a fixed size and gets {kind}", code="E0216")
    return Images(n, fixed[0], fixed[1], fixed[2], kind.dtype)


def each(b: GraphBuilder, key: RandomKey, n: DimLike, *counts: int) -> list[Value]:
    """Uniform numbers of [0, 1) for every image: [N, count] for each of the counts.

    An image's do not depend on how many images there are. All come from one table, which is one kernel.
    """
    table = draws.uniform(b, key, (n, sum(counts)))
    if len(counts) == 1:
        return [table]
    result, start = [], 0
    for count in counts:
        result.append(b(Slice((0, start), (n, start + count), (1, 1)), table))
        start += count
    return result


def between(b: GraphBuilder, u: Value, low: float, high: float) -> Value:
    """Uniform numbers of [0, 1) moved to [low, high)."""
    return arith.add(b, arith.multiply(b, u, high - low), low)


def spread(b: GraphBuilder, v: Value, like: Images, size: int) -> Value:
    """One number for each image, [N] or [N, 1], at each of `size` places: [N, C, size]."""
    dims = tuple(range(b.type_of(v).rank))
    return arith.as_spread(b, v, (like.n, like.channels, size), dims)


def over_images(b: GraphBuilder, v: Value, like: Images) -> Value:
    """One number for each image at each element, [N, C, H, W]; numbers in the images' element type."""
    number = v if b.type_of(v).dtype is DType.BOOL else arith.convert(b, v, like.dtype)
    return arith.as_spread(b, number, like.shape, tuple(range(b.type_of(v).rank)))


def grid(
    b: GraphBuilder, like: Images, height: int, width: int, dtype: DType
) -> tuple[Value, Value]:
    """Row and column of each of `height * width` places, [N, C, height * width]."""
    size = height * width
    row, column = (
        arith.as_spread(
            b, b(Constant.of(axis.astype(dtype.numpy))), (like.n, like.channels, size), (2,)
        )
        for axis in divmod(np.arange(size), width)
    )
    return row, column


def inside(b: GraphBuilder, at: Value, size: int) -> Value:
    """Whether places lie in 0 to size - 1."""
    return b(And(), arith.compare(b, "ge", at, 0), arith.compare(b, "le", at, size - 1))


def whole(b: GraphBuilder, at: Value) -> Value:
    """Whole numbers as i64, by way of i32, to which processors convert vectors of floats."""
    return arith.convert(b, arith.convert(b, at, DType.I32), DType.I64)


def read(b: GraphBuilder, x: Value, row: Value, column: Value) -> Value:
    """The images' elements at rows and columns, i64 [N, C, places]; the nearest for those outside."""
    like = images(b, "read", x)
    y, z = (
        arith.maximum(b, arith.minimum(b, at, size - 1), 0)
        for at, size in ((row, like.height), (column, like.width))
    )
    return _read(b, x, like, arith.add(b, arith.multiply(b, y, like.width), z))


def _read(b: GraphBuilder, x: Value, like: Images, at: Value) -> Value:
    """The images' elements at positions in each channel, which lie inside: [N, C, places]."""
    flat = arith.reshape(b, x, (like.n, like.channels, like.height * like.width))
    return b(TakeAlongAxis(2), flat, at)


def filled(b: GraphBuilder, value: Value, here: Value, fill: Fill, like: Images) -> Value:
    """`value` [N, C, places] where `here` holds, else the fill, which may differ by channel."""
    shape = b.type_of(value).shape
    return arith.select(b, here, value, fills(b, fill, like, shape))


def fills(b: GraphBuilder, fill: Fill, like: Images, shape: tuple[DimLike, ...]) -> Value:
    """A fill for [N, C, ...]. Raises RejectError for one with another number of channels."""
    if isinstance(fill, float) or len(fill) == 1:
        number = fill if isinstance(fill, float) else fill[0]
        return arith.broadcast_to(b, arith.constant(b, number, like.dtype), shape)
    if len(fill) != like.channels:
        raise RejectError(
            f"`fill` has {len(fill)} numbers for {like.channels} channels", argument="fill"
        )
    numbers = b(Constant.of(np.array(fill).astype(like.dtype.numpy)))
    return arith.as_spread(b, numbers, shape, (1,))


def nearest(b: GraphBuilder, x: Value, row: Value, column: Value, fill: Fill) -> Value:
    """The images at the elements nearest to places, f32 [N, C, places]; the fill outside."""
    like = images(b, "sample", x)
    y, z = (b(RoundNearestEven(), v) for v in (row, column))
    here = b(And(), inside(b, y, like.height), inside(b, z, like.width))
    value = read(b, x, whole(b, y), whole(b, z))
    return filled(b, value, here, fill, like)


def bilinear(
    b: GraphBuilder,
    x: Value,
    row: Value,
    column: Value,
    fill: Fill | None = None,
) -> Value:
    """The images between the four elements around places, f32 [N, C, places].

    Outside is the fill, blended in along the edge; without one the edge goes on.
    """
    like = images(b, "sample", x)
    rows = _sides(b, row, like.height, fill is None)
    columns = _sides(b, column, like.width, fill is None)

    def mixed(parts: list[Value], sides: list[tuple[Value, Value]]) -> Value:
        scaled = [
            arith.multiply(b, p, arith.convert(b, weight, like.dtype))
            for p, (_, weight) in zip(parts, sides, strict=True)
        ]
        return arith.add(b, scaled[0], scaled[1])

    lines = []
    for y, _ in rows:
        start = arith.multiply(b, y, like.width)
        lines.append(
            mixed([_read(b, x, like, arith.add(b, start, z)) for z, _ in columns], columns)
        )
    total = mixed(lines, rows)
    if fill is None or fill == 0:
        return total
    ones = [arith.add(b, sides[0][1], sides[1][1]) for sides in (rows, columns)]
    rest = arith.subtract(b, 1.0, arith.multiply(b, ones[0], ones[1]))
    rest, shape = arith.convert(b, rest, like.dtype), b.type_of(total).shape
    return arith.add(b, total, arith.multiply(b, rest, fills(b, fill, like, shape)))


def _sides(b: GraphBuilder, at: Value, size: int, edge: bool) -> list[tuple[Value, Value]]:
    """Before and after a place along one axis: index and weight, which is 0 outside unless the edge goes on."""
    before = b(Floor(), at)
    share = arith.subtract(b, at, before)
    index = whole(b, before)
    result = []
    for place, weight in (
        (index, arith.subtract(b, 1.0, share)),
        (arith.add(b, index, 1), share),
    ):
        held = arith.maximum(b, arith.minimum(b, place, size - 1), 0)
        if not edge:
            weight = arith.select(b, arith.compare(b, "eq", held, place), weight, 0.0)
        result.append((held, weight))
    return result


BOX = (ATTEMPTS, ATTEMPTS, 1, 1)
"""The counts of uniform numbers that `box` takes."""


def box(
    b: GraphBuilder,
    u: Sequence[Value],
    like: Images,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    whole: bool,
) -> tuple[Value, Value, Value, Value, Value]:
    """Top, left, height and width of a random part of each image, f32 [N, 1], and whether one was found.

    `u` are uniform numbers: `BOX` of them. Area is a part of the image's from `scale`, height over width is from
    `ratio`, evenly on a logarithmic scale; the first of ten that is smaller than the image (or as large, where `whole`
    may be) is it.
    """
    shape = (like.n, ATTEMPTS)
    size = float(like.height * like.width)
    area = between(b, u[0], scale[0] * size, scale[1] * size)
    aspect = b(Exp(), between(b, u[1], math.log(ratio[0]), math.log(ratio[1])))
    sides = [
        b(RoundNearestEven(), b(Sqrt(), v))
        for v in (arith.multiply(b, area, aspect), arith.divide(b, area, aspect))
    ]
    fits = None
    for side, extent in zip(sides, (like.height, like.width), strict=True):
        most = extent if whole else extent - 1
        one = b(And(), arith.compare(b, "le", side, most), arith.compare(b, "gt", side, 0))
        fits = one if fits is None else b(And(), fits, one)
    assert fits is not None

    def column(v: Value) -> Value:
        return arith.reshape(b, v, (like.n, 1))

    found = column(b(ReduceAny((1,)), fits))
    first = b(ArgMax(1), b(Convert(DType.I32), fits))
    number = b(Iota(DType.I64, shape, 1))
    chosen = arith.compare(b, "eq", number, arith.as_spread(b, first, shape, (0,)))
    height, width = (column(arith.sum(b, arith.select(b, chosen, side, 0.0), 1)) for side in sides)
    corner = []
    for v, side, extent in zip(u[2:], (height, width), (like.height, like.width), strict=True):
        room = arith.subtract(b, extent, side)
        start = b(Floor(), arith.multiply(b, v, arith.add(b, room, 1.0)))
        corner.append(arith.minimum(b, start, room))
    return corner[0], corner[1], height, width, found
