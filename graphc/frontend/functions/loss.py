"""Losses of values: regression and binary decisions. Names, arguments and defaults of `torch.nn.functional`.

`reduction` is "mean" over all elements, "sum", or "none", which keeps one loss per element. Unlike PyTorch, which
warns and goes on, operands whose shapes differ are an error: broadcasting [N, 1] against [N] is never what was meant.
"""

from __future__ import annotations

from typing import Literal

from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import (
    Abs,
    BinaryCrossEntropy,
    Exp,
    Log,
    Logistic,
    LogisticLoss,
    Negate,
    arith,
    functional,
)
from graphc.ops.numerics import working

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Losses")
Reduction = Literal["mean", "sum", "none"]


def total(b: GraphBuilder, x: Value) -> Value:
    """The sum of all elements; that of half precision is carried in f32."""
    dtype = b.type_of(x).dtype
    return arith.convert(b, arith.sum(b, arith.convert(b, x, working(dtype))), dtype)


def reduced(b: GraphBuilder, losses: Value, reduction: Reduction) -> Value:
    """Losses joined as `reduction` says."""
    if reduction == "none":
        return losses
    return total(b, losses) if reduction == "sum" else arith.mean(b, losses)


def check_shape(b: GraphBuilder, x: Value, other: Value, argument: str) -> None:
    """Raises RejectError (E0202) unless both have one shape."""
    left, right = b.type_of(x), b.type_of(other)
    if left.shape != right.shape:
        raise RejectError(
            f"a loss of {left} needs a `{argument}` of the same shape, not {right}",
            code="E0202",
            operand=1,
        )


def check_number(argument: str, value: float, *, positive: bool = False) -> None:
    """Raises RejectError (E0405) for NaN and for less than 0; `positive`: for 0 too."""
    if not (value > 0 if positive else value >= 0):
        wanted = "more than 0" if positive else "at least 0"
        raise RejectError(f"`{argument}` has to be {wanted} and is {value}", argument=argument)


def at_least(b: GraphBuilder, x: Value, low: float) -> Value:
    """x, or `low` where x is below; the gradient is x's where both are equal, as that of `torch.clamp_min`."""
    return arith.select(b, arith.compare(b, "lt", x, low), low, x)


def _error(b: GraphBuilder, input: Value, target: Value) -> Value:
    check_shape(b, input, target, "target")
    return arith.subtract(b, input, target)


def _weighted(b: GraphBuilder, losses: Value, weight: Value | None, reduction: Reduction) -> Value:
    """The mean is the weighted one: divided by the sum of the weights."""
    if weight is None:
        return reduced(b, losses, reduction)
    check_shape(b, losses, weight, "weight")
    losses = arith.multiply(b, losses, weight)
    if reduction == "mean":
        return arith.divide(b, total(b, losses), total(b, weight))
    return reduced(b, losses, reduction)


@_add
def mse_loss(
    b: GraphBuilder,
    input: Value,
    target: Value,
    reduction: Reduction = "mean",
    weight: Value | None = None,
) -> Value:
    """The squared error `(input - target) ** 2`."""
    error = _error(b, input, target)
    return _weighted(b, arith.multiply(b, error, error), weight, reduction)


@_add
def l1_loss(
    b: GraphBuilder,
    input: Value,
    target: Value,
    reduction: Reduction = "mean",
    weight: Value | None = None,
) -> Value:
    """The absolute error `abs(input - target)`."""
    return _weighted(b, b(Abs(), _error(b, input, target)), weight, reduction)


def _bent(b: GraphBuilder, error: Value, knee: float) -> Value:
    """`error ** 2 / 2` up to `knee`, and on along the tangent: one formula, which cannot overflow before the error."""
    size = b(Abs(), error)
    inside = arith.minimum(b, size, knee)
    half = arith.multiply(b, inside, 0.5)
    return arith.multiply(b, inside, arith.subtract(b, size, half))


@_add
def huber_loss(
    b: GraphBuilder,
    input: Value,
    target: Value,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    weight: Value | None = None,
) -> Value:
    """`error ** 2 / 2` up to `delta`, `delta * (abs(error) - delta / 2)` beyond (Huber 1964)."""
    check_number("delta", delta, positive=True)
    losses = _bent(b, _error(b, input, target), delta)
    if weight is not None:  # the mean is not divided by the weights here: PyTorch's is not
        check_shape(b, losses, weight, "weight")
        losses = arith.multiply(b, losses, weight)
    return reduced(b, losses, reduction)


@_add
def smooth_l1_loss(
    b: GraphBuilder,
    input: Value,
    target: Value,
    reduction: Reduction = "mean",
    beta: float = 1.0,
) -> Value:
    """`error ** 2 / (2 * beta)` up to `beta`, `abs(error) - beta / 2` beyond (Girshick 2015)."""
    check_number("beta", beta)
    error = _error(b, input, target)
    if beta == 0:
        return reduced(b, b(Abs(), error), reduction)
    return reduced(b, arith.divide(b, _bent(b, error, beta), beta), reduction)


@_add
def kl_div(
    b: GraphBuilder,
    input: Value,
    target: Value,
    reduction: Literal["mean", "batchmean", "sum", "none"] = "mean",
    log_target: bool = False,
) -> Value:
    """The Kullback-Leibler divergence `target * (log(target) - input)`; `input` holds log-probabilities.

    `log_target`: so does the target. "batchmean" divides the sum by the size of the first dimension, as the
    mathematical definition has it; "mean" divides by the number of all elements.
    """
    check_shape(b, input, target, "target")
    if log_target:
        losses = arith.multiply(b, b(Exp(), target), arith.subtract(b, target, input))
    else:  # 0 * log(0) is 0
        some = arith.compare(b, "ne", target, 0.0)
        logs = b(Log(), arith.select(b, some, target, 1.0))
        losses = arith.multiply(b, target, arith.subtract(b, logs, input))
    if reduction != "batchmean":
        return reduced(b, losses, reduction)
    type = b.type_of(input)
    if not type.rank:
        raise RejectError("a scalar has no batch", code="E0205", argument="reduction")
    count = arith.dim_scalar(b, type.shape[0], type.dtype)
    return arith.divide(b, total(b, losses), count)


def _balanced(b: GraphBuilder, losses: Value, weight: Value | None, reduction: Reduction) -> Value:
    """Each loss times its weight, which broadcasts; the mean is over the elements, as PyTorch's."""
    if weight is not None:
        losses = arith.multiply(b, losses, arith.broadcast_to(b, weight, b.type_of(losses).shape))
    return reduced(b, losses, reduction)


@_add
def binary_cross_entropy(
    b: GraphBuilder,
    input: Value,
    target: Value,
    weight: Value | None = None,
    reduction: Reduction = "mean",
) -> Value:
    """`-target * log(input) - (1 - target) * log(1 - input)` of probabilities; no logarithm is below -100.

    From logits use `binary_cross_entropy_with_logits`, which is exact and faster.
    """
    check_shape(b, input, target, "target")
    return _balanced(b, b(BinaryCrossEntropy(), input, target), weight, reduction)


@_add
def binary_cross_entropy_with_logits(
    b: GraphBuilder,
    input: Value,
    target: Value,
    weight: Value | None = None,
    reduction: Reduction = "mean",
    pos_weight: Value | None = None,
) -> Value:
    """`binary_cross_entropy(sigmoid(input), target)`, exact for any logits.

    `pos_weight` multiplies the part of the positive targets; above 1 it is worth more to find them.
    """
    check_shape(b, input, target, "target")
    return _balanced(b, _logistic(b, input, target, pos_weight), weight, reduction)


def _logistic(
    b: GraphBuilder, input: Value, target: Value, pos_weight: Value | None = None
) -> Value:
    positive = target
    if pos_weight is not None:
        shape = b.type_of(input).shape
        positive = arith.multiply(b, target, arith.broadcast_to(b, pos_weight, shape))
    return b(LogisticLoss(), input, positive, arith.subtract(b, 1.0, target))


@_add
def sigmoid_focal_loss(
    b: GraphBuilder,
    inputs: Value,
    targets: Value,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: Reduction = "none",
) -> Value:
    """Binary cross entropy of logits times `(1 - p) ** gamma`, p the probability of what is true (Lin et al. 2017).

    What is easy counts for little. `alpha` weighs the positive targets and `1 - alpha` the others; a negative alpha
    weighs none. As `torchvision.ops.sigmoid_focal_loss`.
    """
    check_number("gamma", gamma)
    check_shape(b, inputs, targets, "targets")
    rest = arith.subtract(b, 1.0, targets)
    losses = _logistic(b, inputs, targets)
    if gamma:
        yes, no = b(Logistic(), inputs), b(Logistic(), b(Negate(), inputs))
        wrong = arith.add(b, arith.multiply(b, no, targets), arith.multiply(b, yes, rest))
        if gamma < 1 or gamma != int(gamma):  # a power whose slope at 0 is infinite
            wrong = at_least(b, wrong, 1e-30)
        losses = arith.multiply(b, losses, functional.power(b, wrong, gamma))
    if alpha >= 0:
        share = arith.add(
            b, arith.multiply(b, targets, alpha), arith.multiply(b, rest, 1.0 - alpha)
        )
        losses = arith.multiply(b, losses, share)
    return reduced(b, losses, reduction)
