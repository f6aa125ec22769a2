"""The body of a loop or a branch: planned like a graph of its own, launched kernel by kernel.

Operands of the outer kernel that kernels of the body want packed are packed outside, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from graphc.artifact.device import Address, Step
from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Node, Value
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.program import Function, Guards, functions_of, launches
from graphc.lowering.generic.bodies import checks
from graphc.lowering.packing import Packing
from graphc.lowering.plan import Needs, Place, Plan, make_plan
from graphc.lowering.verify import verify_plan
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
        bases: dict[int, int] = {}
        count = first_fault
        for node in self.graph.nodes:
            bases[node.id] = count
            count += sum(len(checks(region)) for region in node.op.regions)
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
    kernels: dict[int, Kernel] = {}
    packing: dict[int, Packing] = {}

    def needs(node: Node) -> Needs:
        assert isinstance(node.op, Fusion)
        outer = {s: packable[v] for s, v in enumerate(node.operands) if v in packable}
        kernel = select(node.op, frozenset(outer), setting)
        late = {s for s, p in kernel.packing.items() if p.write is None and outer[s] not in static}
        if late:
            kernel = select(node.op, frozenset(outer) - late, setting)
        kernels[node.id] = replace(kernel, alignment=setting.alignment)
        packing.update({outer[s]: p for s, p in kernel.packing.items() if s in outer})
        inside = {s: p for s, p in kernel.packing.items() if s not in outer}
        return Needs(
            kernel.scratch,
            {s: p.name for s, p in inside.items()},
            {s: p.write for s, p in inside.items() if p.write is not None},
        )

    plan = make_plan(body, needs, frozenset())
    verify_plan(body, plan)
    return Body(body, plan, tuple(functions_of(plan, kernels, prefix)), packing)


def moved(address: Address, offset: DimLike) -> Address:
    """The address so many bytes behind another."""
    return replace(address, offset=address.offset + offset)
