"""A cond as launches: those of both bodies, whose kernels do nothing where the predicate says so.

The host does not know the predicate, and does not wait for it: each kernel reads it first. The bodies share their
scratch memory and their results, since one of them runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from graphc.artifact.device import Address, Step
from graphc.lowering.body import larger, plan_branches
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
    yes, no = plan_branches(
        op,
        static,
        lambda body, packable, prefix: plan_body(body, packable, static, setting, select, prefix),
    )
    scratch = larger(op, yes.plan.arena.size, no.plan.arena.size)
    packing = {**yes.packing, **no.packing}
    return Kernel("cond", (), scratch, packing, inside=Choice(yes, no))


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
