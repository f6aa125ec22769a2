"""Layers that only move elements: Flatten, Unflatten, Identity, Pad, Upsample, PixelShuffle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from graphc.frontend.layers.base import (
    Layer,
    LayerContext,
    fixed,
    layer_classes,
    need_float,
    need_rank,
    positive,
    type_of,
)
from graphc.frontend.layers.emit import pad_axes, reshape, transpose
from graphc.frontend.report import RejectError
from graphc.ir.dim import DimLike, product
from graphc.ir.graph import Value
from graphc.ops import Resize


@dataclass(frozen=True)
class Identity(Layer):
    """The input itself. Source: `torch.nn.Identity`."""

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        return x


@dataclass(frozen=True)
class Flatten(Layer):
    """Joins the dimensions `start_dim` to `end_dim` into one. Source: `torch.nn.Flatten`."""

    start_dim: int = 1
    end_dim: int = -1

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = type_of(cx, x)
        start, end = (_axis(cx, n, d, kind.rank) for n, d in vars(self).items())
        if start > end:
            raise RejectError(
                f"{cx.what} starts at {start}, after its end at {end}", argument="start_dim"
            )
        joined = product(kind.shape[start : end + 1])
        return reshape(cx.b, x, (*kind.shape[:start], joined, *kind.shape[end + 1 :]))


def _axis(cx: LayerContext, name: str, dim: int, rank: int) -> int:
    if not -rank <= dim < rank:
        raise RejectError(
            f"`{name}` of {cx.what} is {dim}, and its input has {rank} dimensions",
            code="E0211",
            argument=name,
        )
    return dim % rank


@dataclass(frozen=True)
class Unflatten(Layer):
    """Splits dimension `dim` into `unflattened_size`, of which one may be -1. Source: `torch.nn.Unflatten`."""

    dim: int
    unflattened_size: tuple[int, ...]

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = type_of(cx, x)
        axis = _axis(cx, "dim", self.dim, kind.rank)
        known = math.prod(s for s in self.unflattened_size if s != -1)
        size = kind.shape[axis]
        if self.unflattened_size.count(-1) > 1 or known < 1:
            raise RejectError(f"{cx.what} can infer one size only", argument="unflattened_size")
        sizes = [size // known if s == -1 else s for s in self.unflattened_size]
        if product(sizes) != size:
            raise RejectError(
                f"{cx.what} cannot split {size} into {list(self.unflattened_size)}",
                code="E0210",
                argument="unflattened_size",
            )
        return reshape(cx.b, x, (*kind.shape[:axis], *sizes, *kind.shape[axis + 1 :]))


@dataclass(frozen=True)
class Pad(Layer):
    """Pads the last dimensions with a number: `(left, right, top, bottom, ...)`, last dimension first.

    One number pads both ends of the dimensions after the channels. Negative amounts crop. Source:
    `torch.nn.ConstantPad2d`.
    """

    padding: int | tuple[int, ...]
    value: float = 0.0

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = type_of(cx, x)
        pads = self.padding
        if isinstance(pads, int):
            pads = (pads, pads) * max(0, kind.rank - 2)
        if len(pads) % 2 or len(pads) > 2 * kind.rank:
            raise RejectError(
                f"`padding` of {cx.what} has {len(pads)} numbers; it takes two per dimension of {kind}",
                argument="padding",
            )
        per_axis = {
            kind.rank - 1 - i: (pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2)
        }
        for axis, (low, high) in per_axis.items():
            size = kind.shape[axis]
            if isinstance(size, int) and size + low + high < 0:
                raise RejectError(
                    f"{cx.what} crops {-low - high} elements of the {size} in dimension {axis}",
                    argument="padding",
                )
        return pad_axes(cx.b, x, per_axis, self.value)


@dataclass(frozen=True)
class ZeroPad2d(Layer):
    """Pads images `[N, C, H, W]` with zeros: one number, or `(left, right, top, bottom)`.

    Source: `torch.nn.ZeroPad2d`.
    """

    padding: int | tuple[int, int, int, int]

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        need_rank(cx, x, 4, "N, C, H, W")
        return Pad(self.padding).apply(cx, x)


@dataclass(frozen=True)
class Upsample(Layer):
    """Makes images `[N, C, H, W]` larger, to `size` or by `scale_factor`. Source: `torch.nn.Upsample`."""

    size: int | tuple[int, int] | None = None
    scale_factor: float | tuple[float, float] | None = None
    mode: Literal["nearest", "bilinear"] = "nearest"
    align_corners: bool = False

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = need_rank(cx, x, 4, "N, C, H, W")
        need_float(cx, x)
        if self.align_corners and self.mode == "nearest":
            raise RejectError(
                f'`align_corners` of {cx.what} needs mode="bilinear"', argument="align_corners"
            )
        op = Resize(
            size=target_size(cx.what, kind.shape[2:], self.size, self.scale_factor),
            mode=self.mode,
            align_corners=self.align_corners,
            channels_last=False,
        )
        return cx.b(op, x)


def target_size(
    what: str,
    sizes: tuple[DimLike, ...],
    size: int | tuple[int, int] | None,
    scale: float | tuple[float, float] | None,
) -> tuple[DimLike, ...]:
    """The size to resize to; named dims scale by whole numbers only. Raises RejectError."""
    if (size is None) == (scale is None):
        raise RejectError(f"{what} takes either `size` or `scale_factor`", argument="size")
    if size is not None:
        wanted = (size, size) if isinstance(size, int) else size
        if min(wanted) < 1:
            raise RejectError(f"`size` of {what} has to be at least 1", argument="size")
        return wanted
    scales = (scale, scale) if isinstance(scale, float) else scale
    assert isinstance(scales, tuple)
    out: list[DimLike] = []
    for have, factor in zip(sizes, scales, strict=True):
        if not 0 < factor < 1e6:
            raise RejectError(
                f"`scale_factor` of {what} has to be positive", argument="scale_factor"
            )
        if factor == int(factor):
            out.append(have * int(factor))
        elif not isinstance(have, int):
            raise RejectError(
                f"{what} scales `{have}` by {factor:g}: a named dim scales by whole numbers only",
                code="E0216",
                argument="scale_factor",
            )
        else:
            out.append(max(1, math.floor(have * factor)))
    return tuple(out)


@dataclass(frozen=True)
class PixelShuffle(Layer):
    """`[N, C * r * r, H, W]` to `[N, C, H * r, W * r]` (Shi et al. 2016). Source: `torch.nn.PixelShuffle`."""

    upscale_factor: int

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        n, channels, h, w = need_rank(cx, x, 4, "N, C, H, W").shape
        positive(cx, upscale_factor=self.upscale_factor)
        r = self.upscale_factor
        c = fixed(cx, channels, "channels")
        if c % (r * r):
            raise RejectError(
                f"{cx.what} needs a multiple of {r * r} channels, not {c}", code="E0209", operand=0
            )
        split = reshape(cx.b, x, (n, c // (r * r), r, r, h, w))
        return reshape(
            cx.b, transpose(cx.b, split, (0, 1, 4, 2, 5, 3)), (n, c // (r * r), h * r, w * r)
        )


@dataclass(frozen=True)
class PixelUnshuffle(Layer):
    """`[N, C, H * r, W * r]` to `[N, C * r * r, H, W]`. Source: `torch.nn.PixelUnshuffle`."""

    downscale_factor: int

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        n, c, h, w = need_rank(cx, x, 4, "N, C, H, W").shape
        positive(cx, downscale_factor=self.downscale_factor)
        r = self.downscale_factor
        if h % r != 0 or w % r != 0:
            raise RejectError(
                f"{cx.what} needs sizes that {r} divides, not {h} x {w}", code="E0209", operand=0
            )
        split = reshape(cx.b, x, (n, c, h // r, r, w // r, r))
        return reshape(
            cx.b, transpose(cx.b, split, (0, 1, 3, 5, 2, 4)), (n, c * (r * r), h // r, w // r)
        )


LAYERS = layer_classes(
    "Shape",
    Identity,
    Flatten,
    Unflatten,
    Pad,
    ZeroPad2d,
    Upsample,
    PixelShuffle,
    PixelUnshuffle,
)
"""The layers of this file."""
