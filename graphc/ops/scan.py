"""The loop that exists at run time.

`Scan` runs a body once for each index of the leading axis of its sequences and hands carries from one step to the
next (`jax.lax.scan`, ONNX `Scan`). Its gradient is another scan, in the other direction: see `scan_gradient.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Value
from graphc.ir.interpret import run
from graphc.ir.op import Array, Op, OpError, Pattern
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops.bodies import flops_of
from graphc.ops.errors import plural
from graphc.ops.scan_gradient import scan_gradient


@dataclass(frozen=True)
class Scan(Op):
    """One application of `body` per step, over `length` steps; the last step comes first when `reverse`.

    Operands: `sequences` values with a leading axis of `length`, the initial values of `carries`, and captures, which
    are the same at every step. The body's inputs are, in that order, the sequences' elements at the step, the carries
    and the captures. The body's outputs are the carries' next values, then what the step emits. Results: the carries
    after the last step, then each emitted value stacked along a new leading axis, where element t is from the step
    that read element t (also when reversed). No step at all gives the initial carries and empty stacks.
    """

    name: ClassVar[str] = "scan"
    pattern: ClassVar[Pattern] = Pattern.REGION
    family: ClassVar[str] = "region"
    body: Graph
    length: DimLike
    sequences: int
    carries: int
    reverse: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """What the body calls its inputs."""
        return tuple(str(n.op.attributes()["label"]) for n in self.body.inputs)

    @property
    def steps(self) -> tuple[Value, ...]:
        """The body's inputs that are elements of sequences."""
        return self._inputs[: self.sequences]

    @property
    def carried(self) -> tuple[Value, ...]:
        """The body's inputs that are carries."""
        return self._inputs[self.sequences : self.sequences + self.carries]

    @property
    def captured(self) -> tuple[Value, ...]:
        """The body's inputs that are the same at every step."""
        return self._inputs[self.sequences + self.carries :]

    @property
    def _inputs(self) -> tuple[Value, ...]:
        return tuple(n.values[0] for n in self.body.inputs)

    @property
    def next(self) -> tuple[Value, ...]:
        """The body's outputs that are carries' next values."""
        return tuple(v for _, v in self.body.outputs[: self.carries])

    @property
    def emitted(self) -> tuple[Value, ...]:
        """The body's outputs that are stacked."""
        return tuple(v for _, v in self.body.outputs[self.carries :])

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """Carries' types, then the emitted values' with `length` in front.

        Raises OpError E0201 for a wrong number of operands, E0215 for a sequence of another length, E0801 for a carry
        that changes its type from one step to the next.
        """
        kinds = [self.body.type_of(v) for v in self._inputs]
        if len(kinds) != len(operands):
            raise OpError(
                f"scan takes {plural(len(kinds), 'operand')} and got {len(operands)}",
            )
        for slot, (kind, got) in enumerate(zip(kinds, operands, strict=True)):
            label = self.labels[slot]
            if slot < self.sequences:
                if got.rank == 0 or got.shape[0] != self.length:
                    raise OpError(
                        f"scan goes over {plural_steps(self.length)}, and the sequence of `{label}` is {got}",
                        operand=slot,
                        code="E0215",
                    )
                got = got.with_shape(got.shape[1:])
            if kind != got:
                raise OpError(f"`{label}` of scan is {kind} and gets {got}", operand=slot)
        results = [self.body.type_of(v) for _, v in self.body.outputs]
        if len(results) < self.carries:
            raise OpError(f"scan has {self.carries} carries and {len(results)} next values")
        first = self.sequences
        for slot in range(self.carries):
            before, after = kinds[first + slot], results[slot]
            if before != after:
                label = self.labels[first + slot]
                raise OpError(
                    f"the carry `{label}` starts as {before} and is {after} after a step",
                    operand=first + slot,
                    code="E0801",
                )
        stacked = [t.with_shape((self.length, *t.shape)) for t in results[self.carries :]]
        return (*results[: self.carries], *stacked)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The steps, interpreted one after another."""
        assert isinstance(self.length, int)
        outputs = (*self.next, *self.emitted)
        carries = operands[self.sequences : self.sequences + self.carries]
        given = dict(zip(self.captured, operands[self.sequences + self.carries :], strict=True))
        types = [self.body.type_of(v) for v in self.emitted]
        stacks = [np.empty((self.length, *t.concrete({})), t.dtype.numpy) for t in types]
        order = range(self.length)
        for t in reversed(order) if self.reverse else order:
            given.update(zip(self.steps, (x[t] for x in operands[: self.sequences]), strict=True))
            given.update(zip(self.carried, carries, strict=True))
            found = run(self.body, given, outputs)
            carries = tuple(found[v] for v in self.next)
            for stack, value in zip(stacks, self.emitted, strict=True):
                stack[t] = found[value]
        return (*(np.array(c) for c in carries), *stacks)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """Those of the body, once a step."""
        return self.over_bodies([flops_of(self.body)])

    def over_bodies(self, amounts: Sequence[DimLike]) -> DimLike:
        """As many times as there are steps."""
        return amounts[0] * self.length

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """A scan the other way round over what the steps saved."""
        return scan_gradient(self, p)

    @property
    def regions(self) -> tuple[Graph, ...]:
        """The body."""
        return (self.body,)


def plural_steps(length: DimLike) -> str:
    """`1 step`, `T steps`."""
    return plural(length, "step") if isinstance(length, int) else f"{length} steps"
