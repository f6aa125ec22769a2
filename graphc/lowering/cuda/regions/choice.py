"""A cond as launches: those of both bodies, whose kernels do nothing where the predicate says so.

The host does not know the predicate, and does not wait for it: each kernel reads it first. The bodies share their
scratch memory and their results, since one of them runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from graphc.artifact.device import Address, Step
from graphc.ir.dim import DimLike, proves_ge
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.program import Function, Guards
from graphc.lowering.cuda.regions.body import Body, Select, moved, plan_body
from graphc.lowering.plan import Call, Place
from graphc.ops import Cond

__all__ = ["select_cond"]


def select_cond(op: Cond, static: frozenset[int], setting: Setting, select: Select) -> Kernel:
    """The kernel of a choice.

    `static` are the operands known when the module is built; `select` finds the bodies' kernels.
    """
    bodies = []
    for body, prefix in zip(op.regions, ("true_", "false_"), strict=True):
        known = {n.values[0]: i for i, n in enumerate(body.inputs, 1) if i in static}
        packable = {v: i for v, i in known.items() if body.type_of(v).is_static}
        bodies.append(plan_body(body, packable, static, setting, select, prefix))
    yes, no = bodies
    scratch = _larger(op, yes.plan.arena.size, no.plan.arena.size)
    packing = {**yes.packing, **no.packing}
    return Kernel("cond", (), scratch, packing, inside=Choice(yes, no))


def _larger(op: Cond, a: DimLike, b: DimLike) -> DimLike:
    """The larger of two sizes; their sum where it depends on the run which that is."""
    bounds = {**op.on_true.dims, **op.on_false.dims}
    if proves_ge(a, b, bounds):
        return a
    return b if proves_ge(b, a, bounds) else a + b


@dataclass(frozen=True, eq=False)
class Choice:
    """What a cond launches."""

    yes: Body
    no: Body
    guards: int = 1

    @property
    def parts(self) -> tuple[Function, ...]:
        """The functions it launches."""
        return (*self.yes.functions, *self.no.functions)

    def steps(
        self,
        call: Call,
        function: Function,
        address: Callable[[Place], Address],
        fault_id: int,
        guards: Guards,
    ) -> Iterator[Step]:
        """The launches of both bodies; see `program.launches`."""

        def inside(place: Place) -> Address:
            if place.space == "arena":
                assert call.scratch is not None
                return moved(address(call.scratch), place.offset)
            if place.space == "input":
                return address(call.operands[place.index + 1])
            return address(call.results[place.index])

        predicate = address(call.operands[0])
        for body, wanted, first in ((self.yes, 1, 0), (self.no, 0, self.yes.faults)):
            asked = (*guards, (predicate, wanted))
            yield from body.launches(function, inside, fault_id + first, asked)
