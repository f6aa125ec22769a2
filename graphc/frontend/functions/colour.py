"""Augmentation that changes pixel values: colour, noise, blur, normalisation. Images are [N, C, H, W] in [0, 1].

Names, arguments, defaults and arithmetic of `torchvision.transforms`; every image of a batch draws its own numbers.
"""

from __future__ import annotations

import math

import numpy as np

from graphc.frontend import draws
from graphc.frontend.functions.random import probability
from graphc.frontend.functions.warp import size_of
from graphc.frontend.keys import RandomKey
from graphc.frontend.report import RejectError
from graphc.frontend.sampling import Images, between, each, images, over_images
from graphc.frontend.signature import Registry
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import Concatenate, Constant, Exp, Floor, Reverse, Slice, arith

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Augmentation")
_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, in torchvision's digits


def _part(b: GraphBuilder, x: Value, axis: int, start: int, limit: int) -> Value:
    """A stretch of a dimension."""
    shape = b.type_of(x).shape
    starts = tuple(start if i == axis else 0 for i in range(len(shape)))
    limits = tuple(limit if i == axis else size for i, size in enumerate(shape))
    return b(Slice(starts, limits, (1,) * len(shape)), x)


def _channel(b: GraphBuilder, x: Value, number: int) -> Value:
    return _part(b, x, 1, number, number + 1)


def _grey(b: GraphBuilder, x: Value, like: Images) -> Value:
    """Luminance, [N, 1, H, W]; images with one channel are grey."""
    if like.channels == 1:
        return x
    parts = [arith.multiply(b, _channel(b, x, i), w) for i, w in enumerate(_LUMA)]
    return arith.add(b, arith.add(b, parts[0], parts[1]), parts[2])


def _limited(b: GraphBuilder, x: Value) -> Value:
    return arith.minimum(b, arith.maximum(b, x, 0.0), 1.0)


def _coloured(name: str, like: Images) -> None:
    if like.channels not in (1, 3):
        raise RejectError(
            f"{name} needs images of 1 or 3 channels, not of {like.channels}",
            code="E0214",
            operand=0,
        )


def _strength(
    argument: str, value: float | tuple[float, float], centre: float = 1.0
) -> tuple[float, float] | None:
    """torchvision's `_check_input`: the range of a factor, or None where nothing changes. Raises RejectError."""
    if isinstance(value, tuple):
        low, high = value
    else:
        low, high = centre - value, centre + value
        low = max(low, 0.0) if centre else low
    bounds = (0.0, math.inf) if centre else (-0.5, 0.5)
    if not bounds[0] <= low <= high <= bounds[1]:
        raise RejectError(
            f"`{argument}` of color_jitter lies between {bounds[0]:g} and {bounds[1]:g}",
            argument=argument,
        )
    return None if low == high == centre else (low, high)


@_add
def color_jitter(
    b: GraphBuilder,
    x: Value,
    brightness: float | tuple[float, float] = 0.0,
    contrast: float | tuple[float, float] = 0.0,
    saturation: float | tuple[float, float] = 0.0,
    hue: float | tuple[float, float] = 0.0,
    *,
    key: RandomKey,
) -> Value:
    """Brightness, contrast, saturation and hue changed by random amounts, in this order.

    A number s means factors from 1 - s to 1 + s, of hue turns from -s to s (at most 0.5, half of the circle). Grey
    images have no saturation and no hue. torchvision, whose `ColorJitter` this is, also shuffles the four.
    """
    like = images(b, "color_jitter", x)
    _coloured("color_jitter", like)
    ranges = (
        _strength("brightness", brightness),
        _strength("contrast", contrast),
        _strength("saturation", saturation),
        _strength("hue", hue, 0.0),
    )
    for change, span, u in zip(
        (_brighter, _contrasted, _saturated, _turned),
        ranges,
        each(b, key, like.n, *(1,) * 4),
        strict=True,
    ):
        if span is not None:
            x = change(b, x, over_images(b, between(b, u, *span), like), like)
    return x


def _blend(b: GraphBuilder, x: Value, other: Value, share: Value) -> Value:
    """`share * x + (1 - share) * other`, limited to [0, 1]."""
    rest = arith.multiply(b, arith.subtract(b, 1.0, share), other)
    return _limited(b, arith.add(b, arith.multiply(b, share, x), rest))


def _brighter(b: GraphBuilder, x: Value, factor: Value, like: Images) -> Value:
    return _limited(b, arith.multiply(b, x, factor))


def _contrasted(b: GraphBuilder, x: Value, factor: Value, like: Images) -> Value:
    mean = arith.mean(b, _grey(b, x, like), (1, 2, 3))
    return _blend(b, x, over_images(b, mean, like), factor)


def _saturated(b: GraphBuilder, x: Value, factor: Value, like: Images) -> Value:
    if like.channels == 1:
        return x
    grey = arith.broadcast_to(b, _grey(b, x, like), like.shape)
    return _blend(b, x, grey, factor)


def _turned(b: GraphBuilder, x: Value, turns: Value, like: Images) -> Value:
    """The hue moved around the circle: torchvision's `_rgb2hsv` and `_hsv2rgb`.

    Of a hue h, channel c is `value - value * saturation * max(0, min(k, 4 - k, 1))` with k = (5, 3, 1)[c] + 6 h mod 6.
    """
    if like.channels == 1:
        return x
    red, green, blue = (_channel(b, x, i) for i in range(3))
    top = arith.maximum(b, arith.maximum(b, red, green), blue)
    low = arith.minimum(b, arith.minimum(b, red, green), blue)
    span = arith.subtract(b, top, low)
    flat = arith.compare(b, "eq", span, 0.0)
    divisor = arith.select(b, flat, 1.0, span)

    def sixth(first: Value, second: Value, offset: float) -> Value:
        return arith.add(b, arith.divide(b, arith.subtract(b, first, second), divisor), offset)

    is_red, is_green = (arith.compare(b, "eq", top, c) for c in (red, green))
    hue = arith.select(b, is_green, sixth(blue, red, 2.0), sixth(red, green, 4.0))
    hue = arith.select(b, is_red, sixth(green, blue, 0.0), hue)
    moved = arith.add(b, hue, arith.multiply(b, _channel(b, turns, 0), 6.0))
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = arith.add(b, moved, offset)
        whole = b(Floor(), arith.multiply(b, k, 1 / 6))
        k = arith.subtract(b, k, arith.multiply(b, whole, 6.0))
        share = arith.minimum(b, arith.minimum(b, k, arith.subtract(b, 4.0, k)), 1.0)
        lost = arith.multiply(b, span, arith.maximum(b, share, 0.0))
        channels.append(arith.subtract(b, top, lost))
    return b(Concatenate(1), *channels)


@_add
def grayscale(b: GraphBuilder, x: Value, num_output_channels: int = 1) -> Value:
    """The luminance of images, in 1 channel or 3 equal ones. Source: `torchvision.transforms.Grayscale`."""
    like = images(b, "grayscale", x)
    _coloured("grayscale", like)
    if num_output_channels not in (1, 3):
        raise RejectError("grayscale makes 1 or 3 channels", argument="num_output_channels")
    grey = _grey(b, x, like)
    shape = (like.n, num_output_channels, like.height, like.width)
    return arith.broadcast_to(b, grey, shape)


@_add
def random_grayscale(b: GraphBuilder, x: Value, p: float = 0.1, *, key: RandomKey) -> Value:
    """Images that lose their colour with probability `p`. Source: `torchvision.transforms.RandomGrayscale`."""
    like = images(b, "random_grayscale", x)
    _coloured("random_grayscale", like)
    probability("random_grayscale", p)
    (u,) = each(b, key, like.n, 1)
    chosen = over_images(b, arith.compare(b, "lt", u, p), like)
    return arith.select(b, chosen, arith.broadcast_to(b, _grey(b, x, like), like.shape), x)


@_add
def gaussian_noise(
    b: GraphBuilder,
    x: Value,
    mean: float = 0.0,
    sigma: float = 0.1,
    clip: bool = True,
    *,
    key: RandomKey,
) -> Value:
    """Normal noise added to every element, and the sum limited to [0, 1].

    Source: `torchvision.transforms.v2.GaussianNoise`.
    """
    like = images(b, "gaussian_noise", x)
    if sigma < 0:
        raise RejectError("`sigma` of gaussian_noise cannot be negative", argument="sigma")
    noise = arith.multiply(b, draws.normal(b, key, like.shape, like.dtype), sigma)
    y = arith.add(b, x, arith.add(b, noise, mean) if mean else noise)
    return _limited(b, y) if clip else y


@_add
def gaussian_blur(
    b: GraphBuilder,
    x: Value,
    kernel_size: int | tuple[int, int],
    sigma: float | tuple[float, float] = (0.1, 2.0),
    *,
    key: RandomKey,
) -> Value:
    """Images blurred by a Gaussian of random width `sigma`; borders reflect.

    Source: `torchvision.transforms.GaussianBlur`.

    `kernel_size` is one odd number, or (height, width).
    """
    like = images(b, "gaussian_blur", x)
    sizes = size_of("gaussian_blur", kernel_size)
    low, high = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    if not 0 < low <= high:
        raise RejectError("`sigma` of gaussian_blur is a range above 0", argument="sigma")
    for size, extent in zip(sizes, (like.height, like.width), strict=True):
        if size % 2 == 0 or size // 2 >= extent:
            raise RejectError(
                "`kernel_size` of gaussian_blur is odd, and less than twice the image",
                argument="kernel_size",
            )
    (u,) = each(b, key, like.n, 1)
    width = between(b, u, low, high)
    for axis, size in ((2, sizes[0]), (3, sizes[1])):
        if size > 1:
            x = _blurred(b, x, axis, size // 2, width, like)
    return x


def _blurred(b: GraphBuilder, x: Value, axis: int, reach: int, sigma: Value, like: Images) -> Value:
    """One direction of a blur."""
    extent = like.shape[axis]
    assert isinstance(extent, int)
    before = b(Reverse((axis,)), _part(b, x, axis, 1, reach + 1))
    after = b(Reverse((axis,)), _part(b, x, axis, extent - 1 - reach, extent - 1))
    wide = b(Concatenate(axis), before, x, after)
    weights = []
    for distance in range(reach + 1):
        z = arith.divide(b, float(distance), sigma)
        weights.append(b(Exp(), arith.multiply(b, arith.multiply(b, z, z), -0.5)))
    total = weights[0]
    for weight in weights[1:]:
        total = arith.add(b, total, arith.multiply(b, weight, 2.0))
    result = None
    for offset in range(2 * reach + 1):
        share = over_images(b, arith.divide(b, weights[abs(offset - reach)], total), like)
        part = arith.multiply(b, _part(b, wide, axis, offset, offset + extent), share)
        result = part if result is None else arith.add(b, result, part)
    assert result is not None
    return result


@_add
def normalize(
    b: GraphBuilder,
    x: Value,
    mean: float | tuple[float, ...],
    std: float | tuple[float, ...],
) -> Value:
    """`(x - mean) / std`, one number for all channels or one for each. Source: `torchvision.transforms.Normalize`."""
    like = images(b, "normalize", x)

    def channels(name: str, values: float | tuple[float, ...]) -> Value:
        numbers = (values,) * like.channels if isinstance(values, float) else values
        if len(numbers) != like.channels:
            raise RejectError(
                f"`{name}` of normalize has {len(numbers)} numbers for {like.channels} channels",
                argument=name,
            )
        if name == "std" and 0 in numbers:
            raise RejectError("`std` of normalize cannot be 0", argument="std")
        vector = b(Constant.of(np.array(numbers).astype(like.dtype.numpy)))
        return arith.as_spread(b, vector, like.shape, (1,))

    return arith.divide(b, arith.subtract(b, x, channels("mean", mean)), channels("std", std))
