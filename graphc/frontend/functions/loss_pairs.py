"""Losses of pairs and triples: embeddings that should be near each other or far apart, as in PyTorch.

`target` is 1 for a pair that belongs together (or whose first is to rank higher) and -1 for one that does not.
"""

from __future__ import annotations

import math

from graphc.frontend.functions.loss import Reduction, at_least, check_number, check_shape, reduced
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import Abs, Multiply, Negate, Sqrt, arith, functional

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Losses")


def _where(b: GraphBuilder, target: Value, direction: str, value: float, x: Value) -> Value:
    """x where the target compares so, else 0."""
    return arith.select(b, arith.compare(b, direction, target, value), x, 0.0)


@_add
def hinge_embedding_loss(
    b: GraphBuilder,
    input: Value,
    target: Value,
    margin: float = 1.0,
    reduction: Reduction = "mean",
) -> Value:
    """`input`, a distance, where the target is 1; `max(0, margin - input)` where it is -1."""
    check_shape(b, input, target, "target")
    far = at_least(b, arith.subtract(b, margin, input), 0.0)
    losses = arith.add(b, _where(b, target, "ne", -1.0, input), _where(b, target, "ne", 1.0, far))
    return reduced(b, losses, reduction)


@_add
def margin_ranking_loss(
    b: GraphBuilder,
    input1: Value,
    input2: Value,
    target: Value,
    margin: float = 0.0,
    reduction: Reduction = "mean",
) -> Value:
    """`max(0, -target * (input1 - input2) + margin)`: the first is to be larger where the target is 1."""
    check_shape(b, input1, input2, "input2")
    check_shape(b, input1, target, "target")
    target = arith.convert(b, target, b.type_of(input1).dtype)
    ahead = arith.multiply(b, target, arith.subtract(b, input1, input2))
    return reduced(b, at_least(b, arith.subtract(b, margin, ahead), 0.0), reduction)


@_add
def triplet_margin_loss(
    b: GraphBuilder,
    anchor: Value,
    positive: Value,
    negative: Value,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
) -> Value:
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)` with p-norm distances (Balntas et al. 2016).

    Distances are along the last dimension; `eps` is added to each difference. `swap` uses the distance of positive and
    negative where that is the smaller one.
    """
    check_number("margin", margin, positive=True)
    check_number("p", p, positive=True)
    check_shape(b, anchor, positive, "positive")
    check_shape(b, anchor, negative, "negative")
    if not b.type_of(anchor).rank:
        raise RejectError("a distance is along a dimension, and scalars have none", code="E0205")
    near, far = (_distance(b, anchor, other, p, eps) for other in (positive, negative))
    if swap:
        far = arith.minimum(b, far, _distance(b, positive, negative, p, eps))
    gap = arith.add(b, arith.subtract(b, near, far), margin)
    return reduced(b, at_least(b, gap, 0.0), reduction)


def _distance(b: GraphBuilder, x: Value, y: Value, p: float, eps: float) -> Value:
    """The p-norm of `x - y + eps` along the last dimension; its gradient is 0 where it is 0."""
    error = arith.add(b, arith.subtract(b, x, y), eps)
    last = b.type_of(error).rank - 1
    if p == 1.0:
        return arith.sum(b, b(Abs(), error), last)
    if math.isinf(p):
        return arith.max(b, b(Abs(), error), last)
    if p == 2.0:
        return _root(b, arith.sum(b, arith.multiply(b, error, error), last), 0.5)
    powers = functional.power(b, b(Abs(), error), p)
    return _root(b, arith.sum(b, powers, last), 1.0 / p)


def _root(b: GraphBuilder, x: Value, exponent: float) -> Value:
    some = arith.compare(b, "gt", x, 0.0)
    return arith.select(b, some, functional.power(b, arith.select(b, some, x, 1.0), exponent), 0.0)


@_add
def cosine_embedding_loss(
    b: GraphBuilder,
    input1: Value,
    input2: Value,
    target: Value,
    margin: float = 0.0,
    reduction: Reduction = "mean",
) -> Value:
    """`1 - cos(input1, input2)` where the target is 1; `max(0, cos - margin)` where it is -1.

    The cosine is along the last dimension: inputs [N, D] and target [N], or [D] and [].
    """
    check_shape(b, input1, input2, "input2")
    type, given = b.type_of(input1), b.type_of(target)
    if not type.rank or given.shape != type.shape[:-1]:
        raise RejectError(
            f"cosine_embedding_loss of {type} needs one target for each pair, not {given}",
            code="E0202",
            operand=2,
        )
    dot, one, two = (
        arith.sum(b, b(Multiply(), x, y), type.rank - 1)
        for x, y in ((input1, input2), (input1, input1), (input2, input2))
    )
    sizes = [arith.add(b, x, 1e-12) for x in (one, two)]  # PyTorch's epsilon
    cosine = arith.divide(b, dot, b(Sqrt(), arith.multiply(b, *sizes)))
    near = arith.add(b, b(Negate(), cosine), 1.0)
    far = at_least(b, arith.subtract(b, cosine, margin), 0.0)
    losses = arith.add(b, _where(b, target, "eq", 1.0, near), _where(b, target, "eq", -1.0, far))
    return reduced(b, losses, reduction)
