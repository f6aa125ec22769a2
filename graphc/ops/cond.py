"""The choice between two computations that a run makes.

`Cond` computes one of two bodies, whichever the predicate says (`jax.lax.cond`, ONNX `If`); `select` computes both and
picks element by element. Its gradient is a choice between the bodies' gradients: see `cond_gradient.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, upper
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Value
from graphc.ir.interpret import run
from graphc.ir.op import Array, Op, OpError, Pattern
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops.bodies import flops_of
from graphc.ops.cond_gradient import cond_gradient
from graphc.ops.errors import plural


@dataclass(frozen=True)
class Cond(Op):
    """`on_true` where the predicate holds, else `on_false`; the other one does not run.

    Operands: the predicate (bool, a scalar), then captures: the inputs of both bodies, in order. Both bodies give
    results of the same types, which are the op's. A body may leave captures unread.
    """

    name: ClassVar[str] = "cond"
    pattern: ClassVar[Pattern] = Pattern.REGION
    family: ClassVar[str] = "region"
    on_true: Graph
    on_false: Graph

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The types that both bodies give.

        Raises OpError E0805 for a predicate that is no scalar of bool, E0201 for operands that are not the bodies'
        inputs, E0806 for bodies that give different types.
        """
        if not operands:
            raise OpError("cond takes a predicate")
        predicate, *captures = operands
        if predicate != TensorType(DType.BOOL, ()):
            raise OpError(f"cond chooses by a bool[] and got {predicate}", operand=0, code="E0805")
        results = []
        for body in self.regions:
            kinds = [n.types[0] for n in body.inputs]
            if len(kinds) != len(captures):
                raise OpError(f"cond takes {plural(len(kinds), 'capture')} and got {len(captures)}")
            for slot, (kind, got) in enumerate(zip(kinds, captures, strict=True)):
                if kind != got:
                    label = body.inputs[slot].op.attributes()["label"]
                    raise OpError(f"`{label}` of cond is {kind} and gets {got}", operand=slot + 1)
            results.append(tuple(body.type_of(v) for _, v in body.outputs))
        yes, no = results
        if yes != no:
            texts = [", ".join(map(str, types)) or "nothing" for types in results]
            raise OpError(f"the branches of cond give {texts[0]} and {texts[1]}", code="E0806")
        return yes

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The body that the predicate chooses, interpreted."""
        predicate, *captures = operands
        body = self.on_true if predicate.item() else self.on_false
        given = {n.values[0]: x for n, x in zip(body.inputs, captures, strict=True)}
        outputs = tuple(v for _, v in body.outputs)
        found = run(body, given, outputs)
        return tuple(np.array(found[v]) if v in given else found[v] for v in outputs)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """Those of the larger body."""
        return self.over_bodies([flops_of(body) for body in self.regions])

    def over_bodies(self, amounts: Sequence[DimLike]) -> DimLike:
        """The larger of the two."""
        return upper(*amounts)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """A choice between the gradients of the bodies, by the same predicate."""
        return cond_gradient(self, p)

    @property
    def regions(self) -> tuple[Graph, Graph]:
        """Both bodies."""
        return (self.on_true, self.on_false)
