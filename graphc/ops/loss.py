"""Losses whose numbers or gradients want an op of their own: cross entropies.

Written out in simpler ops they would overflow, cancel, or differentiate to infinity times zero at the ends of their
range, and their gradients would keep whole matrices of intermediates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, Expr, OpError
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import arith
from graphc.ops.composite import Composite, in_working_precision
from graphc.ops.elementwise import Arithmetic, Elementwise
from graphc.ops.errors import check_kind, check_rank
from graphc.ops.index import TakeAlongAxis
from graphc.ops.numerics import as_f64, rounded
from graphc.ops.source import Iota
from graphc.ops.unary import Exp, Log, Negate


@dataclass(frozen=True)
class CrossEntropy(Composite):
    """-log softmax(x)[target] over the last dimension, for each row; operands (x [..., C], target [...]).

    `label_smoothing` e mixes the target with all classes: (1 - e) of it and e / C of each (Szegedy et al. 2016). A
    target that is no class is a fault. Further results are what the gradient makes the softmax from again, without
    keeping a matrix: each row's maximum, and the logarithm of its sum of exp(x - maximum).
    """

    name: ClassVar[str] = "cross_entropy"
    arity: ClassVar[int | None] = 2
    family: ClassVar[str] = "norm"
    expensive: ClassVar[bool] = True
    label_smoothing: float

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """Three times x's type without the last dimension. Raises OpError E0202, E0205 or E0206."""
        x, target = operands
        check_kind(self.name, x, "float", 0)
        check_kind(self.name, target, "int", 1)
        if x.rank == 0:
            raise OpError(f"{self.name}: {x} has no classes", operand=0, code="E0205")
        check_rank(self.name, target, x.rank - 1, 1, "target")
        if target.shape != x.shape[:-1]:
            raise OpError(
                f"{self.name} of {x} by {target}: they need one target for each row",
                operand=1,
                code="E0202",
            )
        return (x.with_shape(target.shape),) * 3

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64, with the maximum subtracted. Raises IndexError for a target that is no class."""
        x, target = operands
        with np.errstate(all="ignore"):
            top = as_f64(x).max(-1, keepdims=True, initial=-np.inf)
            shifted = as_f64(x) - top
            (picked,) = TakeAlongAxis(x.ndim - 1).evaluate(shifted, target[..., None])
            logs = np.log(np.exp(shifted).sum(-1))
            loss = logs - (1.0 - self.label_smoothing) * picked[..., 0]
            if self.label_smoothing:
                loss = loss - self.label_smoothing * shifted.mean(-1)
            return rounded(loss, x), rounded(top[..., 0], x), rounded(logs, x)

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """The logarithm of the sum, minus what the target picks, all with the maximum subtracted."""
        (wide,) = in_working_precision(b, operands[0])
        type = b.type_of(wide)
        rows, last = type.shape[:-1], type.rank - 1
        top = arith.max(b, wide, last)
        shifted = arith.subtract(b, wide, _along_rows(b, top, type))
        logs = b(Log(), arith.sum(b, b(Exp(), shifted), last))
        at = arith.reshape(b, operands[1], (*rows, 1))
        picked = arith.reshape(b, b(TakeAlongAxis(last), wide, at), rows)
        picked = arith.subtract(b, picked, top)
        if self.label_smoothing:
            mean = arith.subtract(b, arith.mean(b, wide, last), top)
            picked = arith.multiply(b, picked, 1.0 - self.label_smoothing)
            picked = arith.add(b, picked, arith.multiply(b, mean, self.label_smoothing))
        dtype = b.type_of(operands[0]).dtype
        results = (arith.subtract(b, logs, picked), top, logs)
        return tuple(arith.convert(b, value, dtype) for value in results)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """(softmax(x) - target distribution) g, elementwise on x and what is known of each row."""
        b, (x, target) = p.b, p.operands
        wide, top, logs = in_working_precision(b, x, *p.results[1:])
        by_loss, by_top, by_logs = (
            None if g is None else _along_rows(b, in_working_precision(b, g)[0], b.type_of(wide))
            for g in p.cotangents
        )
        type = b.type_of(wide)
        peak = _along_rows(b, top, type)
        # top - x and not x - top, which the forward pass has: what both read would be kept in memory in between.
        below = arith.subtract(b, peak, wide)
        softmax = b(Exp(), b(Negate(), arith.add(b, below, _along_rows(b, logs, type))))
        parts = []
        if by_loss is not None:
            error = arith.subtract(b, softmax, self._wanted(b, target, type))
            parts.append(arith.multiply(b, error, by_loss))
        if by_logs is not None:
            parts.append(arith.multiply(b, softmax, by_logs))
            minus = b(Negate(), by_logs)
            by_top = minus if by_top is None else arith.add(b, by_top, minus)
        if by_top is not None:  # ties share, as for any maximum
            largest = arith.convert(b, arith.compare(b, "eq", wide, peak), type.dtype)
            count = _along_rows(b, arith.sum(b, largest, type.rank - 1), type)
            parts.append(arith.multiply(b, arith.divide(b, largest, count), by_top))
        total = parts[0]
        for part in parts[1:]:
            total = arith.add(b, total, part)
        return arith.convert(b, total, b.type_of(x).dtype), None

    def _wanted(self, b: GraphBuilder, target: Value, type: TensorType) -> Value:
        """The distribution that the target and the smoothing ask for."""
        last = type.rank - 1
        here = b(Iota(DType.I64, type.shape, last))
        at = _along_rows(b, arith.convert(b, target, DType.I64), type)
        one = arith.constant(b, 1.0 - self.label_smoothing, type.dtype)
        wanted = arith.select(b, arith.compare(b, "eq", here, at), one, 0.0)
        if not self.label_smoothing:
            return wanted
        count = arith.dim_scalar(b, type.shape[last], type.dtype)
        return arith.add(b, wanted, arith.divide(b, self.label_smoothing, count))


def _along_rows(b: GraphBuilder, rows: Value, type: TensorType) -> Value:
    """One value for each row, repeated along the last dimension of a type."""
    return arith.as_spread(b, rows, type.shape, tuple(range(type.rank - 1)))


def _softplus(e: Arithmetic, dtype: DType, x: Expr) -> Expr:
    """log(1 + exp(x)), exact at both ends."""
    small = e.unary("log1p", e.unary("exp", e.unary("neg", e.unary("abs", x))))
    return e.binary("add", e.binary("max", x, e.constant(0.0, dtype)), small)


@dataclass(frozen=True)
class LogisticLoss(Elementwise):
    """-positive * log(sigmoid(x)) - negative * log(sigmoid(-x)); operands (x, positive, negative).

    The binary cross entropy of logits is that with `positive` the target and `negative` one minus it. Exact for any
    finite x: no sigmoid is rounded to 0 or 1 on the way.
    """

    name: ClassVar[str] = "logistic_loss"
    arity: ClassVar[int | None] = 3
    kind: ClassVar[str] = "float"
    family: ClassVar[str] = "activation"
    expensive: ClassVar[bool] = True

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """positive * softplus(-x) + negative * softplus(x), which share their only exp."""
        x, positive, negative = args
        zero, minus = e.constant(0.0, dtype), e.unary("neg", x)
        small = e.unary("log1p", e.unary("exp", e.unary("neg", e.unary("abs", x))))
        low = e.binary("mul", positive, e.binary("add", e.binary("max", minus, zero), small))
        high = e.binary("mul", negative, e.binary("add", e.binary("max", x, zero), small))
        return e.binary("add", low, high)

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """negative * sigmoid(x) - positive * sigmoid(-x), and the two softplus."""
        x, positive, negative = args
        minus = e.unary("neg", x)
        up = e.binary("mul", negative, e.unary("sigmoid", x))
        down = e.binary("mul", positive, e.unary("sigmoid", minus))
        by_x = e.binary("mul", cotangent, e.binary("sub", up, down))
        by_positive = e.binary("mul", cotangent, _softplus(e, dtype, minus))
        return by_x, by_positive, e.binary("mul", cotangent, _softplus(e, dtype, x))


@dataclass(frozen=True)
class BinaryCrossEntropy(Elementwise):
    """-target * log(x) - (1 - target) * log(1 - x) of probabilities, no logarithm below -100; operands (x, target).

    As `torch.nn.functional.binary_cross_entropy`, whose gradient is (x - target) / max(x (1 - x), 1e-12).
    """

    name: ClassVar[str] = "binary_cross_entropy"
    arity: ClassVar[int | None] = 2
    kind: ClassVar[str] = "float"
    family: ClassVar[str] = "activation"
    expensive: ClassVar[bool] = True

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """The formula above."""
        x, target = args
        yes, no = _clamped_logs(e, dtype, x)
        rest = e.binary("sub", e.constant(1.0, dtype), target)
        total = e.binary("add", e.binary("mul", target, yes), e.binary("mul", rest, no))
        return e.unary("neg", total)

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """The gradient above, and the difference of the logarithms."""
        x, target = args
        spread = e.binary("mul", x, e.binary("sub", e.constant(1.0, dtype), x))
        below = e.binary("max", spread, e.constant(1e-12, dtype))
        by_x = e.binary("mul", cotangent, e.binary("div", e.binary("sub", x, target), below))
        yes, no = _clamped_logs(e, dtype, x)
        return by_x, e.binary("mul", cotangent, e.binary("sub", no, yes))


def _clamped_logs(e: Arithmetic, dtype: DType, x: Expr) -> tuple[Expr, Expr]:
    """log(x) and log(1 - x), at least -100."""
    low = e.constant(-100.0, dtype)
    yes = e.binary("max", e.unary("log", x), low)
    return yes, e.binary("max", e.unary("log1p", e.unary("neg", x)), low)
