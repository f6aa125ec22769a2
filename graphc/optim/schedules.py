"""Schedules of the learning rate: PyTorch's `lr_scheduler`s as functions of the number of updates done.

`t` below is that number: 0 in the first update. All is scalar f64 arithmetic in the graph of the step, exact in t (no
recurrence, so a run that is resumed gets the very same rates).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import Constant, arith
from graphc.optim.base import ArgumentError, Schedule, check_range
from graphc.optim.formula import Term


def _positive(argument: str, value: int) -> None:
    if value < 1:
        raise ArgumentError(argument, f"has to be at least 1 and is {value}")


def _number(b: GraphBuilder, value: float) -> Term:
    return Term(b, arith.constant(b, value, DType.F64))


class _Formula(Schedule):
    """Base of schedules that are a formula of t."""

    @abstractmethod
    def at(self, t: Term, lr: float) -> Term:
        """The rate; `t` is an f64 scalar."""

    def rate(self, b: GraphBuilder, step: Value, lr: float) -> Value:
        """The formula at `step`."""
        return self.at(Term(b, arith.convert(b, step, DType.F64)), lr).value


@dataclass(frozen=True)
class Fixed(_Formula):
    """The same rate always: what holds without a schedule."""

    name: ClassVar[str] = "fixed"

    def at(self, t: Term, lr: float) -> Term:
        """lr."""
        return _number(t.b, lr)


@dataclass(frozen=True)
class ConstantFactor(_Formula):
    """`lr * factor` for `total_iters` updates, then `lr`. As `torch.optim.lr_scheduler.ConstantLR`."""

    name: ClassVar[str] = "constant"
    factor: float = 1.0 / 3.0
    total_iters: int = 5

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 0.0, 1.0, open_high=False)
        check_range("total_iters", self.total_iters, 0.0)

    def at(self, t: Term, lr: float) -> Term:
        """A step up at `total_iters`."""
        return (t < float(self.total_iters)).where(_number(t.b, lr * self.factor), lr)

    @property
    def length(self) -> int:
        """`total_iters`."""
        return self.total_iters


@dataclass(frozen=True)
class Step(_Formula):
    """`lr * gamma ** (t // step_size)`. As `torch.optim.lr_scheduler.StepLR`."""

    name: ClassVar[str] = "step"
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _positive("step_size", self.step_size)
        check_range("gamma", self.gamma, 0.0, open_low=True)

    def at(self, t: Term, lr: float) -> Term:
        """The formula above."""
        return lr * self.gamma ** (t // float(self.step_size))


@dataclass(frozen=True)
class MultiStep(_Formula):
    """`lr * gamma ** k`, k the number of `milestones` reached. As `torch.optim.lr_scheduler.MultiStepLR`."""

    name: ClassVar[str] = "multi_step"
    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        for milestone in self.milestones:
            check_range("milestones", milestone, 0.0)
        if len(self.milestones) > 4096:
            raise ArgumentError("milestones", "are more than 4096")
        check_range("gamma", self.gamma, 0.0, open_low=True)

    def at(self, t: Term, lr: float) -> Term:
        """All milestones are compared at once."""
        if not self.milestones:
            return _number(t.b, lr)
        places = Term(t.b, t.b(Constant.of(np.array(self.milestones, np.float64))))
        return lr * self.gamma ** (places <= t).astype(DType.F64).sum()


@dataclass(frozen=True)
class Exponential(_Formula):
    """`lr * gamma ** t`. As `torch.optim.lr_scheduler.ExponentialLR`."""

    name: ClassVar[str] = "exponential"
    gamma: float

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, 0.0, open_low=True)

    def at(self, t: Term, lr: float) -> Term:
        """The formula above."""
        return lr * self.gamma**t


def _half_wave(part: Term, start: float, end: float) -> Term:
    """From `start` at 0 to `end` at 1 along half a cosine."""
    return end + (start - end) / 2.0 * (1.0 + (part * math.pi).cos())


@dataclass(frozen=True)
class Cosine(_Formula):
    """From `lr` down to `eta_min` along half a cosine of `total` updates (Loshchilov & Hutter 2017).

    Goes up again after that, as `torch.optim.lr_scheduler.CosineAnnealingLR` with `T_max=total` does.
    """

    name: ClassVar[str] = "cosine"
    total: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        _positive("total", self.total)
        check_range("eta_min", self.eta_min, 0.0)

    def at(self, t: Term, lr: float) -> Term:
        """`eta_min + (lr - eta_min) * (1 + cos(pi * t / total)) / 2`."""
        return _half_wave(t / float(self.total), lr, self.eta_min)

    @property
    def length(self) -> int:
        """`total`."""
        return self.total


@dataclass(frozen=True)
class CosineRestarts(_Formula):
    """`cosine` again and again, each `T_mult` times as long as the one before (Loshchilov & Hutter 2017).

    The first takes `T_0` updates. As `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.
    """

    name: ClassVar[str] = "cosine_restarts"
    T_0: int
    T_mult: int = 1
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        _positive("T_0", self.T_0)
        _positive("T_mult", self.T_mult)
        check_range("eta_min", self.eta_min, 0.0)

    def at(self, t: Term, lr: float) -> Term:
        """Starts are whole numbers and exact: the last one that t has reached is the running cycle's."""
        first, factor = float(self.T_0), self.T_mult
        if factor == 1:
            return _half_wave(t % first / first, lr, self.eta_min)
        starts, length = [0], self.T_0
        while starts[-1] < 2**53:  # f64 counts no further
            starts.append(starts[-1] + length)
            length *= factor
        each = Term(t.b, t.b(Constant.of(np.array(starts, np.float64))))
        start = (each <= t).where(each, 0.0).max()
        return _half_wave((t - start) / (start * (factor - 1.0) + first), lr, self.eta_min)


@dataclass(frozen=True)
class Linear(_Formula):
    """From `lr * start_factor` to `lr * end_factor` on a straight line of `total_iters` updates; then it stays.

    As `torch.optim.lr_scheduler.LinearLR`.
    """

    name: ClassVar[str] = "linear"
    start_factor: float = 1.0 / 3.0
    end_factor: float = 1.0
    total_iters: int = 5

    def __post_init__(self) -> None:
        check_range("start_factor", self.start_factor, 0.0, 1.0, open_low=True, open_high=False)
        check_range("end_factor", self.end_factor, 0.0, 1.0, open_high=False)
        _positive("total_iters", self.total_iters)

    def at(self, t: Term, lr: float) -> Term:
        """The formula above."""
        part = t.minimum(float(self.total_iters)) / float(self.total_iters)
        return lr * (self.start_factor + (self.end_factor - self.start_factor) * part)

    @property
    def length(self) -> int:
        """`total_iters`."""
        return self.total_iters


@dataclass(frozen=True)
class Warmup(_Formula):
    """From `lr * start_factor` up to `lr` on a straight line of `total` updates; another schedule follows.

    `warmup(200) -> cosine(total=4000)` is PyTorch's `SequentialLR` of a `LinearLR` and a `CosineAnnealingLR`, with the
    start factor of torchvision's training recipes.
    """

    name: ClassVar[str] = "warmup"
    total: int
    start_factor: float = 0.01

    def __post_init__(self) -> None:
        _positive("total", self.total)
        check_range("start_factor", self.start_factor, 0.0, 1.0, open_high=False)

    def at(self, t: Term, lr: float) -> Term:
        """The formula above."""
        part = t.minimum(float(self.total)) / float(self.total)
        return lr * (self.start_factor + (1.0 - self.start_factor) * part)

    @property
    def length(self) -> int:
        """`total`."""
        return self.total


@dataclass(frozen=True)
class Polynomial(_Formula):
    """`lr * (1 - t / total_iters) ** power`, and 0 after that. As `torch.optim.lr_scheduler.PolynomialLR`."""

    name: ClassVar[str] = "polynomial"
    total_iters: int = 5
    power: float = 1.0

    def __post_init__(self) -> None:
        _positive("total_iters", self.total_iters)
        check_range("power", self.power, 0.0)

    def at(self, t: Term, lr: float) -> Term:
        """The formula above."""
        left = 1.0 - t.minimum(float(self.total_iters)) / float(self.total_iters)
        return lr * (left if self.power == 1.0 else left**self.power)

    @property
    def length(self) -> int:
        """`total_iters`."""
        return self.total_iters


@dataclass(frozen=True)
class OneCycle(_Formula):
    """Up to `max_lr` for `pct_start` of `total_steps`, then down far below the start (Smith & Topin 2017).

    Starts at `max_lr / div_factor`, ends at that `/ final_div_factor`; `three_phase` comes down to the start first.
    `max_lr` is the optimizer's `lr` where it is not given. As `torch.optim.lr_scheduler.OneCycleLR`, but momentum is
    not cycled, and the last rate stays where PyTorch refuses to go on.
    """

    name: ClassVar[str] = "one_cycle"
    total_steps: int
    max_lr: float | None = None
    pct_start: float = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        _positive("total_steps", self.total_steps)
        if self.max_lr is not None:
            check_range("max_lr", self.max_lr, 0.0)
        check_range("pct_start", self.pct_start, 0.0, 1.0, open_high=False)
        check_range("div_factor", self.div_factor, 0.0, open_low=True)
        check_range("final_div_factor", self.final_div_factor, 0.0, open_low=True)

    def at(self, t: Term, lr: float) -> Term:
        """Phases one after another, each annealed from one rate to the next."""
        top = lr if self.max_lr is None else self.max_lr
        start = top / self.div_factor
        last = start / self.final_div_factor
        up, end = self.pct_start * self.total_steps - 1.0, self.total_steps - 1.0
        phases = [(up, start, top)]
        if self.three_phase:
            phases.append((2.0 * self.pct_start * self.total_steps - 2.0, top, start))
            phases.append((end, start, last))
        else:
            phases.append((end, top, last))
        begins = [0.0, *(stop for stop, _, _ in phases[:-1])]
        rates = []
        for begin, (stop, low, high) in zip(begins, phases, strict=True):
            part = (t - begin).maximum(0.0).minimum(stop - begin) / (stop - begin or 1.0)
            line = self.anneal_strategy == "linear"
            rates.append(low + (high - low) * part if line else _half_wave(part, low, high))
        found = rates[-1]
        for (stop, _, _), rate in reversed(list(zip(phases[:-1], rates[:-1], strict=True))):
            found = (t <= stop).where(rate, found)
        return found

    @property
    def length(self) -> int:
        """`total_steps`."""
        return self.total_steps


@dataclass(frozen=True)
class Chain(Schedule):
    """Schedules one after another, each counting from its own start: `a -> b -> c` in a file.

    All but the last one need an end. As `torch.optim.lr_scheduler.SequentialLR` with the ends as milestones.
    """

    name: ClassVar[str] = "chain"
    stages: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ArgumentError("stages", "needs at least one schedule")
        for stage in self.stages[:-1]:
            if stage.length is None:
                raise ArgumentError("stages", f"cannot go on after {stage.name}, which never ends")

    def rate(self, b: GraphBuilder, step: Value, lr: float) -> Value:
        """The rate of the stage that `step` falls in."""
        begins, t = _begins(self.stages), Term(b, step)
        rates = [
            Term(b, stage.rate(b, (t - begin).maximum(0).value, lr))
            for begin, stage in zip(begins, self.stages, strict=True)
        ]
        found = rates[-1]
        for begin, rate in reversed(list(zip(begins[1:], rates[:-1], strict=True))):
            found = (t < begin).where(rate, found)
        return found.value

    @property
    def length(self) -> int | None:
        """The sum, where the last stage ends too."""
        last = self.stages[-1].length
        return None if last is None else _begins(self.stages)[-1] + last


def _begins(stages: Sequence[Schedule]) -> list[int]:
    """At which update each stage begins."""
    found = [0]
    for stage in stages[:-1]:
        found.append(found[-1] + (stage.length or 0))
    return found
