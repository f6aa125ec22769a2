"""The body of a loop or a branch: planned like a graph of its own, launched kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from graphc.artifact.device import Address, Step
from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Value
from graphc.lowering.body import first_faults, plan_inside
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.program import Function, Guards, functions_of, launches
from graphc.lowering.generic.bodies import checks
from graphc.lowering.packing import Packing
from graphc.lowering.plan import Place, Plan
from graphc.ops import Fusion

__all__ = ["Body", "Select", "moved", "plan_body"]

Select = Callable[[Fusion, frozenset[int], Setting], Kernel]


@dataclass(frozen=True, eq=False)
class Body:
    """A planned body: `functions` run parallel to the plan's calls, `packing` is by operand of the outer kernel."""

    graph: Graph
    plan: Plan
    functions: tuple[Function, ...]
    packing: Mapping[int, Packing]

    @property
    def faults(self) -> int:
        """How many fault ids the body takes."""
        return len(checks(self.graph))

    def launches(
        self,
        function: Function,
        address: Callable[[Place], Address],
        first_fault: int,
        guards: Guards,
    ) -> Iterator[Step]:
        """The launches of the body inside of `function`; its fault ids begin with `first_fault`."""
        bases = first_faults(self.graph, first_fault)
        for call, part in zip(self.plan.calls, self.functions, strict=True):
            id = bases.get(call.node.id, first_fault)
            yield from launches(call, function.part(part), address, id, guards)


def plan_body(
    body: Graph,
    packable: Mapping[Value, int],
    static: frozenset[int],
    setting: Setting,
    select: Select,
    prefix: str = "",
) -> Body:
    """Plans a body and selects its kernels, whose symbols begin with `prefix`.

    `packable` are inputs of the body that may be packed outside, and the operands of the outer kernel that they are;
    `static` are the operands known when the module is built.
    """

    def chosen(fusion: Fusion, known: frozenset[int]) -> Kernel:
        return replace(select(fusion, known, setting), alignment=setting.alignment)

    plan, kernels, packing = plan_inside(body, packable, static, chosen)
    return Body(body, plan, tuple(functions_of(plan, kernels, prefix)), packing)


def moved(address: Address, offset: DimLike) -> Address:
    """The address so many bytes behind another."""
    return replace(address, offset=address.offset + offset)
