"""The whole update of a training step: from gradients to the next weights and the next state of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Scope, Value
from graphc.ir.op import Op
from graphc.ir.types import TensorType
from graphc.ops import arith
from graphc.optim.base import ArgumentError, Optimizer, Schedule, Slot, Update, check_range
from graphc.optim.formula import Term
from graphc.optim.groups import ParamGroup, optimizer_of
from graphc.optim.schedules import Fixed
from graphc.optim.transform import (
    accumulated,
    averaged,
    chosen,
    clip_grad_norm,
    clip_grad_value,
    grad_norm,
)

STEP = "step"
"""The state that counts the updates done so far, an i64 scalar."""

MICRO = "optimizer.micro_batch"
"""The state that counts the micro-batches gathered for the next update; only where gradients are accumulated."""


@dataclass(frozen=True)
class Applied:
    """What `Rule.apply` makes: next values by name, and two f64 scalars worth a look."""

    parameters: dict[str, Value]
    state: dict[str, Value]  # in the order of `Rule.state`
    rate: Value
    norm: Value


class _Sharing(GraphBuilder):
    """Appends to another builder, and nothing twice: rates and bias corrections are the same for all parameters."""

    def __init__(self, b: GraphBuilder) -> None:
        super().__init__(b.name, b.dims)
        self.nodes, self._scope, self._span = b.nodes, b._scope, b._span
        self._made: dict[tuple[Op, tuple[Value, ...]], tuple[Value, ...]] = {}

    def emit(self, op: Op, *operands: Value) -> tuple[Value, ...]:
        """The results of the same application made before, or a new one's."""
        key = (op, operands)
        if key not in self._made:
            self._made[key] = super().emit(op, *operands)
        return self._made[key]


@dataclass(frozen=True)
class Rule:
    """An optimizer with all that goes with it.

    Gradients are averaged over `accumulate` micro-batches, clipped to `clip_value` each and to `clip_norm` together,
    and go to the optimizer of their group at the rate of the schedule. `ema` is the decay of a moving average of the
    weights, kept beside them. The state, by name:

    `step`; `optimizer.<slot>.<path>`; `ema.<path>`; `optimizer.grad.<path>` and `optimizer.micro_batch`.
    """

    optimizer: Optimizer
    schedule: Schedule = field(default_factory=Fixed)
    groups: tuple[ParamGroup, ...] = ()
    clip_norm: float | None = None
    clip_value: float | None = None
    ema: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        for argument in ("clip_norm", "clip_value"):
            value = getattr(self, argument)
            if value is not None:
                check_range(argument, value, 0.0, open_low=True)
        if self.ema is not None:
            check_range("ema", self.ema, 0.0, 1.0)
        if self.accumulate < 1:
            raise ArgumentError("accumulate", f"has to be at least 1 and is {self.accumulate}")

    def state(self, parameters: Mapping[str, TensorType]) -> dict[str, Slot]:
        """All state for these trainable parameters, by name, in a fixed order.

        Raises ArgumentError for a group that overrides what the optimizer does not have.
        """
        found = {STEP: Slot(TensorType(DType.I64, ()))}
        if self.accumulate > 1:
            found[MICRO] = Slot(TensorType(DType.I64, ()))
        for path, type in parameters.items():
            own = optimizer_of(self.optimizer, self.groups, path, type)
            for name, slot in own.slots(type).items():
                found[f"optimizer.{name}.{path}"] = slot
            if self.accumulate > 1:
                found[f"optimizer.grad.{path}"] = Slot(type)
            if self.ema is not None:
                found[f"ema.{path}"] = Slot(type)
        return found

    def apply(
        self,
        b: GraphBuilder,
        parameters: Mapping[str, Value],
        gradients: Mapping[str, Value],
        state: Mapping[str, Value],
    ) -> Applied:
        """Appends one update: `gradients` by the names of `parameters`, `state` by those of `state()`.

        `rate` is the learning rate of parameters outside of the groups, `norm` the 2-norm of the averaged gradients
        before they are clipped to it. In a step that only accumulates, everything but the sums stays as it is.
        """
        with b.at((Scope("optimizer", self.optimizer.name),), None):
            return self._apply(_Sharing(b), parameters, dict(gradients), state)

    def _apply(
        self,
        b: GraphBuilder,
        parameters: Mapping[str, Value],
        grads: dict[str, Value],
        state: Mapping[str, Value],
    ) -> Applied:
        next_state: dict[str, Value] = {}
        due: Value | None = None
        done = state[STEP]
        if self.accumulate > 1:
            due, grads = self._gather(b, grads, state, next_state)
        if self.clip_value is not None:
            clipped = clip_grad_value(b, list(grads.values()), self.clip_value)
            grads = dict(zip(grads, clipped, strict=True))
        norm = grad_norm(b, list(grads.values()))
        if self.clip_norm is not None:
            clipped, norm = clip_grad_norm(b, list(grads.values()), self.clip_norm)
            grads = dict(zip(grads, clipped, strict=True))
        step = arith.add(b, done, 1)
        fresh: dict[str, Value] = {STEP: step}
        rates: dict[float, Value] = {}
        updated: dict[str, Value] = {}
        for path, param in parameters.items():
            own = optimizer_of(self.optimizer, self.groups, path, b.type_of(param))
            if own.lr not in rates:
                rates[own.lr] = self.schedule.rate(b, done, own.lr)
            prefix = {name: f"optimizer.{name}.{path}" for name in own.slots(b.type_of(param))}
            slots = {name: state[full] for name, full in prefix.items()}
            u = Update(b, param, grads[path], slots, rates[own.lr], step)
            updated[path], new = own.update(u)
            fresh |= {prefix[name]: value for name, value in new.items()}
            if self.ema is not None:
                name = f"ema.{path}"
                fresh[name] = averaged(b, state[name], updated[path], step, self.ema)
        if due is not None:
            updated = {k: chosen(b, due, v, parameters[k]) for k, v in updated.items()}
            fresh = {k: chosen(b, due, v, state[k]) for k, v in fresh.items()}
        lr = self.optimizer.lr
        rate = rates[lr] if lr in rates else self.schedule.rate(b, done, lr)
        found = {**next_state, **fresh}
        names = self.state({path: b.type_of(v) for path, v in parameters.items()})
        return Applied(updated, {name: found[name] for name in names}, rate, norm)

    def _gather(
        self,
        b: GraphBuilder,
        grads: Mapping[str, Value],
        state: Mapping[str, Value],
        next_state: dict[str, Value],
    ) -> tuple[Value, dict[str, Value]]:
        """Whether an update is due, and the means to do it with; the sums start again after it."""
        count = Term(b, state[MICRO]) + 1
        due = count >= self.accumulate
        next_state[MICRO] = due.where(count * 0, count).value
        sums = {}
        for path, grad in grads.items():
            name = f"optimizer.grad.{path}"
            sums[path] = accumulated(b, state[name], grad, self.accumulate)
            zero = arith.constant(b, 0.0, b.type_of(grad).dtype)
            empty = arith.broadcast_to(b, zero, b.type_of(grad).shape)
            next_state[name] = chosen(b, due.value, empty, sums[path])
        return due.value, sums
