"""Augmentation that moves pixels: crops, flips, rotations, affine maps. Every image of a batch draws its own numbers.

Names, arguments, defaults and arithmetic are those of `torchvision.transforms` (`RandomCrop` is `random_crop`, and so
on), on images `[N, C, H, W]`. Resizing does not smooth before it shrinks (`antialias=False`).
"""

from __future__ import annotations

import math
from typing import Literal

from graphc.frontend.draws import integers_of
from graphc.frontend.functions.random import probability
from graphc.frontend.keys import RandomKey
from graphc.frontend.layers.emit import pad_axes, reshape
from graphc.frontend.report import RejectError
from graphc.frontend.sampling import (
    BOX,
    Fill,
    Images,
    between,
    bilinear,
    box,
    each,
    filled,
    grid,
    images,
    inside,
    nearest,
    over_images,
    read,
    spread,
)
from graphc.frontend.signature import Registry
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import (
    Abs,
    And,
    Cosine,
    Floor,
    Negate,
    Resize,
    Reverse,
    RoundNearestEven,
    Sine,
    arith,
)

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Augmentation")
Size = int | tuple[int, int]
Interpolation = Literal["nearest", "bilinear"]


def size_of(name: str, size: Size) -> tuple[int, int]:
    """Height and width. Raises RejectError."""
    both = (size, size) if isinstance(size, int) else size
    if min(both) < 1:
        raise RejectError(f"`size` of {name} has to be at least 1", argument="size")
    return both


def _range(name: str, argument: str, value: float | tuple[float, float]) -> tuple[float, float]:
    """A range; one number reaches from its negative. Raises RejectError."""
    low, high = (-value, value) if isinstance(value, float) else value
    if low > high or not math.isfinite(low) or not math.isfinite(high):
        raise RejectError(
            f"`{argument}` of {name} has to be a positive number or a range (low, high)",
            argument=argument,
        )
    return low, high


@_add
def random_crop(
    b: GraphBuilder,
    x: Value,
    size: Size,
    padding: int | tuple[int, int] | tuple[int, int, int, int] | None = None,
    pad_if_needed: bool = False,
    fill: Fill = 0.0,
    padding_mode: Literal["constant", "edge", "reflect"] = "constant",
    *,
    key: RandomKey,
) -> Value:
    """A part of each image at a random place, after padding.

    `padding` is one number, (left/right, top/bottom) or (left, top, right, bottom); `pad_if_needed` pads images that
    are smaller than `size`. Source: `torchvision.transforms.RandomCrop`.
    """
    like = images(b, "random_crop", x)
    height, width = size_of("random_crop", size)
    pad = (padding or 0,) * 4 if not isinstance(padding, tuple) else padding
    left, top, right, bottom = (*pad, *pad) if len(pad) == 2 else pad
    if min(pad) < 0:
        raise RejectError("`padding` of random_crop cannot be negative", argument="padding")
    if pad_if_needed:
        more = (
            max(0, width - like.width - left - right),
            max(0, height - like.height - top - bottom),
        )
        left, right, top, bottom = left + more[0], right + more[0], top + more[1], bottom + more[1]
    spare = like.height + top + bottom - height, like.width + left + right - width
    if min(spare) < 0:
        raise RejectError(
            f"random_crop takes {height} x {width} out of {like.height + top + bottom} x "
            f"{like.width + left + right}",
            argument="size",
            help="padding makes room: `padding=2`, or `pad_if_needed=true`",
        )
    if padding_mode == "reflect" and not (
        max(top, bottom) < like.height and max(left, right) < like.width
    ):
        raise RejectError("random_crop reflects less than the image's size", argument="padding")
    places = height * width
    at, keep = [], None
    drawn = each(b, key, like.n, 1, 1)
    steps = grid(b, like, height, width, DType.I64)
    sides = ((top, bottom, like.height), (left, right, like.width))
    for u, step, room, (before, after, extent) in zip(drawn, steps, spare, sides, strict=True):
        start = spread(b, integers_of(b, u, 0, room + 1), like, places)
        place = arith.add(b, step, start)
        if before:
            place = arith.subtract(b, place, before)
        if (before or after) and padding_mode == "reflect":
            place = b(Abs(), place)
            place = arith.subtract(b, extent - 1, b(Abs(), arith.subtract(b, extent - 1, place)))
        elif (before or after) and padding_mode == "constant":
            here = inside(b, place, extent)
            keep = here if keep is None else b(And(), keep, here)
        at.append(place)
    value = read(b, x, at[0], at[1])
    if keep is not None:
        value = filled(b, value, keep, fill, like)
    return reshape(b, value, (like.n, like.channels, height, width))


@_add
def random_resized_crop(
    b: GraphBuilder,
    x: Value,
    size: Size,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: Interpolation = "bilinear",
    *,
    key: RandomKey,
) -> Value:
    """A random part of each image, resized: `scale` is its part of the area, `ratio` width over height.

    The middle of the image where ten tries give none that fits. Source: `torchvision.transforms.RandomResizedCrop`.
    """
    like = images(b, "random_resized_crop", x)
    height, width = size_of("random_resized_crop", size)
    if not 0 < scale[0] <= scale[1]:
        raise RejectError("`scale` of random_resized_crop is a range above 0", argument="scale")
    if not 0 < ratio[0] <= ratio[1]:
        raise RejectError("`ratio` of random_resized_crop is a range above 0", argument="ratio")
    upright = 1 / ratio[1], 1 / ratio[0]  # height over width
    *part, found = box(b, each(b, key, like.n, *BOX), like, scale, upright, whole=True)
    middle = _middle(like, ratio)
    top, left, h, w = (
        spread(b, arith.select(b, found, v, float(m)), like, height * width)
        for v, m in zip(part, middle, strict=True)
    )
    at = []
    for step, start, extent, want in zip(
        grid(b, like, height, width, DType.F32), (top, left), (h, w), (height, width), strict=True
    ):
        # Pixel centres of the result, in the part; its edge goes on outside.
        place = arith.multiply(b, arith.add(b, step, 0.5), arith.divide(b, extent, float(want)))
        if interpolation == "nearest":
            place = arith.multiply(b, step, arith.divide(b, extent, float(want)))
            place = b(Floor(), place)
        else:
            place = arith.subtract(b, place, 0.5)
        last = arith.subtract(b, extent, 1.0)
        place = arith.minimum(b, arith.maximum(b, place, 0.0), last)
        at.append(arith.add(b, start, place))
    row, column = at
    smooth = interpolation == "bilinear"
    value = bilinear(b, x, row, column) if smooth else nearest(b, x, row, column, 0.0)
    return reshape(b, value, (like.n, like.channels, height, width))


def _middle(like: Images, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the largest part in the middle whose width over height is in a range."""
    height, width = like.height, like.width
    if width / height < ratio[0]:
        height = round(width / ratio[0])
    elif width / height > ratio[1]:
        width = round(height * ratio[1])
    return (like.height - height) // 2, (like.width - width) // 2, height, width


@_add
def center_crop(b: GraphBuilder, x: Value, size: Size) -> Value:
    """The middle of each image, with zeros around one that is smaller. Source: `torchvision.transforms.CenterCrop`."""
    like = images(b, "center_crop", x)
    height, width = size_of("center_crop", size)
    pads = {}
    for axis, have, want in ((2, like.height, height), (3, like.width, width)):
        low = -round((have - want) / 2) if have >= want else (want - have) // 2
        pads[axis] = (low, want - have - low)
    return pad_axes(b, x, pads)


@_add
def resize(
    b: GraphBuilder, x: Value, size: Size, interpolation: Interpolation = "bilinear"
) -> Value:
    """Images at another size; one number is the length of the shorter side. Source: `torchvision.transforms.Resize`."""
    like = images(b, "resize", x)
    height, width = size_of("resize", size)
    if isinstance(size, int):
        short = min(like.height, like.width)
        height, width = like.height * size // short, like.width * size // short
    if (height, width) == (like.height, like.width):
        return x
    return b(Resize((height, width), interpolation, False, False), x)


def _flipped(b: GraphBuilder, x: Value, name: str, axis: int, p: float, key: RandomKey) -> Value:
    like = images(b, name, x)
    probability(name, p)
    (u,) = each(b, key, like.n, 1)
    turn = arith.compare(b, "lt", u, p)
    return arith.select(b, over_images(b, turn, like), b(Reverse((axis,)), x), x)


@_add
def horizontal_flip(b: GraphBuilder, x: Value, p: float = 0.5, *, key: RandomKey) -> Value:
    """Left and right changed with probability `p`. Source: `torchvision.transforms.RandomHorizontalFlip`."""
    return _flipped(b, x, "horizontal_flip", 3, p, key)


@_add
def vertical_flip(b: GraphBuilder, x: Value, p: float = 0.5, *, key: RandomKey) -> Value:
    """Top and bottom changed with probability `p`. Source: `torchvision.transforms.RandomVerticalFlip`."""
    return _flipped(b, x, "vertical_flip", 2, p, key)


def warp(
    b: GraphBuilder,
    x: Value,
    matrix: tuple[Value, ...],
    interpolation: Interpolation,
    fill: Fill,
) -> Value:
    """Images read at `(a u + b v + c, d u + e v + f)` for the column u and row v, all counted from the centre.

    The six numbers are [N, 1] each, f32; outside is the fill. Source: the grid of torchvision's `functional.affine`.
    """
    like = images(b, "affine", x)
    places = like.height * like.width
    row, column = grid(b, like, like.height, like.width, DType.F32)
    at = []
    for (a, d, c), extent in ((matrix[3:], like.height), (matrix[:3], like.width)):
        # Counted from the first pixel instead of the centre, for each image once.
        start = arith.add(b, c, (extent - 1) / 2)
        for m, size in ((a, like.width), (d, like.height)):
            start = arith.subtract(b, start, arith.multiply(b, m, (size - 1) / 2))
        parts = [
            arith.multiply(b, spread(b, m, like, places), step)
            for m, step in ((a, column), (d, row))
        ]
        at.append(arith.add(b, arith.add(b, parts[0], parts[1]), spread(b, start, like, places)))
    value = (nearest if interpolation == "nearest" else bilinear)(b, x, at[0], at[1], fill)
    return reshape(b, value, like.shape)


def _inverse(
    b: GraphBuilder,
    angle: Value,
    shift: tuple[Value, Value],
    scale: Value,
    shear: tuple[Value, Value],
) -> tuple[Value, ...]:
    """The map from a place of the result to one of the image: torchvision's `_get_inverse_affine_matrix`.

    The image is sheared, turned (clockwise, by degrees), scaled and moved, in this order.
    """
    turn, sx, sy = (arith.multiply(b, v, math.pi / 180) for v in (angle, *shear))
    less = arith.subtract(b, turn, sy)
    cosine = b(Cosine(), sy)
    tangent = arith.divide(b, b(Sine(), sx), b(Cosine(), sx))
    a = arith.divide(b, b(Cosine(), less), cosine)
    c = arith.divide(b, b(Sine(), less), cosine)
    over = arith.add(b, arith.multiply(b, a, tangent), b(Sine(), turn))  # -b of the forward map
    d = arith.subtract(b, b(Cosine(), turn), arith.multiply(b, c, tangent))
    m = [arith.divide(b, v, scale) for v in (d, over, b(Negate(), c), a)]

    def back(p: Value, q: Value) -> Value:
        moved = arith.add(b, arith.multiply(b, p, shift[0]), arith.multiply(b, q, shift[1]))
        return b(Negate(), moved)

    return m[0], m[1], back(m[0], m[1]), m[2], m[3], back(m[2], m[3])


@_add
def affine(
    b: GraphBuilder,
    x: Value,
    degrees: float | tuple[float, float],
    translate: tuple[float, float] | None = None,
    scale: tuple[float, float] | None = None,
    shear: float | tuple[float, float] | tuple[float, float, float, float] | None = None,
    interpolation: Interpolation = "nearest",
    fill: Fill = 0.0,
    *,
    key: RandomKey,
) -> Value:
    """Each image turned, moved, scaled and sheared around its centre by random amounts.

    `degrees` and `shear` (also degrees) are ranges, a number d meaning (-d, d); four numbers shear along x and y.
    `translate` are the largest shifts as parts of width and height, in whole pixels. What comes from outside is `fill`.
    Source: `torchvision.transforms.RandomAffine`.
    """
    like = images(b, "affine", x)
    low, high = _range("affine", "degrees", degrees)
    reach = translate or (0.0, 0.0)
    if not all(0 <= t <= 1 for t in reach):
        raise RejectError("`translate` of affine has parts between 0 and 1", argument="translate")
    sizes = scale or (1.0, 1.0)
    if not 0 < sizes[0] <= sizes[1]:
        raise RejectError("`scale` of affine is a range above 0", argument="scale")
    shears = (0.0, 0.0) if shear is None else shear
    if isinstance(shears, tuple) and len(shears) == 4:
        along = _range("affine", "shear", shears[:2]), _range("affine", "shear", shears[2:])
    else:
        along = _range("affine", "shear", shears), (0.0, 0.0)
    if any(abs(end) >= 90 for pair in along for end in pair):
        raise RejectError("`shear` of affine is less than 90 degrees", argument="shear")
    u = each(b, key, like.n, *(1,) * 6)
    shift = tuple(
        b(RoundNearestEven(), between(b, v, -t * extent, t * extent))
        for v, t, extent in zip(u[1:3], reach, (like.width, like.height), strict=True)
    )
    matrix = _inverse(
        b,
        between(b, u[0], low, high),
        (shift[0], shift[1]),
        between(b, u[3], *sizes),
        (between(b, u[4], *along[0]), between(b, u[5], *along[1])),
    )
    return warp(b, x, matrix, interpolation, fill)


@_add
def rotate(
    b: GraphBuilder,
    x: Value,
    degrees: float | tuple[float, float],
    interpolation: Interpolation = "nearest",
    fill: Fill = 0.0,
    *,
    key: RandomKey,
) -> Value:
    """Each image turned around its centre, counter-clockwise by a random angle of the range; a number d means (-d, d).

    Source: `torchvision.transforms.RandomRotation`.
    """
    like = images(b, "rotate", x)
    low, high = _range("rotate", "degrees", degrees)
    (u,) = each(b, key, like.n, 1)
    angle = arith.multiply(b, between(b, u, low, high), math.pi / 180)
    cosine, sine = b(Cosine(), angle), b(Sine(), angle)
    zero = arith.broadcast_to(b, arith.constant(b, 0.0, DType.F32), (like.n, 1))
    matrix = (cosine, b(Negate(), sine), zero, sine, cosine, zero)
    return warp(b, x, matrix, interpolation, fill)


@_add
def translate(
    b: GraphBuilder,
    x: Value,
    translate: tuple[float, float],
    interpolation: Interpolation = "nearest",
    fill: Fill = 0.0,
    *,
    key: RandomKey,
) -> Value:
    """Each image moved by up to these parts of its width and height, in whole pixels: `affine(0, translate)`."""
    return affine(b, x, 0.0, translate, interpolation=interpolation, fill=fill, key=key)
