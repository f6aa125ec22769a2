"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.types import TensorType
from graphc.optim.base import ArgumentError, Optimizer, Result, Slot, Update, check_range


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: `param -= lr * buffer`, `buffer = momentum * buffer + (1 - dampening) * grad`.

    The buffer starts as the first gradient. `nesterov` looks ahead: `param -= lr * (grad + momentum * buffer)`
    (Sutskever et al. 2013). `weight_decay` adds `weight_decay * param` to the gradient. As `torch.optim.SGD`.
    """

    name: ClassVar[str] = "SGD"
    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        for argument in ("lr", "momentum", "weight_decay"):
            check_range(argument, getattr(self, argument), 0.0)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ArgumentError("nesterov", "needs a momentum and a dampening of 0")

    def slots(self, param: TensorType) -> dict[str, Slot]:
        """`momentum_buffer`, where there is momentum."""
        return {"momentum_buffer": Slot(param)} if self.momentum else {}

    def update(self, u: Update) -> Result:
        """The formula above."""
        grad = self.gradient(u, self.weight_decay)
        if not self.momentum:
            return u.results(u.term(u.param) - u.rate * grad, {})
        fresh = grad
        if self.dampening:  # the buffer of the first update is the gradient, undamped
            first = (u.count <= 1.0).where(0.0 * u.count + 1.0, 1.0 - self.dampening)
            fresh = first * grad
        buffer = self.momentum * u.slot("momentum_buffer") + fresh
        step = grad + self.momentum * buffer if self.nesterov else buffer
        return u.results(u.term(u.param) - u.rate * step, {"momentum_buffer": buffer})
