"""Augmentation that mixes images and their labels, or leaves parts of images out.

`mixup` and `cutmix` return the images and the labels: `augment image -> mixup(label, 0.2)` gives both names new values.
Each image is mixed with the one before it in the batch, as torchvision does; batches are shuffled.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from graphc.frontend import draws
from graphc.frontend.draws import integers_of
from graphc.frontend.functions.random import probability
from graphc.frontend.keys import RandomKey
from graphc.frontend.mixed import Mixed
from graphc.frontend.report import RejectError
from graphc.frontend.sampling import BOX, Fill, Images, box, each, fills, images
from graphc.frontend.signature import Registry
from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array
from graphc.ops import And, Concatenate, Constant, Floor, Iota, Slice, Sqrt, Take, arith

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Augmentation")
_STEPS = 1 << 10


# ---- Rectangles -----------------------------------------------------------------------------------


def _in_box(
    b: GraphBuilder, like: Images, top: Value, left: Value, bottom: Value, right: Value
) -> Value:
    """Whether each element lies in its image's box (f32 [N, 1], the ends not included): bool [N, C, H, W]."""
    result = None
    for axis, low, high in ((2, top, bottom), (3, left, right)):
        at = b(Iota(DType.F32, like.shape, axis))
        ends = [arith.as_spread(b, v, like.shape, (0, 1)) for v in (low, high)]
        here = b(And(), arith.compare(b, "ge", at, ends[0]), arith.compare(b, "lt", at, ends[1]))
        result = here if result is None else b(And(), result, here)
    assert result is not None
    return result


@_add
def erase(
    b: GraphBuilder,
    x: Value,
    p: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: Fill | str = 0.0,
    *,
    key: RandomKey,
) -> Value:
    """A rectangle of each image replaced with probability `p` (Zhong et al. 2017).

    `scale` is its part of the area, `ratio` height over width; `value` a number, one for each channel, or "random" for
    normal noise. Source: `torchvision.transforms.RandomErasing`.
    """
    like = images(b, "erase", x)
    probability("erase", p)
    if not 0 <= scale[0] <= scale[1] <= 1:
        raise RejectError("`scale` of erase is a range between 0 and 1", argument="scale")
    if not 0 < ratio[0] <= ratio[1]:
        raise RejectError("`ratio` of erase is a range above 0", argument="ratio")
    if isinstance(value, str) and value != "random":
        raise RejectError('`value` of erase is a number or "random"', argument="value")
    *u, last = each(b, key, like.n, *BOX, 1)
    top, left, height, width, found = box(b, u, like, scale, ratio, whole=False)
    chosen = b(And(), found, arith.compare(b, "lt", last, p))
    bottom = arith.add(b, top, arith.select(b, chosen, height, 0.0))
    here = _in_box(b, like, top, left, bottom, arith.add(b, left, width))
    if isinstance(value, str):
        new = draws.normal(b, key.part(1), like.shape, like.dtype)
    else:
        new = fills(b, value, like, like.shape)
    return arith.select(b, here, new, x)


@_add
def cutout(b: GraphBuilder, x: Value, size: int, value: float = 0.0, *, key: RandomKey) -> Value:
    """A square of `size` pixels around a random place of each image replaced by `value`; it may reach over the edge.

    Source: DeVries & Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout" (2017).
    """
    like = images(b, "cutout", x)
    if size < 1:
        raise RejectError("`size` of cutout has to be at least 1", argument="size")
    ends = []
    for u, extent in zip(each(b, key, like.n, 1, 1), (like.height, like.width), strict=True):
        centre = arith.convert(b, integers_of(b, u, 0, extent), DType.F32)
        low = arith.subtract(b, centre, float(size // 2))
        ends.append((low, arith.add(b, low, float(size))))
    here = _in_box(b, like, ends[0][0], ends[1][0], ends[0][1], ends[1][1])
    return arith.select(b, here, fills(b, value, like, like.shape), x)


# ---- Mixing ---------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def beta_quantiles(alpha: float) -> tuple[float, ...]:
    """The numbers below which 0, 1/1024, ... 1 of the Beta(alpha, alpha) distribution lie.

    The density t^(a-1) (1-t)^(a-1) is summed over s = t^a, in which it is (1 - s^(1/a))^(a-1) / a and has no pole up to
    the middle; the other half is its mirror image.
    """
    end = 0.5**alpha
    s = np.linspace(0.0, end, 20_001)
    density = (1 - s ** (1 / alpha)) ** (alpha - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    half = np.linspace(0.0, 0.5, _STEPS // 2 + 1)
    lower = np.interp(half, 0.5 * area / area[-1], s) ** (1 / alpha)
    return tuple(np.concatenate([lower, 1 - lower[-2::-1]]).tolist())


def beta(b: GraphBuilder, u: Value, alpha: float) -> Value:
    """Uniform numbers as numbers of Beta(alpha, alpha): between the nearest two of a table of quantiles."""
    place = arith.multiply(b, u, float(_STEPS))
    before = b(Floor(), place)
    index = arith.convert(b, arith.convert(b, before, DType.I32), DType.I64)
    index = arith.maximum(b, arith.minimum(b, index, _STEPS - 1), 0)
    table: Array = np.array(beta_quantiles(alpha), np.float32)
    low, step = (b(Take(0), b(Constant.of(t)), index) for t in (table[:-1], np.diff(table)))
    return arith.add(b, low, arith.multiply(b, step, arith.subtract(b, place, before)))


def _share(b: GraphBuilder, name: str, alpha: float, u: Value) -> Value:
    """How much of each image stays, from uniform numbers."""
    if not 0.01 <= alpha <= 100:
        raise RejectError(
            f"`alpha` of {name} has to be between 0.01 and 100 and is {alpha:g}", argument="alpha"
        )
    return beta(b, u, alpha)


def _before(b: GraphBuilder, x: Value) -> Value:
    """Row i - 1 in place of row i, and the last one first: torchvision's `roll(1, 0)`."""
    n, *rest = b.type_of(x).shape
    zeros, ones = [0] * len(rest), (1,) * (1 + len(rest))

    def rows(start: DimLike, limit: DimLike) -> Value:
        return b(Slice((start, *zeros), (limit, *rest), ones), x)

    return b(Concatenate(0), rows(n - 1, n), rows(0, n - 1))


def _labels(b: GraphBuilder, name: str, label: Value, share: Value) -> Value | Mixed:
    """Class numbers become two with a share; anything else is mixed as it stands."""
    kind = b.type_of(label)
    (n,) = b.type_of(share).shape
    if not kind.shape or kind.shape[0] != n:
        raise RejectError(
            f"{name} mixes {n} images and needs as many labels, not {kind}",
            code="E0202",
            argument="label",
        )
    if kind.dtype.is_float:
        return _mixed(b, label, share)
    if kind.rank != 1 or not kind.dtype.is_int:
        raise RejectError(
            f"{name} takes class numbers i64[N] or floating-point labels, not {kind}",
            code="E0206",
            argument="label",
        )
    return Mixed.of(b, label, _before(b, label), share)


def _mixed(b: GraphBuilder, x: Value, share: Value) -> Value:
    """`share * own + (1 - share) * other` along the first dimension."""
    kind = b.type_of(x)
    wide = arith.as_spread(b, arith.convert(b, share, kind.dtype), kind.shape, (0,))
    rest = arith.multiply(b, arith.subtract(b, 1.0, wide), _before(b, x))
    return arith.add(b, arith.multiply(b, wide, x), rest)


@_add
def mixup(
    b: GraphBuilder, x: Value, label: Value, alpha: float = 1.0, *, key: RandomKey
) -> tuple[Value, Value | Mixed]:
    """Inputs and labels mixed with their neighbours', `share * own + (1 - share) * other`, share ~ Beta(alpha, alpha).

    The input is a batch of anything. Class numbers become two for each image, with shares: `cross_entropy` takes them,
    a metric sees the larger one. Labels of a floating-point type are mixed themselves. Source: Zhang et al. 2018;
    `torchvision.transforms.v2.MixUp`, which draws one share for the whole batch.
    """
    kind = b.type_of(x)
    if not kind.shape or not kind.dtype.is_float:
        raise RejectError(
            f"mixup needs a floating-point batch and gets {kind}", code="E0206", operand=0
        )
    share = _share(b, "mixup", alpha, draws.uniform(b, key, (kind.shape[0],)))
    return _mixed(b, x, share), _labels(b, "mixup", label, share)


@_add
def cutmix(
    b: GraphBuilder, x: Value, label: Value, alpha: float = 1.0, *, key: RandomKey
) -> tuple[Value, Value | Mixed]:
    """A rectangle of each image comes from its neighbour, and the label gets as much of the neighbour's.

    Its part of the area is 1 - Beta(alpha, alpha), less what reaches over the edge. Labels as in `mixup`. Source: Yun
    et al. 2019; `torchvision.transforms.v2.CutMix`, which draws one rectangle for the whole batch.
    """
    like = images(b, "cutmix", x)
    first, *u = each(b, key, like.n, 1, 1, 1)
    part = arith.subtract(b, 1.0, _share(b, "cutmix", alpha, first))
    side = arith.multiply(b, b(Sqrt(), part), 0.5)
    ends = []
    for v, extent in zip(u, (like.height, like.width), strict=True):
        centre = arith.convert(b, integers_of(b, v, 0, extent), DType.F32)
        reach = b(Floor(), arith.multiply(b, side, float(extent)))
        low = arith.maximum(b, arith.subtract(b, centre, reach), 0.0)
        ends.append((low, arith.minimum(b, arith.add(b, centre, reach), float(extent))))
    (top, bottom), (left, right) = ends
    here = _in_box(b, like, top, left, bottom, right)
    area = arith.multiply(b, arith.subtract(b, bottom, top), arith.subtract(b, right, left))
    share = arith.subtract(b, 1.0, arith.divide(b, area, float(like.height * like.width)))
    mixed = arith.select(b, here, _before(b, x), x)
    return mixed, _labels(b, "cutmix", label, arith.reshape(b, share, (like.n,)))
