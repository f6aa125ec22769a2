"""Convolutions, plain and transposed, in one, two and three dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from graphc.frontend.layers.base import (
    KAIMING,
    Layer,
    LayerContext,
    agree,
    checked,
    fixed,
    layer_classes,
    need_float,
    need_rank,
    positive,
    uniform_bound,
)
from graphc.frontend.layers.emit import add_along, reshape, transpose
from graphc.frontend.report import RejectError
from graphc.ir.dim import DimLike
from graphc.ir.graph import Value
from graphc.ir.types import TensorType
from graphc.ops import ConvGeneral, Reverse

Ints = int | tuple[int, ...]
SPATIAL = ("", "L", "H, W", "D, H, W")


def per_axis(cx: LayerContext, name: str, value: Ints, rank: int, low: int) -> tuple[int, ...]:
    """One integer per spatial axis, all at least `low`. Raises RejectError (E0405)."""
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank:
        raise RejectError(
            f"`{name}` of {cx.what} has {len(values)} numbers and needs one or {rank}",
            argument=name,
        )
    if min(values) < low:
        raise RejectError(f"`{name}` of {cx.what} has to be at least {low}", argument=name)
    return values


def check_window(
    cx: LayerContext,
    sizes: tuple[DimLike, ...],
    reach: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    kind: TensorType,
) -> None:
    """Raises RejectError (E0208) where a kernel (with its dilation) is larger than the padded input."""
    for axis, (size, extent, (low, high)) in enumerate(zip(sizes, reach, padding, strict=True)):
        if isinstance(size, int) and size + low + high < extent:
            raise RejectError(
                f"the window of {cx.what} covers {extent} elements, and dimension {axis + 2} of its "
                f"input has {size + low + high}" + (" with its padding" if low + high else ""),
                code="E0208",
                operand=0,
                label=f"does not fit into {kind}",
                help="a smaller kernel, less pooling before it, or more padding",
            )


@dataclass(frozen=True)
class _Conv(Layer):
    """Cross-correlation with one bias per output channel.

    Parameters `weight [out_channels, C / groups, *kernel]` and `bias [out_channels]`, both uniform in ±1/sqrt(fan-in).
    Sizes become `(size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1`. `padding` is a number, one per
    axis, a pair (before, after) per axis, `"valid"`, or `"same"` (stride 1 only; the odd element goes to the end).
    """

    rank: ClassVar[int] = 2

    out_channels: int
    kernel_size: Ints
    stride: Ints = 1
    padding: Ints | tuple[tuple[int, int], ...] | Literal["same", "valid"] = 0
    dilation: Ints = 1
    groups: int = 1
    bias: bool = True
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"
    in_channels: int | None = checked()

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        n = self.rank
        kind = need_rank(cx, x, n + 2, f"N, C, {SPATIAL[n]}")
        need_float(cx, x)
        positive(cx, out_channels=self.out_channels, groups=self.groups)
        channels = fixed(cx, kind.shape[1], "input channels")
        agree(cx, self.in_channels, channels, "channels", f"f32[N, {{}}, {SPATIAL[n]}]")
        check_groups(cx, channels, self.out_channels, self.groups)
        if self.padding_mode != "zeros":
            raise RejectError(
                f"{cx.what} pads with zeros only, not with `{self.padding_mode}`",
                argument="padding_mode",
            )
        kernel = per_axis(cx, "kernel_size", self.kernel_size, n, 1)
        stride = per_axis(cx, "stride", self.stride, n, 1)
        dilation = per_axis(cx, "dilation", self.dilation, n, 1)
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        padding = self._padding(cx, reach, stride)
        check_window(cx, kind.shape[2:], reach, padding, kind)
        shape = (self.out_channels, channels // self.groups, *kernel)
        weight = cx.parameter("weight", shape, KAIMING, dtype=kind.dtype)
        op = ConvGeneral(
            strides=stride,
            padding=padding,
            lhs_dilation=(1,) * n,
            rhs_dilation=dilation,
            groups=self.groups,
            channels_last=False,
        )
        y = cx.b(op, x, weight)
        if self.bias:
            init = uniform_bound(math.prod(shape[1:]))
            y = add_along(cx.b, y, cx.parameter("bias", shape[:1], init, dtype=kind.dtype), 1)
        return y

    def _padding(
        self, cx: LayerContext, reach: tuple[int, ...], stride: tuple[int, ...]
    ) -> tuple[tuple[int, int], ...]:
        if self.padding == "valid":
            return ((0, 0),) * self.rank
        if self.padding == "same":
            if any(s != 1 for s in stride):
                raise RejectError(
                    f'padding="same" of {cx.what} needs stride 1',
                    argument="padding",
                    help="with a stride, write the padding as a number",
                )
            return tuple(((r - 1) // 2, (r - 1) - (r - 1) // 2) for r in reach)
        if isinstance(self.padding, tuple) and any(isinstance(p, tuple) for p in self.padding):
            ends = [p for p in self.padding if isinstance(p, tuple)]
            low = per_axis(cx, "padding", tuple(p[0] for p in ends), self.rank, 0)
            high = per_axis(cx, "padding", tuple(p[1] for p in ends), self.rank, 0)
            return tuple(zip(low, high, strict=True))
        assert not isinstance(self.padding, str)
        flat = (
            self.padding
            if isinstance(self.padding, int)
            else tuple(p for p in self.padding if isinstance(p, int))
        )
        return tuple((p, p) for p in per_axis(cx, "padding", flat, self.rank, 0))


def check_groups(cx: LayerContext, channels: int, out: int, groups: int) -> None:
    """Raises RejectError (E0209) where the channels do not divide into the groups."""
    for name, size in (("input channels", channels), ("out_channels", out)):
        if size % groups:
            raise RejectError(
                f"{cx.what} has {groups} groups, which do not divide {size} {name}",
                code="E0209",
                operand=0 if name == "input channels" else None,
                axis=1,
            )


@dataclass(frozen=True)
class Conv1d(_Conv):
    """Convolution of sequences `[N, C, L]`. Source: `torch.nn.Conv1d`."""

    rank = 1


@dataclass(frozen=True)
class Conv2d(_Conv):
    """Convolution of images `[N, C, H, W]`. Source: `torch.nn.Conv2d`."""

    rank = 2


@dataclass(frozen=True)
class Conv3d(_Conv):
    """Convolution of volumes `[N, C, D, H, W]`. Source: `torch.nn.Conv3d`."""

    rank = 3


@dataclass(frozen=True)
class _ConvTranspose(Layer):
    """The gradient of a convolution, which makes images larger.

    Parameters `weight [C, out_channels / groups, *kernel]` and `bias [out_channels]`. Sizes become
    `(size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1`.
    """

    rank: ClassVar[int] = 2

    out_channels: int
    kernel_size: Ints
    stride: Ints = 1
    padding: Ints = 0
    output_padding: Ints = 0
    groups: int = 1
    bias: bool = True
    dilation: Ints = 1
    in_channels: int | None = checked()

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        n = self.rank
        kind = need_rank(cx, x, n + 2, f"N, C, {SPATIAL[n]}")
        need_float(cx, x)
        positive(cx, out_channels=self.out_channels, groups=self.groups)
        channels = fixed(cx, kind.shape[1], "input channels")
        agree(cx, self.in_channels, channels, "channels", f"f32[N, {{}}, {SPATIAL[n]}]")
        check_groups(cx, channels, self.out_channels, self.groups)
        kernel = per_axis(cx, "kernel_size", self.kernel_size, n, 1)
        stride = per_axis(cx, "stride", self.stride, n, 1)
        dilation = per_axis(cx, "dilation", self.dilation, n, 1)
        padding = per_axis(cx, "padding", self.padding, n, 0)
        extra = per_axis(cx, "output_padding", self.output_padding, n, 0)
        for e, s, d in zip(extra, stride, dilation, strict=True):
            if e >= max(s, d):
                raise RejectError(
                    f"`output_padding` of {cx.what} has to be smaller than the stride or the dilation",
                    argument="output_padding",
                )
        per_group = self.out_channels // self.groups
        shape = (channels, per_group, *kernel)
        weight = cx.parameter("weight", shape, KAIMING, dtype=kind.dtype)
        reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        op = ConvGeneral(
            strides=(1,) * n,
            padding=tuple(
                (r - p, r - p + e) for r, p, e in zip(reach, padding, extra, strict=True)
            ),
            lhs_dilation=stride,
            rhs_dilation=dilation,
            groups=self.groups,
            channels_last=False,
        )
        y = cx.b(op, x, self._as_forward(cx, weight, channels, kernel))
        if self.bias:
            init = uniform_bound(math.prod(shape[1:]))
            bias = cx.parameter("bias", (self.out_channels,), init, dtype=kind.dtype)
            y = add_along(cx.b, y, bias, 1)
        return y

    def _as_forward(
        self, cx: LayerContext, weight: Value, channels: int, kernel: tuple[int, ...]
    ) -> Value:
        """[in, out/g, *k] as the [out, in/g, *k] of the convolution that spreads: in and out swap, kernels flip."""
        n, g, out = self.rank, self.groups, self.out_channels // self.groups
        flipped = cx.b(Reverse(axes=tuple(range(2, n + 2))), weight)
        grouped = reshape(cx.b, flipped, (g, channels // g, out, *kernel))
        swapped = transpose(cx.b, grouped, (0, 2, 1, *range(3, n + 3)))
        return reshape(cx.b, swapped, (g * out, channels // g, *kernel))


@dataclass(frozen=True)
class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution of sequences `[N, C, L]`. Source: `torch.nn.ConvTranspose1d`."""

    rank = 1


@dataclass(frozen=True)
class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution of images `[N, C, H, W]`. Source: `torch.nn.ConvTranspose2d`."""

    rank = 2


LAYERS = layer_classes("Convolution", Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d)
"""The layers of this file."""
