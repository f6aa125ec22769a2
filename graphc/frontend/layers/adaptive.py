"""Pooling to a given size, and over everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.frontend.layers.base import Layer, LayerContext, layer_classes, need_float, need_rank
from graphc.frontend.layers.conv import SPATIAL
from graphc.frontend.layers.emit import reshape, slice_axis, transpose
from graphc.frontend.report import RejectError
from graphc.ir.graph import Value
from graphc.ir.types import TensorType
from graphc.ops import AvgPool, Concatenate, Constant, DotGeneral, MaxPool, ReduceMax, functional


def _bins(size: int, count: int) -> list[tuple[int, int]]:
    """Start and end of the windows of adaptive pooling (PyTorch's `start_index` and `end_index`)."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


@dataclass(frozen=True)
class _AdaptivePool(Layer):
    """Pooling to a given size: window `i` goes from `floor(i * size / n)` to `ceil((i + 1) * size / n)`.

    `output_size` is one number or one per axis; `none` keeps an axis. A named dim can be pooled to 1.
    """

    rank: ClassVar[int] = 2

    output_size: int | tuple[int | None, ...] | None

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        n = self.rank
        kind = need_rank(cx, x, n + 2, f"N, C, {SPATIAL[n]}")
        size = self.output_size
        wanted = tuple(size) if isinstance(size, tuple) else (size,) * n
        if len(wanted) != n or any(w is not None and w < 1 for w in wanted):
            raise RejectError(
                f"`output_size` of {cx.what} has to be one number or {n}, at least 1",
                argument="output_size",
            )
        targets = tuple(s if w is None else w for w, s in zip(wanted, kind.shape[2:], strict=True))
        if all(t == 1 for t in targets):
            pooled = self._global(cx, x, tuple(range(2, n + 2)))
            return reshape(cx.b, pooled, (*kind.shape[:2], *targets))
        for axis, (target, have) in enumerate(zip(targets, kind.shape[2:], strict=True), 2):
            if target == have:
                continue
            if not isinstance(have, int) or not isinstance(target, int):
                raise RejectError(
                    f"{cx.what} pools dimension {axis}, `{have}`, to {target}: that needs a fixed size",
                    code="E0216",
                    operand=0,
                    help="pool to 1, or write the size in the input's shape",
                )
            if have % target and (target > 1024 or have * target > 2**24):
                raise RejectError(
                    f"{cx.what} pools {have} elements to {target}, which does not divide it, "
                    "and is too large for windows of different sizes",
                    argument="output_size",
                )
            if have % target == 0:
                x = self._even(cx, x, axis - 2, have // target)
            else:
                x = self._uneven(cx, x, axis, have, target)
        return x

    def _global(self, cx: LayerContext, x: Value, axes: tuple[int, ...]) -> Value:
        raise TypeError

    def _even(self, cx: LayerContext, x: Value, axis: int, window: int) -> Value:
        raise TypeError

    def _uneven(self, cx: LayerContext, x: Value, axis: int, have: int, target: int) -> Value:
        raise TypeError

    def _one_axis(self, axis: int, window: int) -> tuple[int, ...]:
        return tuple(window if i == axis else 1 for i in range(self.rank))


@dataclass(frozen=True)
class _AdaptiveAvgPool(_AdaptivePool):
    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        need_float(cx, x)
        return super().apply(cx, x)

    def _global(self, cx: LayerContext, x: Value, axes: tuple[int, ...]) -> Value:
        return functional.mean(cx.b, x, axes)

    def _even(self, cx: LayerContext, x: Value, axis: int, window: int) -> Value:
        op = AvgPool(
            window=self._one_axis(axis, window),
            strides=self._one_axis(axis, window),
            padding=((0, 0),) * self.rank,
            dilation=(1,) * self.rank,
            channels_last=False,
            count_include_pad=True,
            divisor=None,
        )
        return cx.b(op, x)

    def _uneven(self, cx: LayerContext, x: Value, axis: int, have: int, target: int) -> Value:
        """One contraction with the matrix of window means."""
        kind = cx.b.type_of(x)
        means = np.zeros((target, have), kind.dtype.numpy)
        for i, (start, end) in enumerate(_bins(have, target)):
            means[i, start:end] = 1 / (end - start)
        op = DotGeneral(lhs_batch=(), rhs_batch=(), lhs_contract=(axis,), rhs_contract=(1,))
        y = cx.b(op, x, cx.b(Constant.of(means)))
        back = [*range(axis), kind.rank - 1, *range(axis, kind.rank - 1)]
        return transpose(cx.b, y, back)


@dataclass(frozen=True)
class _AdaptiveMaxPool(_AdaptivePool):
    def _global(self, cx: LayerContext, x: Value, axes: tuple[int, ...]) -> Value:
        return cx.b(ReduceMax(axes=axes), x)

    def _even(self, cx: LayerContext, x: Value, axis: int, window: int) -> Value:
        op = MaxPool(
            window=self._one_axis(axis, window),
            strides=self._one_axis(axis, window),
            padding=((0, 0),) * self.rank,
            dilation=(1,) * self.rank,
            channels_last=False,
        )
        return cx.b(op, x)

    def _uneven(self, cx: LayerContext, x: Value, axis: int, have: int, target: int) -> Value:
        """Windows overlap, so each is a slice of its own."""
        shape = cx.b.type_of(x).shape
        parts: list[Value] = []
        for start, end in _bins(have, target):
            part = cx.b(ReduceMax(axes=(axis,)), slice_axis(cx.b, x, axis, start, end))
            parts.append(reshape(cx.b, part, (*shape[:axis], 1, *shape[axis + 1 :])))
        return parts[0] if target == 1 else cx.b(Concatenate(axis=axis), *parts)


@dataclass(frozen=True)
class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Mean of `[N, C, L]` to a given length. Source: `torch.nn.AdaptiveAvgPool1d`."""

    rank = 1


@dataclass(frozen=True)
class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Mean of `[N, C, H, W]` to a given size. Source: `torch.nn.AdaptiveAvgPool2d`."""

    rank = 2


@dataclass(frozen=True)
class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Mean of `[N, C, D, H, W]` to a given size. Source: `torch.nn.AdaptiveAvgPool3d`."""

    rank = 3


@dataclass(frozen=True)
class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maximum of `[N, C, L]` to a given length. Source: `torch.nn.AdaptiveMaxPool1d`."""

    rank = 1


@dataclass(frozen=True)
class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maximum of `[N, C, H, W]` to a given size. Source: `torch.nn.AdaptiveMaxPool2d`."""

    rank = 2


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """The mean over all dimensions after the channels: `[N, C, ...]` to `[N, C]`."""

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = need_float(cx, x)
        _need_spatial(cx, kind)
        return functional.mean(cx.b, x, tuple(range(2, kind.rank)))


@dataclass(frozen=True)
class GlobalMaxPool(Layer):
    """The maximum over all dimensions after the channels: `[N, C, ...]` to `[N, C]`."""

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = cx.b.type_of(x)
        _need_spatial(cx, kind)
        return cx.b(ReduceMax(axes=tuple(range(2, kind.rank))), x)


def _need_spatial(cx: LayerContext, kind: TensorType) -> None:
    if kind.rank < 3:
        raise RejectError(
            f"{cx.what} needs dimensions after the channels, [N, C, ...], and gets {kind}",
            code="E0205",
            operand=0,
        )


LAYERS = layer_classes(
    "Pooling",
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    GlobalAvgPool,
    GlobalMaxPool,
)
"""The layers of this file."""
