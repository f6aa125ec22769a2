"""Optimizers that divide by the size of past gradients: RMSprop, Adagrad, Adadelta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.types import TensorType
from graphc.optim.base import Optimizer, Result, Slot, Update, check_range


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop (Hinton 2012): `param -= lr * grad / (sqrt(v) + eps)`, v the running average of `grad ** 2`.

    `alpha` is how much of the average stays. `centered` subtracts the square of the gradient's own average, which
    leaves its variance (Graves 2013); `momentum` sums the steps. As `torch.optim.RMSprop`.
    """

    name: ClassVar[str] = "RMSprop"
    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        for argument in ("lr", "alpha", "eps", "weight_decay", "momentum"):
            check_range(argument, getattr(self, argument), 0.0)

    def slots(self, param: TensorType) -> dict[str, Slot]:
        """`square_avg`; `momentum_buffer` and `grad_avg` where asked for."""
        found = {"square_avg": Slot(param)}
        if self.momentum:
            found["momentum_buffer"] = Slot(param)
        if self.centered:
            found["grad_avg"] = Slot(param)
        return found

    def update(self, u: Update) -> Result:
        """The formula above."""
        grad = self.gradient(u, self.weight_decay)
        square = self.alpha * u.slot("square_avg") + (1.0 - self.alpha) * (grad * grad)
        slots = {"square_avg": square}
        if self.centered:
            slots["grad_avg"] = mean = u.slot("grad_avg").lerp(grad, 1.0 - self.alpha)
            square = square - mean * mean
        step = grad / (square.sqrt() + self.eps)
        if self.momentum:
            step = self.momentum * u.slot("momentum_buffer") + step
            slots["momentum_buffer"] = step
        return u.results(u.term(u.param) - u.rate * step, slots)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011): `param -= lr * grad / (sqrt(sum) + eps)`, the sum over all `grad ** 2` so far.

    Update t uses `lr / (1 + (t - 1) * lr_decay)`. As `torch.optim.Adagrad`.
    """

    name: ClassVar[str] = "Adagrad"
    lr: float = 1e-2
    lr_decay: float = 0.0
    weight_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10

    def __post_init__(self) -> None:
        for argument in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            check_range(argument, getattr(self, argument), 0.0)

    def slots(self, param: TensorType) -> dict[str, Slot]:
        """`sum`, from `initial_accumulator_value`."""
        return {"sum": Slot(param, self.initial_accumulator_value)}

    def update(self, u: Update) -> Result:
        """The formula above."""
        grad = self.gradient(u, self.weight_decay)
        rate = u.rate
        if self.lr_decay:
            rate = rate / (1.0 + (u.count - 1.0) * self.lr_decay)
        total = u.slot("sum") + grad * grad
        return u.results(
            u.term(u.param) - rate * (grad / (total.sqrt() + self.eps)), {"sum": total}
        )


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012): steps of `sqrt(d + eps) / sqrt(v + eps) * grad`, times `lr`.

    v and d are running averages of the squares of gradients and of past steps. As `torch.optim.Adadelta`.
    """

    name: ClassVar[str] = "Adadelta"
    lr: float = 1.0
    rho: float = 0.9
    eps: float = 1e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for argument in ("lr", "eps", "weight_decay"):
            check_range(argument, getattr(self, argument), 0.0)
        check_range("rho", self.rho, 0.0, 1.0, open_high=False)

    def slots(self, param: TensorType) -> dict[str, Slot]:
        """`square_avg` and `acc_delta`."""
        return {"square_avg": Slot(param), "acc_delta": Slot(param)}

    def update(self, u: Update) -> Result:
        """The formula above."""
        grad = self.gradient(u, self.weight_decay)
        square = self.rho * u.slot("square_avg") + (1.0 - self.rho) * (grad * grad)
        past = u.slot("acc_delta")
        step = (past + self.eps).sqrt() / (square + self.eps).sqrt() * grad
        past = self.rho * past + (1.0 - self.rho) * (step * step)
        slots = {"square_avg": square, "acc_delta": past}
        return u.results(u.term(u.param) - u.rate * step, slots)
