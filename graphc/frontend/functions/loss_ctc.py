"""Connectionist temporal classification: the loss of a sequence of labels whose places in time are not known.

The forward variables of Graves et al. 2006 in the log domain, as a `Scan` over time; the gradient is that scan's. The
labels are interleaved with blanks, and one step of the scan sums the ways to stay, to come from the position before, or
to skip a blank. Impossible ways have the logarithm -1e30: finite, so that no step subtracts infinities.
"""

from __future__ import annotations

import numpy as np

from graphc.frontend.functions.loss import Reduction, at_least, reduced
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.types import TensorType
from graphc.ops import (
    And,
    Constant,
    DotGeneral,
    Exp,
    Input,
    Iota,
    Log,
    Negate,
    Pad,
    Scan,
    StopGradient,
    Transpose,
    arith,
)
from graphc.ops.bodies import close
from graphc.ops.numerics import working

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Losses")
_NEVER = -1e30
Lengths = Value | tuple[int, ...]


@_add
def ctc_loss(
    b: GraphBuilder,
    log_probs: Value,
    targets: Value,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
) -> Value:
    """`-log` of the probability of all the ways in which `targets` can be read off (Graves et al. 2006).

    `log_probs` is [T, N, C], from `log_softmax`; `targets` [N, S] holds labels, padded with anything behind
    `target_lengths` [N]; `input_lengths` [N] is how much of T each sample has. A target longer than its input can hold
    has an infinite loss, or none with `zero_infinity`. "mean" divides each loss by the length of its target first.
    """
    type, given = b.type_of(log_probs), b.type_of(targets)
    if type.rank != 3 or given.rank != 2 or given.shape[0] != type.shape[1]:
        raise RejectError(
            f"ctc_loss needs log_probs [T, N, C] and targets [N, S], not {type} and {given}",
            code="E0202",
            operand=1,
            help="targets of several samples in one row have to be padded to [N, S]",
        )
    if not given.dtype.is_int:
        raise RejectError(f"targets are integers, and this is {given}", code="E0206", operand=1)
    classes = type.shape[2]
    if blank < 0 or (isinstance(classes, int) and blank >= classes):
        raise RejectError(f"there is no class {blank} among {classes}", argument="blank")
    steps = _lengths(b, input_lengths, type.shape[1], "input_lengths")
    sizes = _lengths(b, target_lengths, type.shape[1], "target_lengths")
    wide = working(type.dtype)
    labels = _interleaved(b, targets, sizes, blank)
    scores = _scores(b, at_least(b, arith.convert(b, log_probs, wide), _NEVER), labels)
    losses = b(Negate(), _last(b, _forward(b, scores, labels, steps, blank), sizes))
    possible = arith.compare(b, "lt", losses, -_NEVER / 2)
    losses = arith.select(b, possible, losses, 0.0 if zero_infinity else float("inf"))
    if reduction == "mean":
        length = arith.convert(b, arith.maximum(b, sizes, 1), wide)
        losses = arith.divide(b, losses, length)
    return reduced(b, arith.convert(b, losses, type.dtype), reduction)


def _lengths(b: GraphBuilder, lengths: Lengths, count: DimLike, argument: str) -> Value:
    """Lengths as i64 [N]."""
    if not isinstance(lengths, Value):
        lengths = b(Constant.of(np.array(lengths, np.int64)))
    type = b.type_of(lengths)
    if type.shape != (count,) or not type.dtype.is_int:
        raise RejectError(
            f"`{argument}` has one integer for each of {count} samples and is {type}",
            code="E0202",
            argument=argument,
        )
    return arith.convert(b, lengths, DType.I64)


def _spread(b: GraphBuilder, x: Value, shape: tuple[DimLike, ...], *dims: int) -> Value:
    return arith.as_spread(b, x, shape, dims)


def _interleaved(b: GraphBuilder, targets: Value, sizes: Value, blank: int) -> Value:
    """Blank, label, blank, label, ..., blank: i64 [N, 2 * S + 1]; padding becomes blanks."""
    shape = b.type_of(targets).shape
    numbers = arith.convert(b, targets, DType.I64)
    inside = arith.compare(b, "lt", b(Iota(DType.I64, shape, 1)), _spread(b, sizes, shape, 0))
    numbers = arith.select(b, inside, numbers, blank)
    return b(Pad((0, 1), (0, 1), (0, 1), blank), numbers)


def _scores(b: GraphBuilder, log_probs: Value, labels: Value) -> Value:
    """The log-probability of each position's label at each time, [T, N, L].

    A product with one-hot rows: its gradient is a product too, where that of a lookup would add element by element.
    """
    samples, positions = b.type_of(labels).shape
    type = b.type_of(log_probs)
    shape = (samples, positions, type.shape[2])
    here = b(Iota(DType.I64, shape, 2))
    hot = arith.compare(b, "eq", here, _spread(b, labels, shape, 0, 1))
    product = b(DotGeneral((1,), (0,), (2,), (2,)), log_probs, arith.convert(b, hot, type.dtype))
    return b(Transpose((1, 0, 2)), product)


def _forward(b: GraphBuilder, scores: Value, labels: Value, steps: Value, blank: int) -> Value:
    """The logarithms of the forward variables after each sample's last time, [N, L]."""
    type = b.type_of(scores)
    time, shape = type.shape[0], type.shape[1:]
    two_before = b(Pad((0, 2), (0, -2), (0, 0), blank), labels)
    skips = arith.compare(b, "ne", labels, two_before)  # equal labels need the blank between them
    skips = b(And(), skips, arith.compare(b, "ne", labels, blank))
    ways = arith.select(b, skips, arith.constant(b, 0.0, type.dtype), _NEVER)
    first = arith.compare(b, "eq", b(Iota(DType.I64, shape, 1)), 0)
    start = arith.select(b, first, arith.constant(b, 0.0, type.dtype), _NEVER)
    body = _step(b, type.with_shape(shape))
    clock = b(Iota(DType.I64, (time,), 0))
    return b(Scan(body, time, 2, 1), scores, clock, start, ways, steps)


def _step(b: GraphBuilder, type: TensorType) -> Graph:
    """One time step: log(exp(stay) + exp(step) + exp(skip)) + score, for samples that go on that long."""
    body = GraphBuilder("ctc", b.dims)
    score = body(Input("score", type.dtype, type.shape))
    now = body(Input("now", DType.I64, ()))
    stay = body(Input("alpha", type.dtype, type.shape))
    ways = body(Input("ways", type.dtype, type.shape))
    steps = body(Input("steps", DType.I64, type.shape[:1]))
    step = body(Pad((0, 1), (0, -1), (0, 0), _NEVER), stay)
    skip = arith.add(body, body(Pad((0, 2), (0, -2), (0, 0), _NEVER), stay), ways)
    total = arith.add(body, _log_sum(body, [stay, step, skip]), score)
    going = arith.compare(body, "lt", _spread(body, now, type.shape[:1]), steps)
    after = arith.select(body, _spread(body, going, type.shape, 0), total, stay)
    return close(body, [("alpha", after)])


def _log_sum(b: GraphBuilder, terms: list[Value]) -> Value:
    """log(sum(exp(terms))); the largest is subtracted, and takes no part in the gradient."""
    top = terms[0]
    for term in terms[1:]:
        top = arith.maximum(b, top, term)
    top = b(StopGradient(), top)
    total: Value | None = None
    for term in terms:
        power = b(Exp(), arith.subtract(b, term, top))
        total = power if total is None else arith.add(b, total, power)
    assert total is not None
    return arith.add(b, b(Log(), total), top)


def _last(b: GraphBuilder, alpha: Value, sizes: Value) -> Value:
    """The logarithm of the two ways to end: in the last label, or in the blank behind it."""
    type = b.type_of(alpha)
    here = b(Iota(DType.I64, type.shape, 1))
    end = arith.multiply(b, sizes, 2)
    before = arith.subtract(b, end, 1)
    parts = []
    for place in (end, before):
        chosen = arith.compare(b, "eq", here, _spread(b, place, type.shape, 0))
        parts.append(arith.max(b, arith.select(b, chosen, alpha, _NEVER), 1))
    return _log_sum(b, parts)
