"""Activations as layers, with `torch.nn`'s names, arguments and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphc.frontend.layers.base import (
    Layer,
    LayerContext,
    agree,
    fixed,
    layer_classes,
    need_float,
    positive,
    type_of,
)
from graphc.frontend.layers.emit import along
from graphc.frontend.report import RejectError
from graphc.ir.graph import Value
from graphc.ir.op import Op
from graphc.ops import (
    Elu,
    Gelu,
    LeakyRelu,
    Logistic,
    Prelu,
    Relu,
    Selu,
    Silu,
)
from graphc.ops import (
    Hardsigmoid as HardsigmoidOp,
)
from graphc.ops import (
    Hardswish as HardswishOp,
)
from graphc.ops import (
    Hardtanh as HardtanhOp,
)
from graphc.ops import (
    LogSoftmax as LogSoftmaxOp,
)
from graphc.ops import (
    Mish as MishOp,
)
from graphc.ops import (
    Softmax as SoftmaxOp,
)
from graphc.ops import (
    Softplus as SoftplusOp,
)
from graphc.ops import (
    Tanh as TanhOp,
)


@dataclass(frozen=True)
class _Elementwise(Layer):
    def op(self) -> Op:
        """The op the layer applies."""
        raise TypeError

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        need_float(cx, x)
        return cx.b(self.op(), x)


@dataclass(frozen=True)
class ReLU(Layer):
    """`max(x, 0)`. Source: `torch.nn.ReLU`."""

    inplace: bool = False

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        return cx.b(Relu(), x)


@dataclass(frozen=True)
class ReLU6(_Elementwise):
    """`min(max(x, 0), 6)`. Source: `torch.nn.ReLU6`."""

    inplace: bool = False

    def op(self) -> Op:
        """The op the layer applies."""
        return HardtanhOp(min_val=0.0, max_val=6.0)


@dataclass(frozen=True)
class LeakyReLU(_Elementwise):
    """`x` where positive, `negative_slope * x` elsewhere. Source: `torch.nn.LeakyReLU`."""

    negative_slope: float = 0.01
    inplace: bool = False

    def op(self) -> Op:
        """The op the layer applies."""
        return LeakyRelu(negative_slope=self.negative_slope)


@dataclass(frozen=True)
class PReLU(Layer):
    """`x` where positive, `weight * x` elsewhere, one learned slope or one per channel (He et al. 2015).

    Parameter `weight [num_parameters]`. Source: `torch.nn.PReLU`.
    """

    num_parameters: int = 1
    init: float = 0.25

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        kind = need_float(cx, x)
        positive(cx, num_parameters=self.num_parameters)
        axis = 1 if kind.rank > 1 else 0
        if self.num_parameters > 1:
            channels = fixed(cx, kind.shape[axis], "channels")
            agree(cx, self.num_parameters, channels, "channels", "f32[N, {}, ...]")
        init = f"constant(value={self.init!r})"
        slope = cx.parameter("weight", (self.num_parameters,), init, dtype=kind.dtype)
        return cx.b(Prelu(), x, along(cx.b, slope, kind.shape, axis))


@dataclass(frozen=True)
class ELU(_Elementwise):
    """`x` where positive, `alpha * (exp(x) - 1)` elsewhere. Source: `torch.nn.ELU`."""

    alpha: float = 1.0
    inplace: bool = False

    def op(self) -> Op:
        """The op the layer applies."""
        return Elu(alpha=self.alpha)


@dataclass(frozen=True)
class SELU(_Elementwise):
    """The self-normalising ELU (Klambauer et al. 2017). Source: `torch.nn.SELU`."""

    inplace: bool = False

    def op(self) -> Op:
        """The op the layer applies."""
        return Selu()


@dataclass(frozen=True)
class GELU(_Elementwise):
    """`x * Phi(x)`, exactly or by its tanh approximation (Hendrycks & Gimpel 2016). Source: `torch.nn.GELU`."""

    approximate: Literal["none", "tanh"] = "none"

    def op(self) -> Op:
        """The op the layer applies."""
        return Gelu(approximate=self.approximate)


@dataclass(frozen=True)
class SiLU(_Elementwise):
    """`x * sigmoid(x)`, also called swish. Source: `torch.nn.SiLU`."""

    inplace: bool = False

    def op(self) -> Op:
        """The op the layer applies."""
        return Silu()


@dataclass(frozen=True)
class Sigmoid(_Elementwise):
    """`1 / (1 + exp(-x))`. Source: `torch.nn.Sigmoid`."""

    def op(self) -> Op:
        """The op the layer applies."""
        return Logistic()


@dataclass(frozen=True)
class Tanh(_Elementwise):
    """The hyperbolic tangent. Source: `torch.nn.Tanh`."""

    def op(self) -> Op:
        """The op the layer applies."""
        return TanhOp()


@dataclass(frozen=True)
class Softplus(_Elementwise):
    """`log(1 + exp(beta * x)) / beta`, linear above `threshold`. Source: `torch.nn.Softplus`."""

    beta: float = 1.0
    threshold: float = 20.0

    def op(self) -> Op:
        """The op the layer applies."""
        return SoftplusOp(beta=self.beta, threshold=self.threshold)


@dataclass(frozen=True)
class Hardswish(_Elementwise):
    """`x * relu6(x + 3) / 6` (Howard et al. 2019). Source: `torch.nn.Hardswish`."""

    inplace: bool = False

    def op(self) -> Op:
        """The op the layer applies."""
        return HardswishOp()


@dataclass(frozen=True)
class Hardsigmoid(_Elementwise):
    """`relu6(x + 3) / 6`. Source: `torch.nn.Hardsigmoid`."""

    inplace: bool = False

    def op(self) -> Op:
        """The op the layer applies."""
        return HardsigmoidOp()


@dataclass(frozen=True)
class Hardtanh(_Elementwise):
    """`x` limited to [min_val, max_val]. Source: `torch.nn.Hardtanh`."""

    min_val: float = -1.0
    max_val: float = 1.0
    inplace: bool = False

    def op(self) -> Op:
        """The op the layer applies."""
        return HardtanhOp(min_val=self.min_val, max_val=self.max_val)


@dataclass(frozen=True)
class Mish(_Elementwise):
    """`x * tanh(softplus(x))` (Misra 2019). Source: `torch.nn.Mish`."""

    inplace: bool = False

    def op(self) -> Op:
        """The op the layer applies."""
        return MishOp()


@dataclass(frozen=True)
class _AlongDim(Layer):
    """`dim` counts from the end where negative; it is the last dimension where it is left out."""

    dim: int = -1

    def _axis(self, cx: LayerContext, x: Value) -> int:
        kind = type_of(cx, x)
        need_float(cx, x)
        if not -kind.rank <= self.dim < kind.rank:
            raise RejectError(
                f"`dim` of {cx.what} is {self.dim}, which {kind} does not have",
                code="E0211",
                argument="dim",
            )
        return self.dim % kind.rank


@dataclass(frozen=True)
class Softmax(_AlongDim):
    """`exp(x) / sum(exp(x))` along `dim`. Source: `torch.nn.Softmax`."""

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        return cx.b(SoftmaxOp(axis=self._axis(cx, x)), x)


@dataclass(frozen=True)
class LogSoftmax(_AlongDim):
    """`x - log(sum(exp(x)))` along `dim`. Source: `torch.nn.LogSoftmax`."""

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        return cx.b(LogSoftmaxOp(axis=self._axis(cx, x)), x)


LAYERS = layer_classes(
    "Activation",
    ReLU,
    ReLU6,
    LeakyReLU,
    PReLU,
    ELU,
    SELU,
    GELU,
    SiLU,
    Sigmoid,
    Tanh,
    Softplus,
    Hardswish,
    Hardsigmoid,
    Hardtanh,
    Mish,
    Softmax,
    LogSoftmax,
)
"""The layers of this file."""
