"""Adam and its relatives: running averages of the gradient and of its square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.dtype import DType
from graphc.ir.types import TensorType
from graphc.optim.base import Optimizer, Result, Slot, Update, check_range, decayed
from graphc.optim.formula import Term


@dataclass(frozen=True)
class Moments(Optimizer):
    """Base of Adam and its relatives: `exp_avg` and `exp_avg_sq`, the averages of the gradient and of its square."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for argument in ("lr", "eps", "weight_decay"):
            check_range(argument, getattr(self, argument), 0.0)
        for beta in self.betas:
            check_range("betas", beta, 0.0, 1.0)

    def slots(self, param: TensorType) -> dict[str, Slot]:
        """`exp_avg` and `exp_avg_sq`, from zeros."""
        return {"exp_avg": Slot(param), "exp_avg_sq": Slot(param)}

    def _averages(self, u: Update, grad: Term) -> tuple[Term, Term]:
        """The new averages."""
        beta1, beta2 = self.betas
        first = u.slot("exp_avg").lerp(grad, 1.0 - beta1)
        return first, beta2 * u.slot("exp_avg_sq") + (1.0 - beta2) * (grad * grad)

    def _corrections(self, u: Update) -> tuple[Term, Term]:
        """`1 - beta ** step` of both: what the averages, which start from zero, are short of."""
        beta1, beta2 = self.betas
        return 1.0 - beta1**u.count, 1.0 - beta2**u.count


@dataclass(frozen=True)
class Adam(Moments):
    """Adam (Kingma & Ba 2015): `param -= lr * m / (sqrt(v) + eps)` with bias-corrected averages m and v.

    `weight_decay` adds `weight_decay * param` to the gradient; see `AdamW`. `amsgrad` divides by the largest v so far
    (Reddi et al. 2018). As `torch.optim.Adam`.
    """

    name: ClassVar[str] = "Adam"
    decoupled: ClassVar[bool] = False
    amsgrad: bool = False

    def slots(self, param: TensorType) -> dict[str, Slot]:
        """`exp_avg`, `exp_avg_sq`, and `max_exp_avg_sq` for amsgrad."""
        largest = {"max_exp_avg_sq": Slot(param)} if self.amsgrad else {}
        return {**super().slots(param), **largest}

    def update(self, u: Update) -> Result:
        """The formula above; weight decay by the class."""
        grad = self.gradient(u, 0.0 if self.decoupled else self.weight_decay)
        first, second = self._averages(u, grad)
        slots = {"exp_avg": first, "exp_avg_sq": second}
        if self.amsgrad:
            slots["max_exp_avg_sq"] = second = u.slot("max_exp_avg_sq").maximum(second)
        short1, short2 = self._corrections(u)
        below = second.sqrt() * (1.0 / short2.sqrt()) + self.eps
        param = decayed(u, self.weight_decay) if self.decoupled else u.term(u.param)
        return u.results(param - (u.rate / short1) * (first / below), slots)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): `param *= 1 - lr * weight_decay` first.

    As `torch.optim.AdamW`.
    """

    name: ClassVar[str] = "AdamW"
    decoupled: ClassVar[bool] = True
    weight_decay: float = 1e-2


@dataclass(frozen=True)
class NAdam(Moments):
    """Adam with Nesterov momentum (Dozat 2016), as `torch.optim.NAdam`.

    The momentum of update t is `beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))`; `mu_product` is the product of all
    of them so far.
    """

    name: ClassVar[str] = "NAdam"
    lr: float = 2e-3
    momentum_decay: float = 4e-3
    decoupled_weight_decay: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("momentum_decay", self.momentum_decay, 0.0)

    def slots(self, param: TensorType) -> dict[str, Slot]:
        """`exp_avg`, `exp_avg_sq` and the scalar `mu_product`."""
        return {**super().slots(param), "mu_product": Slot(TensorType(DType.F64, ()), 1.0)}

    def update(self, u: Update) -> Result:
        """A step along the gradient and one along its average, each with its own bias correction."""
        decoupled = self.decoupled_weight_decay
        grad = self.gradient(u, 0.0 if decoupled else self.weight_decay)
        first, second = self._averages(u, grad)
        _, short2 = self._corrections(u)
        now, after = self._momentum(u.count), self._momentum(u.count + 1.0)
        product = u.slot("mu_product") * now
        below = (second * (1.0 / short2)).sqrt() + self.eps
        param = decayed(u, self.weight_decay) if decoupled else u.term(u.param)
        along = (u.rate * (1.0 - now) / (1.0 - product)) * grad
        along = along + (u.rate * after / (1.0 - product * after)) * first
        slots = {"exp_avg": first, "exp_avg_sq": second, "mu_product": product}
        return u.results(param - along / below, slots)

    def _momentum(self, count: Term) -> Term:
        return self.betas[0] * (1.0 - 0.5 * 0.96 ** (count * self.momentum_decay))


@dataclass(frozen=True)
class RAdam(Moments):
    """Rectified Adam (Liu et al. 2020), as `torch.optim.RAdam`.

    Divides by `sqrt(v)` only once enough gradients have been seen to trust it (rho > 5), and by how much it is to be
    trusted; momentum alone before.
    """

    name: ClassVar[str] = "RAdam"
    decoupled_weight_decay: bool = False

    def update(self, u: Update) -> Result:
        """All of the rectification is scalar arithmetic; one selection per element is left."""
        decoupled = self.decoupled_weight_decay
        grad = self.gradient(u, 0.0 if decoupled else self.weight_decay)
        first, second = self._averages(u, grad)
        short1, short2 = self._corrections(u)
        beta2 = self.betas[1]
        limit = 2.0 / (1.0 - beta2) - 1.0
        rho = limit - 2.0 * u.count * beta2**u.count / short2
        trusted = rho > 5.0
        scale = (limit - 4.0) * (limit - 2.0) / limit
        tame = rho.maximum(5.0)  # keeps the root real where its result is not used
        rectified = ((tame - 4.0) * (tame - 2.0) / tame / scale).sqrt() if limit > 5.0 else tame
        rate = u.rate / short1
        rate = trusted.where(rate * rectified * short2.sqrt(), rate)
        below = trusted.where(second.sqrt() + self.eps, 1.0)
        param = decayed(u, self.weight_decay) if decoupled else u.term(u.param)
        slots = {"exp_avg": first, "exp_avg_sq": second}
        return u.results(param - rate * (first / below), slots)
