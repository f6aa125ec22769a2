"""LAMB: Adam with a rate for each parameter, for large batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.optim.adam import Moments
from graphc.optim.base import Result, Update


@dataclass(frozen=True)
class Lamb(Moments):
    """LAMB (You et al. 2020): AdamW's step, scaled for each parameter by `norm(param) / norm(step)`; for large batches.

    The step is `m / (sqrt(v) + eps) + weight_decay * param` with bias-corrected averages; the scale is 1 where a norm
    is 0. Algorithm 2 of the paper; defaults of the authors' code.
    """

    name: ClassVar[str] = "Lamb"
    eps: float = 1e-6
    weight_decay: float = 1e-2

    def update(self, u: Update) -> Result:
        """The formula above; its norms are the only thing here that is not elementwise."""
        param = u.term(u.param)
        first, second = self._averages(u, self.gradient(u))
        short1, short2 = self._corrections(u)
        step = (1.0 / short1) * first / (second.sqrt() * (1.0 / short2.sqrt()) + self.eps)
        if self.weight_decay:
            step = step + self.weight_decay * param
        size, length = param.norm(), step.norm()
        trust = (length > 0.0).where((size > 0.0).where(size / length, 1.0), 1.0)
        slots = {"exp_avg": first, "exp_avg_sq": second}
        return u.results(param - u.rate * trust * step, slots)
