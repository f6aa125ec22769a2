"""Pooling: maximum and average over windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.frontend.layers.base import (
    Layer,
    LayerContext,
    layer_classes,
    need_float,
    need_rank,
    positive,
)
from graphc.frontend.layers.conv import SPATIAL, Ints, check_window, per_axis
from graphc.frontend.layers.emit import pad_axes
from graphc.frontend.report import RejectError
from graphc.ir.dim import DimLike
from graphc.ir.graph import Value
from graphc.ir.types import TensorType
from graphc.ops import (
    AvgPool,
    MaxPool,
)


@dataclass(frozen=True)
class _Pool(Layer):
    rank: ClassVar[int] = 2

    def _window(
        self,
        cx: LayerContext,
        x: Value,
        kernel_size: Ints,
        stride: Ints | None,
        padding: Ints,
        dilation: Ints = 1,
    ) -> tuple[TensorType, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(type, window, stride, padding, reach) checked as PyTorch does."""
        n = self.rank
        kind = need_rank(cx, x, n + 2, f"N, C, {SPATIAL[n]}")
        window = per_axis(cx, "kernel_size", kernel_size, n, 1)
        strides = window if stride is None else per_axis(cx, "stride", stride, n, 1)
        pads = per_axis(cx, "padding", padding, n, 0)
        dilations = per_axis(cx, "dilation", dilation, n, 1)
        if any(2 * p > w for p, w in zip(pads, window, strict=True)):
            raise RejectError(
                f"`padding` of {cx.what} has to be at most half of the kernel", argument="padding"
            )
        reach = tuple(d * (w - 1) + 1 for d, w in zip(dilations, window, strict=True))
        check_window(cx, kind.shape[2:], reach, tuple((p, p) for p in pads), kind)
        return kind, window, strides, pads, reach


def _ceil_extra(
    cx: LayerContext,
    sizes: tuple[DimLike, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    reach: tuple[int, ...],
) -> tuple[int, ...]:
    """Padding at the end that makes `ceil_mode` of PyTorch out of the floor that pooling takes."""
    extra: list[int] = []
    for size, s, p, r in zip(sizes, strides, pads, reach, strict=True):
        if not isinstance(size, int):
            raise RejectError(
                f"`ceil_mode` of {cx.what} needs fixed sizes, not `{size}`", code="E0216"
            )
        count = -(-(size + 2 * p - r) // s) + 1
        if (count - 1) * s >= size + p:  # the last window may not start in the padding
            count -= 1
        extra.append(max(0, (count - 1) * s + r - (size + 2 * p)))
    return tuple(extra)


@dataclass(frozen=True)
class _MaxPool(_Pool):
    """The largest element of each window; padding never wins, NaN always does.

    `stride` is the kernel size where it is left out. Sizes become
    `(size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1`.
    """

    kernel_size: Ints
    stride: Ints | None = None
    padding: Ints = 0
    dilation: Ints = 1
    ceil_mode: bool = False

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind, window, strides, pads, reach = self._window(
            cx, x, self.kernel_size, self.stride, self.padding, self.dilation
        )
        extra = (0,) * self.rank
        if self.ceil_mode:
            extra = _ceil_extra(cx, kind.shape[2:], strides, pads, reach)
        op = MaxPool(
            window=window,
            strides=strides,
            padding=tuple((p, p + e) for p, e in zip(pads, extra, strict=True)),
            dilation=per_axis(cx, "dilation", self.dilation, self.rank, 1),
            channels_last=False,
        )
        return cx.b(op, x)


@dataclass(frozen=True)
class MaxPool1d(_MaxPool):
    """Maximum over windows of `[N, C, L]`. Source: `torch.nn.MaxPool1d`."""

    rank = 1


@dataclass(frozen=True)
class MaxPool2d(_MaxPool):
    """Maximum over windows of `[N, C, H, W]`. Source: `torch.nn.MaxPool2d`."""

    rank = 2


@dataclass(frozen=True)
class MaxPool3d(_MaxPool):
    """Maximum over windows of `[N, C, D, H, W]`. Source: `torch.nn.MaxPool3d`."""

    rank = 3


@dataclass(frozen=True)
class _AvgPool(_Pool):
    """The mean of each window; `count_include_pad` says whether padding counts in the divisor.

    `stride` is the kernel size where it is left out. Sizes become `(size + 2 * padding - kernel) // stride + 1`.
    """

    kernel_size: Ints
    stride: Ints | None = None
    padding: Ints = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        return self._average(cx, x, None)

    def _average(self, cx: LayerContext, x: Value, divisor: int | None) -> Value:
        kind, window, strides, pads, reach = self._window(
            cx, x, self.kernel_size, self.stride, self.padding
        )
        need_float(cx, x)
        extra = (0,) * self.rank
        include = self.count_include_pad
        if self.ceil_mode:
            extra = _ceil_extra(cx, kind.shape[2:], strides, pads, reach)
            if include and any(pads):  # the declared padding counts, what rounding up adds does not
                x = pad_axes(cx.b, x, {i + 2: (p, p) for i, p in enumerate(pads)})
                pads = (0,) * self.rank
            include = include and not any(extra)
        op = AvgPool(
            window=window,
            strides=strides,
            padding=tuple((p, p + e) for p, e in zip(pads, extra, strict=True)),
            dilation=(1,) * self.rank,
            channels_last=False,
            count_include_pad=include,
            divisor=divisor,
        )
        return cx.b(op, x)


@dataclass(frozen=True)
class AvgPool1d(_AvgPool):
    """Mean over windows of `[N, C, L]`. Source: `torch.nn.AvgPool1d`."""

    rank = 1


@dataclass(frozen=True)
class AvgPool2d(_AvgPool):
    """Mean over windows of `[N, C, H, W]`. Source: `torch.nn.AvgPool2d`."""

    rank = 2

    divisor_override: int | None = None

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        if self.divisor_override is not None:
            positive(cx, divisor_override=self.divisor_override)
        return self._average(cx, x, self.divisor_override)


@dataclass(frozen=True)
class AvgPool3d(AvgPool2d):
    """Mean over windows of `[N, C, D, H, W]`. Source: `torch.nn.AvgPool3d`."""

    rank = 3


LAYERS = layer_classes("Pooling", MaxPool1d, MaxPool2d, MaxPool3d, AvgPool1d, AvgPool2d, AvgPool3d)
"""The layers of this file."""
