"""Losses of classes: `input` has a score for each class, `target` says which one is right, as in PyTorch.

Classes are dimension 1 of the input, or the only one: [C], [N, C], [N, C, d1, ...]; class numbers have the shape
without it. A target that is neither a class nor `ignore_index` is a fault when the graph runs.
"""

from __future__ import annotations

from graphc.frontend.functions.loss import Reduction, check_shape, reduced, total
from graphc.frontend.mixed import Mixed
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import CrossEntropy, Iota, LogSoftmax, Negate, Take, TakeAlongAxis, Transpose, arith

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Losses")


def _classes_last(b: GraphBuilder, x: Value) -> Value:
    """The classes as the last dimension, where row kernels want them. Raises RejectError for a scalar."""
    rank = b.type_of(x).rank
    if rank == 0:
        raise RejectError(f"{b.type_of(x)} has no dimension of classes", code="E0205", operand=0)
    return x if rank <= 2 else b(Transpose((0, *range(2, rank), 1)), x)


def _check_weight(b: GraphBuilder, rows: Value, weight: Value | None) -> None:
    classes = b.type_of(rows).shape[-1]
    if weight is not None and b.type_of(weight).shape != (classes,):
        raise RejectError(
            f"`weight` has one number for each of {classes} classes and is {b.type_of(weight)}",
            code="E0214",
            argument="weight",
        )


class _Targets:
    """Class numbers, with those to ignore told apart."""

    def __init__(
        self, b: GraphBuilder, rows: Value, target: Value, ignore_index: int | None
    ) -> None:
        self.b, type, given = b, b.type_of(rows), b.type_of(target)
        if not given.dtype.is_int:
            raise RejectError(
                f"a target of classes holds integers, and this is {given}",
                code="E0206",
                operand=1,
                help='astype(target, "i64") makes them',
            )
        if given.shape != type.shape[:-1]:
            raise RejectError(
                f"{given} are no targets for scores of {type.shape[-1]} classes: "
                f"they need the shape {type.with_shape(type.shape[:-1])} has",
                code="E0202",
                operand=1,
            )
        self.numbers = arith.convert(b, target, DType.I64)
        self.counted: Value | None = None
        if ignore_index is not None:
            self.counted = arith.compare(b, "ne", self.numbers, ignore_index)
            self.numbers = arith.select(b, self.counted, self.numbers, 0)

    def only_counted(self, x: Value) -> Value:
        """x, 0 where the target is ignored."""
        return x if self.counted is None else arith.select(self.b, self.counted, x, 0.0)

    def weights(self, weight: Value | None, dtype: DType) -> Value:
        """What each target counts in a mean."""
        if weight is not None:
            return self.only_counted(self.b(Take(0), weight, self.numbers))
        assert self.counted is not None
        return arith.convert(self.b, self.counted, dtype)

    def picked(self, rows: Value) -> Value:
        """Each row's element of its target."""
        type = self.b.type_of(self.numbers)
        at = arith.reshape(self.b, self.numbers, (*type.shape, 1))
        return arith.reshape(self.b, self.b(TakeAlongAxis(type.rank), rows, at), type.shape)


def _mean(b: GraphBuilder, losses: Value, weights: Value, reduction: Reduction) -> Value:
    """The mean is divided by the weights that count."""
    if reduction != "mean":
        return reduced(b, losses, reduction)
    return arith.divide(b, total(b, losses), total(b, weights))


@_add
def cross_entropy(
    b: GraphBuilder,
    input: Value,
    target: Mixed | Value,
    weight: Value | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Value:
    """`-log(softmax(input))` of the right class; `input` holds logits.

    The target holds class numbers, also mixed ones (`mixup`), or probabilities in the shape of the input. `weight` has
    a number for each class; targets of `ignore_index` do not count; `label_smoothing` gives so much of each target to
    all classes alike (Szegedy et al. 2016).
    """
    if not 0 <= label_smoothing <= 1:
        raise RejectError(
            f"`label_smoothing` has to be between 0 and 1 and is {label_smoothing}",
            argument="label_smoothing",
        )
    rows = _classes_last(b, input)
    _check_weight(b, rows, weight)
    if isinstance(target, Mixed):
        target = target.probabilities(b, b.type_of(rows).shape[-1], b.type_of(rows).dtype)
    if b.type_of(target).dtype.is_float:
        check_shape(b, input, target, "target")
        wanted = _classes_last(b, target)
        return _soft(b, rows, wanted, weight, reduction, label_smoothing)
    targets = _Targets(b, rows, target, ignore_index)
    weights = targets.weights(weight, b.type_of(rows).dtype)
    smoothing = label_smoothing if weight is None else 0.0
    losses = b.emit(CrossEntropy(smoothing), rows, targets.numbers)[0]
    if weight is not None:
        losses = arith.multiply(b, losses, weights)
        if label_smoothing:
            uniform = _dotted(b, rows, weight)
            count = arith.dim_scalar(b, b.type_of(rows).shape[-1], b.type_of(rows).dtype)
            share = arith.divide(b, label_smoothing, count)
            losses = arith.multiply(b, losses, 1.0 - label_smoothing)
            losses = arith.add(b, losses, arith.multiply(b, uniform, share))
    return _mean(b, targets.only_counted(losses), weights, reduction)


def _dotted(b: GraphBuilder, rows: Value, weight: Value) -> Value:
    """`-sum(log_softmax(rows) * weight)` of each row."""
    last = b.type_of(rows).rank - 1
    logs = b(LogSoftmax(last), rows)
    return b(Negate(), arith.sum(b, arith.multiply(b, logs, weight), last))


def _soft(
    b: GraphBuilder,
    rows: Value,
    target: Value,
    weight: Value | None,
    reduction: Reduction,
    label_smoothing: float,
) -> Value:
    """Cross entropy with probabilities; the mean is over the rows, whatever the weights."""
    type = b.type_of(rows)
    if label_smoothing:
        count = arith.dim_scalar(b, type.shape[-1], type.dtype)
        target = arith.multiply(b, target, 1.0 - label_smoothing)
        target = arith.add(b, target, arith.divide(b, label_smoothing, count))
    if weight is not None:
        target = arith.multiply(b, target, weight)
    return reduced(b, _dotted(b, rows, target), reduction)


@_add
def nll_loss(
    b: GraphBuilder,
    input: Value,
    target: Value,
    weight: Value | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Value:
    """`-input` at the right class; `input` holds log-probabilities, from `log_softmax`."""
    rows = _classes_last(b, input)
    _check_weight(b, rows, weight)
    targets = _Targets(b, rows, target, ignore_index)
    weights = targets.weights(weight, b.type_of(rows).dtype)
    losses = b(Negate(), targets.picked(rows))
    if weight is not None:
        losses = arith.multiply(b, losses, weights)
    return _mean(b, targets.only_counted(losses), weights, reduction)


@_add
def multi_margin_loss(
    b: GraphBuilder,
    input: Value,
    target: Value,
    p: int = 1,
    margin: float = 1.0,
    weight: Value | None = None,
    reduction: Reduction = "mean",
) -> Value:
    """The hinge loss of classes: the mean over the wrong ones of `max(0, margin - right + wrong) ** p`.

    `input` is [N, C] or [C]; `weight` has a number for each class.
    """
    if p not in (1, 2):
        raise RejectError(f"`p` has to be 1 or 2 and is {p}", argument="p")
    if b.type_of(input).rank not in (1, 2):
        raise RejectError(
            f"multi_margin_loss needs [N, C] or [C] and gets {b.type_of(input)}",
            code="E0205",
            operand=0,
        )
    _check_weight(b, input, weight)
    targets = _Targets(b, input, target, None)
    type = b.type_of(input)
    last, kept = type.rank - 1, tuple(range(type.rank - 1))
    right = arith.as_spread(b, targets.picked(input), type.shape, kept)
    gap = arith.add(b, arith.subtract(b, input, right), margin)
    gap = arith.select(b, arith.compare(b, "gt", gap, 0.0), gap, 0.0)
    if p == 2:
        gap = arith.multiply(b, gap, gap)
    if weight is not None:
        chosen = b(Take(0), weight, targets.numbers)
        gap = arith.multiply(b, gap, arith.as_spread(b, chosen, type.shape, kept))
    at = arith.as_spread(b, targets.numbers, type.shape, kept)
    here = b(Iota(DType.I64, type.shape, last))
    gap = arith.select(b, arith.compare(b, "eq", here, at), 0.0, gap)
    return reduced(b, arith.mean(b, gap, last), reduction)
