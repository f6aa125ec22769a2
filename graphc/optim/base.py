"""What an optimizer and a schedule are: frozen dataclasses of arguments that write the ops of one update.

The fields are PyTorch's arguments with PyTorch's defaults. Nothing here computes: `update` and `rate` append nodes to
the graph of a training step. All of an update is elementwise on the parameter's shape apart from scalars, so that one
kernel can do it in place; scalars (rates, bias corrections) are computed in f64, as PyTorch does on the host, and
converted to the parameter's element type once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.types import TensorType
from graphc.ops import arith
from graphc.ops.numerics import working
from graphc.optim.formula import Term


class ArgumentError(ValueError):
    """An argument of an optimizer or schedule has a value it cannot have; `argument` is its name."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(f"`{argument}` {message}")
        self.argument, self.message = argument, message


@dataclass(frozen=True)
class Slot:
    """One tensor of state that an optimizer keeps beside a parameter: its type and what it starts as."""

    type: TensorType
    init: float = 0.0


@dataclass(frozen=True)
class Update:
    """What `Optimizer.update` works with.

    `grad` has the parameter's type; `lr` is an f64 scalar; `step` an i64 scalar, 1 in the first update. `slots` holds
    the state by the names of `Optimizer.slots`.
    """

    b: GraphBuilder
    param: Value
    grad: Value
    slots: Mapping[str, Value]
    lr: Value
    step: Value

    def term(self, value: Value) -> Term:
        """A value for a formula; half precision is computed in f32."""
        wide = working(self.b.type_of(value).dtype)
        return Term(self.b, arith.convert(self.b, value, wide))

    def slot(self, name: str) -> Term:
        """A slot for a formula."""
        return self.term(self.slots[name])

    @property
    def rate(self) -> Term:
        """The learning rate, an f64 scalar."""
        return self.term(self.lr)

    @property
    def count(self) -> Term:
        """`step` as an f64 scalar, for bias corrections."""
        return self.term(self.step).astype(DType.F64)

    def results(self, param: Term, slots: Mapping[str, Term]) -> Result:
        """The new parameter and slots in the types of the old ones."""

        def like(old: Value, new: Term) -> Value:
            return arith.convert(self.b, new.value, self.b.type_of(old).dtype)

        return like(self.param, param), {k: like(self.slots[k], v) for k, v in slots.items()}


Result = tuple[Value, dict[str, Value]]
"""The new parameter and the new slots, by name."""


@dataclass(frozen=True)
class Optimizer(ABC):
    """Base of the optimizers. `lr` is the learning rate before any schedule; `maximize` goes uphill."""

    name: ClassVar[str] = ""
    lr: float
    maximize: bool = field(default=False, kw_only=True)

    @abstractmethod
    def slots(self, param: TensorType) -> dict[str, Slot]:
        """The state kept for a parameter of this type, by PyTorch's names (`exp_avg`, `momentum_buffer`, ...)."""

    @abstractmethod
    def update(self, u: Update) -> Result:
        """One update of one parameter: its next value, and that of every slot."""

    def gradient(self, u: Update, weight_decay: float = 0.0) -> Term:
        """The gradient to go down, with the L2 penalty's `weight_decay * param` where that is wanted."""
        grad = u.term(u.grad)
        if self.maximize:
            grad = -grad
        return grad + weight_decay * u.term(u.param) if weight_decay else grad


@dataclass(frozen=True)
class Schedule(ABC):
    """Base of the schedules: the learning rate of every update."""

    name: ClassVar[str] = ""

    @abstractmethod
    def rate(self, b: GraphBuilder, step: Value, lr: float) -> Value:
        """The rate as an f64 scalar. `step` is an i64 scalar, 0 for the first update (PyTorch's `last_epoch`)."""

    @property
    def length(self) -> int | None:
        """How many updates pass before a schedule chained after this one takes over; None: it never ends."""
        return None


def decayed(u: Update, weight_decay: float) -> Term:
    """The parameter after decoupled weight decay, `param * (1 - lr * weight_decay)` (Loshchilov & Hutter 2019)."""
    param = u.term(u.param)
    return param * (1.0 - u.rate * weight_decay) if weight_decay else param


def check_range(
    argument: str,
    value: float,
    low: float,
    high: float | None = None,
    *,
    open_low: bool = False,
    open_high: bool = True,
) -> None:
    """Raises ArgumentError unless `low <= value < high`; either end may be open or closed. NaN fails."""
    above = value > low if open_low else value >= low
    below = high is None or (value < high if open_high else value <= high)
    if not (above and below):
        wanted = f"more than {low:g}" if open_low else f"at least {low:g}"
        if high is not None:
            wanted += f" and {'less than' if open_high else 'at most'} {high:g}"
        raise ArgumentError(argument, f"has to be {wanted} and is {value:g}")
