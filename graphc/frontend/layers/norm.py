"""Normalisation. All of it is the composite op where one exists, so that kernels and diagrams see it whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes

from graphc.frontend.layers.base import (
    ONES,
    ZEROS,
    Layer,
    LayerContext,
    agree,
    fixed,
    layer_classes,
    need_float,
    need_rank,
    positive,
)
from graphc.frontend.layers.conv import SPATIAL
from graphc.frontend.layers.emit import full
from graphc.frontend.report import RejectError
from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Value
from graphc.ir.types import TensorType
from graphc.ops import BatchNorm, RmsNorm, StopGradient, Variance, arith
from graphc.ops import GroupNorm as GroupNormOp
from graphc.ops import LayerNorm as LayerNormOp


def _check_eps(cx: LayerContext, eps: float) -> None:
    if not 0 <= eps < 1:
        raise RejectError(f"`eps` of {cx.what} has to be in [0, 1) and is {eps:g}", argument="eps")


def _affine(
    cx: LayerContext, shape: tuple[int, ...], dtype: DType, weight: bool, bias: bool
) -> tuple[Value, Value]:
    """Weight and bias; constants where the layer has none."""
    w = (
        cx.parameter("weight", shape, ONES, dtype=dtype)
        if weight
        else full(cx.b, 1.0, shape, dtype)
    )
    b = cx.parameter("bias", shape, ZEROS, dtype=dtype) if bias else full(cx.b, 0.0, shape, dtype)
    return w, b


@dataclass(frozen=True)
class _BatchNorm(Layer):
    """`(x - running_mean) / sqrt(running_var + eps) * weight + bias` per channel (Ioffe & Szegedy 2015).

    Parameters `weight`, `bias`, and the buffers `running_mean`, `running_var`, all [C]. A training step normalises by
    the mean and the biased variance of the batch, and moves the buffers towards its mean and unbiased variance by
    `momentum`.
    """

    ranks: ClassVar[tuple[int, ...]] = (4,)

    num_features: int | None = None
    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = need_float(cx, x)
        if kind.rank not in self.ranks:
            need_rank(cx, x, self.ranks[-1], f"N, C, {SPATIAL[self.ranks[-1] - 2]}")
        _check_eps(cx, self.eps)
        if not self.track_running_stats and not cx.training:
            raise RejectError(
                f"{cx.what} without running statistics depends on the batch, which a compiled model cannot",
                argument="track_running_stats",
                help="use `InstanceNorm2d` or `GroupNorm` for statistics of the input itself",
            )
        channels = fixed(cx, kind.shape[1], "channels")
        agree(cx, self.num_features, channels, "channels", "f32[N, {}, ...]")
        shape = (channels,)
        if cx.training:
            return self._train(cx, x, shape)
        mean = cx.parameter("running_mean", shape, ZEROS, dtype=kind.dtype, trainable=False)
        var = cx.parameter("running_var", shape, ONES, dtype=kind.dtype, trainable=False)
        weight, bias = _affine(cx, shape, kind.dtype, self.affine, self.affine)
        return cx.b(BatchNorm(axis=1, eps=self.eps), x, mean, var, weight, bias)

    def _train(self, cx: LayerContext, x: Value, shape: tuple[int, ...]) -> Value:
        """With the statistics of the batch; the running ones get their next values."""
        if self.momentum is None:
            raise RejectError(
                f"{cx.what} needs a momentum to be trained: a plain average over all steps is not kept",
                argument="momentum",
                help="`momentum=0.1` is the default",
            )
        b, kind = cx.b, cx.b.type_of(x)
        axes = (0, *range(2, kind.rank))
        mean = arith.mean(b, x, axes)
        var = b(Variance(axes), x)
        if self.track_running_stats:
            count = arith.dim_scalar(b, product(kind.shape[a] for a in axes), kind.dtype)
            others = arith.maximum(b, arith.subtract(b, count, 1.0), 1.0)
            unbiased = arith.multiply(b, var, arith.divide(b, count, others))
            for name, init, value in (
                ("running_mean", ZEROS, mean),
                ("running_var", ONES, unbiased),
            ):
                old = cx.parameter(name, shape, init, dtype=kind.dtype, trainable=False)
                moved = arith.add(
                    b,
                    arith.multiply(b, old, 1.0 - self.momentum),
                    arith.multiply(b, b(StopGradient(), value), self.momentum),
                )
                cx.update(name, moved)
        weight, bias = _affine(cx, shape, kind.dtype, self.affine, self.affine)
        return b(BatchNorm(axis=1, eps=self.eps), x, mean, var, weight, bias)


@dataclass(frozen=True)
class BatchNorm1d(_BatchNorm):
    """Batch normalisation of `[N, C]` or `[N, C, L]`. Source: `torch.nn.BatchNorm1d`."""

    ranks = (2, 3)


@dataclass(frozen=True)
class BatchNorm2d(_BatchNorm):
    """Batch normalisation of `[N, C, H, W]`. Source: `torch.nn.BatchNorm2d`."""

    ranks = (4,)


@dataclass(frozen=True)
class BatchNorm3d(_BatchNorm):
    """Batch normalisation of `[N, C, D, H, W]`. Source: `torch.nn.BatchNorm3d`."""

    ranks = (5,)


def _trailing(
    cx: LayerContext, kind: TensorType, declared: int | tuple[int, ...] | None
) -> tuple[int, ...]:
    """The normalised sizes: those declared, or the last one."""
    wanted = () if declared is None else declared if isinstance(declared, tuple) else (declared,)
    count = len(wanted) or 1
    if kind.rank < count:
        raise RejectError(
            f"{cx.what} needs {count} dimensions and gets {kind}", code="E0205", operand=0
        )
    sizes = tuple(fixed(cx, d, "features") for d in kind.shape[kind.rank - count :])
    if wanted and wanted != sizes:
        text = ", ".join(map(str, wanted))
        raise RejectError(
            f"{cx.what} was declared for trailing sizes [{text}] but gets [{', '.join(map(str, sizes))}]",
            code="E0204",
            operand=0,
            label=f"expects [..., {text}]",
            wanted=wanted[0] if len(wanted) == 1 else None,
        )
    return sizes


@dataclass(frozen=True)
class LayerNorm(Layer):
    """`(x - mean) / sqrt(var + eps) * weight + bias` over the trailing dimensions (Ba et al. 2016).

    `normalized_shape` is the last dimension where it is left out. Parameters `weight` and `bias` of that shape.
    Source: `torch.nn.LayerNorm`.
    """

    normalized_shape: int | tuple[int, ...] | None = None
    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = need_float(cx, x)
        _check_eps(cx, self.eps)
        shape = _trailing(cx, kind, self.normalized_shape)
        affine = self.elementwise_affine
        weight, bias = _affine(cx, shape, kind.dtype, affine, affine and self.bias)
        return cx.b(LayerNormOp(dims=len(shape), eps=self.eps), x, weight, bias)


@dataclass(frozen=True)
class RMSNorm(Layer):
    """`x / sqrt(mean(x * x) + eps) * weight` over the trailing dimensions (Zhang & Sennrich 2019).

    `normalized_shape` is the last dimension, `eps` the dtype's machine epsilon where they are left out. Parameter
    `weight`. Source: `torch.nn.RMSNorm`.
    """

    normalized_shape: int | tuple[int, ...] | None = None
    eps: float | None = None
    elementwise_affine: bool = True

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = need_float(cx, x)
        eps = self.eps
        if eps is None:
            eps = float(ml_dtypes.finfo(kind.dtype.numpy).eps)
        _check_eps(cx, eps)
        shape = _trailing(cx, kind, self.normalized_shape)
        if self.elementwise_affine:
            weight = cx.parameter("weight", shape, ONES, dtype=kind.dtype)
        else:
            weight = full(cx.b, 1.0, shape, kind.dtype)
        return cx.b(RmsNorm(dims=len(shape), eps=eps), x, weight)


def _channels(cx: LayerContext, x: Value, ranks: tuple[int, ...]) -> tuple[TensorType, int]:
    kind = need_float(cx, x)
    if kind.rank not in ranks:
        need_rank(cx, x, ranks[0], f"N, C, {SPATIAL[ranks[0] - 2]}")
    size: DimLike = kind.shape[1]
    return kind, fixed(cx, size, "channels")


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Normalisation over groups of channels and all that follows them (Wu & He 2018), of `[N, C, ...]`.

    Parameters `weight` and `bias`, [C]. Source: `torch.nn.GroupNorm`.
    """

    num_groups: int
    num_channels: int | None = None
    eps: float = 1e-5
    affine: bool = True

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind, channels = _channels(cx, x, (4, 2, 3, 5))
        positive(cx, num_groups=self.num_groups)
        _check_eps(cx, self.eps)
        agree(cx, self.num_channels, channels, "channels", "f32[N, {}, ...]")
        if channels % self.num_groups:
            raise RejectError(
                f"{cx.what} has {self.num_groups} groups, which do not divide {channels} channels",
                code="E0209",
                operand=0,
                axis=1,
            )
        weight, bias = _affine(cx, (channels,), kind.dtype, self.affine, self.affine)
        op = GroupNormOp(groups=self.num_groups, eps=self.eps, channels_last=False)
        return cx.b(op, x, weight, bias)


@dataclass(frozen=True)
class _InstanceNorm(Layer):
    """Normalisation of each channel of each element of the batch (Ulyanov et al. 2016).

    With `affine`, parameters `weight` and `bias`, [C].
    """

    rank: ClassVar[int] = 4

    num_features: int | None = None
    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = False
    track_running_stats: bool = False

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind, channels = _channels(cx, x, (self.rank,))
        _check_eps(cx, self.eps)
        agree(cx, self.num_features, channels, "channels", "f32[N, {}, ...]")
        if self.track_running_stats:
            raise RejectError(
                f"{cx.what} keeps no running statistics",
                argument="track_running_stats",
                help="`BatchNorm2d` uses running statistics",
            )
        weight, bias = _affine(cx, (channels,), kind.dtype, self.affine, self.affine)
        op = GroupNormOp(groups=channels, eps=self.eps, channels_last=False)
        return cx.b(op, x, weight, bias)


@dataclass(frozen=True)
class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of `[N, C, L]`. Source: `torch.nn.InstanceNorm1d`."""

    rank = 3


@dataclass(frozen=True)
class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of `[N, C, H, W]`. Source: `torch.nn.InstanceNorm2d`."""

    rank = 4


LAYERS = layer_classes(
    "Normalisation",
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    LayerNorm,
    RMSNorm,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
)
"""The layers of this file."""
