"""A cond as one kernel: it reads the predicate and calls the kernels of one body or of the other.

The bodies share their scratch memory, since one of them runs. Captures known when the module is built are packed then;
what else a body wants packed it packs itself, so that the other body does not pay for it.
"""

from __future__ import annotations

from typing import Any

from graphc.lowering.body import larger, plan_branches
from graphc.lowering.cpu.body import Body, Select, plan_body
from graphc.lowering.cpu.emit import branch
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.plan import Place
from graphc.ops import Cond


def select_cond(op: Cond, static: frozenset[int], target: CpuTarget, select: Select) -> Kernel:
    """The kernel of a choice.

    `static` are the operands known when the module is built; `select` finds the bodies' kernels.
    """
    yes, no = plan_branches(
        op,
        static,
        lambda body, packable, prefix: plan_body(body, packable, static, target, select, prefix),
    )

    def emit(io: KernelIO) -> None:
        branch(
            io.operands[0].load(()),
            lambda: _run(yes, io, 0),
            lambda: _run(no, io, yes.faults),
        )

    scratch = larger(op, yes.plan.arena.size, no.plan.arena.size)
    packing = {**yes.packing, **no.packing}
    return Kernel("cond", emit, scratch, "uint8", packing, (*yes.parts, *no.parts))


def _run(body: Body, io: KernelIO, first_fault: int) -> None:
    def address(place: Place) -> Any:
        if place.space == "arena":
            assert io.scratch is not None
            return io.scratch.address((dim_expr(place.offset, io.dims),))
        view = io.operands[place.index + 1] if place.space == "input" else io.results[place.index]
        return view.address((0,) * len(view.strides))

    body.emit(io, address, first_fault)


__all__ = ["select_cond"]
