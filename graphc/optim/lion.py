"""Lion: the sign of a momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.types import TensorType
from graphc.optim.base import Optimizer, Result, Slot, Update, check_range, decayed


@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion (Chen et al. 2023): `param -= lr * sign(beta1 * m + (1 - beta1) * grad)`, with decoupled weight decay.

    m is the running average of the gradient with `beta2`. Wants a rate 3 to 10 times smaller than AdamW's, and a weight
    decay as much larger. Defaults of the authors' code.
    """

    name: ClassVar[str] = "Lion"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for argument in ("lr", "weight_decay"):
            check_range(argument, getattr(self, argument), 0.0)
        for beta in self.betas:
            check_range("betas", beta, 0.0, 1.0)

    def slots(self, param: TensorType) -> dict[str, Slot]:
        """`exp_avg`."""
        return {"exp_avg": Slot(param)}

    def update(self, u: Update) -> Result:
        """The formula above."""
        grad, average = self.gradient(u), u.slot("exp_avg")
        beta1, beta2 = self.betas
        step = (beta1 * average + (1.0 - beta1) * grad).sign()
        average = beta2 * average + (1.0 - beta2) * grad
        return u.results(decayed(u, self.weight_decay) - u.rate * step, {"exp_avg": average})
