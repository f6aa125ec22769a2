"""Activations, softmax, normalisation and resampling as functions, with `torch.nn.functional`'s names."""

from __future__ import annotations

from typing import Literal

import numpy as np

from graphc.frontend.functions.shape import axis_of
from graphc.frontend.layers.emit import full
from graphc.frontend.layers.shape import target_size
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.dim import DimLike
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import (
    Elu,
    Gelu,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LayerNorm,
    LeakyRelu,
    Logistic,
    LogSoftmax,
    Mish,
    Relu,
    Resize,
    RmsNorm,
    Selu,
    Silu,
    Softmax,
    Softplus,
    Take,
    Tanh,
)

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Neural networks")


@_add
def relu(b: GraphBuilder, x: Value) -> Value:
    """`max(x, 0)`."""
    return b(Relu(), x)


@_add
def relu6(b: GraphBuilder, x: Value) -> Value:
    """`min(max(x, 0), 6)`."""
    return b(Hardtanh(min_val=0.0, max_val=6.0), x)


@_add
def leaky_relu(b: GraphBuilder, x: Value, negative_slope: float = 0.01) -> Value:
    """`x` where positive, `negative_slope * x` elsewhere."""
    return b(LeakyRelu(negative_slope=negative_slope), x)


@_add
def elu(b: GraphBuilder, x: Value, alpha: float = 1.0) -> Value:
    """`x` where positive, `alpha * (exp(x) - 1)` elsewhere."""
    return b(Elu(alpha=alpha), x)


@_add
def selu(b: GraphBuilder, x: Value) -> Value:
    """The self-normalising ELU (Klambauer et al. 2017)."""
    return b(Selu(), x)


@_add
def gelu(b: GraphBuilder, x: Value, approximate: Literal["none", "tanh"] = "none") -> Value:
    """`x * Phi(x)`, exactly or by its tanh approximation (Hendrycks & Gimpel 2016)."""
    return b(Gelu(approximate=approximate), x)


@_add
def silu(b: GraphBuilder, x: Value) -> Value:
    """`x * sigmoid(x)`."""
    return b(Silu(), x)


@_add
def sigmoid(b: GraphBuilder, x: Value) -> Value:
    """`1 / (1 + exp(-x))`."""
    return b(Logistic(), x)


@_add
def tanh(b: GraphBuilder, x: Value) -> Value:
    """The hyperbolic tangent."""
    return b(Tanh(), x)


@_add
def softplus(b: GraphBuilder, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """`log(1 + exp(beta * x)) / beta`, linear above `threshold`."""
    return b(Softplus(beta=beta, threshold=threshold), x)


@_add
def hardswish(b: GraphBuilder, x: Value) -> Value:
    """`x * relu6(x + 3) / 6`."""
    return b(Hardswish(), x)


@_add
def hardsigmoid(b: GraphBuilder, x: Value) -> Value:
    """`relu6(x + 3) / 6`."""
    return b(Hardsigmoid(), x)


@_add
def hardtanh(b: GraphBuilder, x: Value, min_val: float = -1.0, max_val: float = 1.0) -> Value:
    """`x` limited to [min_val, max_val]."""
    return b(Hardtanh(min_val=min_val, max_val=max_val), x)


@_add
def mish(b: GraphBuilder, x: Value) -> Value:
    """`x * tanh(softplus(x))`."""
    return b(Mish(), x)


@_add
def softmax(b: GraphBuilder, x: Value, dim: int) -> Value:
    """`exp(x) / sum(exp(x))` along `dim`."""
    return b(Softmax(axis=axis_of(b, x, dim)), x)


@_add
def log_softmax(b: GraphBuilder, x: Value, dim: int) -> Value:
    """`x - log(sum(exp(x)))` along `dim`."""
    return b(LogSoftmax(axis=axis_of(b, x, dim)), x)


def _trailing(
    b: GraphBuilder, x: Value, shape: int | tuple[int, ...] | None
) -> tuple[DimLike, ...]:
    kind = b.type_of(x)
    if kind.rank == 0:
        raise RejectError(
            f"a normalisation needs at least one dimension, not {kind}", code="E0205", operand=0
        )
    wanted = (shape,) if isinstance(shape, int) else shape or kind.shape[-1:]
    if kind.shape[kind.rank - len(wanted) :] != tuple(wanted):
        text = ", ".join(map(str, wanted))
        raise RejectError(
            f"{kind} does not end in [{text}]", code="E0204", operand=0, argument="normalized_shape"
        )
    return tuple(wanted)


@_add
def layer_norm(
    b: GraphBuilder,
    x: Value,
    normalized_shape: int | tuple[int, ...] | None = None,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """`(x - mean) / sqrt(var + eps) * weight + bias` over the trailing dimensions."""
    shape = _trailing(b, x, normalized_shape)
    dtype = b.type_of(x).dtype
    w = full(b, 1.0, shape, dtype) if weight is None else weight
    v = full(b, 0.0, shape, dtype) if bias is None else bias
    return b(LayerNorm(dims=len(shape), eps=eps), x, w, v)


@_add
def rms_norm(
    b: GraphBuilder,
    x: Value,
    normalized_shape: int | tuple[int, ...] | None = None,
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    """`x / sqrt(mean(x * x) + eps) * weight` over the trailing dimensions."""
    shape = _trailing(b, x, normalized_shape)
    kind = b.type_of(x)
    small = float(np.finfo(np.float32).eps) if eps is None else eps
    w = full(b, 1.0, shape, kind.dtype) if weight is None else weight
    return b(RmsNorm(dims=len(shape), eps=small), x, w)


@_add
def interpolate(
    b: GraphBuilder,
    x: Value,
    size: int | tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: Literal["nearest", "bilinear"] = "nearest",
    align_corners: bool = False,
) -> Value:
    """Images `[N, C, H, W]` at another size. Source: `torch.nn.functional.interpolate`."""
    kind = b.type_of(x)
    if kind.rank != 4:
        raise RejectError(
            f"interpolate needs [N, C, H, W] and gets {kind}", code="E0205", operand=0
        )
    target = target_size("interpolate", kind.shape[2:], size, scale_factor)
    op = Resize(size=target, mode=mode, align_corners=align_corners, channels_last=False)
    return b(op, x)


@_add
def embedding(b: GraphBuilder, x: Value, weight: Value) -> Value:
    """Rows of a table by integer indices."""
    return b(Take(axis=0), weight, x)
