"""The body of a loop or a branch inside a kernel: planned like a graph of its own, emitted as calls of its kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphc.ir.graph import Graph, Value
from graphc.lowering.body import first_faults, plan_inside
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel
from graphc.lowering.cpu.program import Function, call_kernel, functions_of
from graphc.lowering.generic.bodies import checks
from graphc.lowering.packing import Packing
from graphc.lowering.plan import Place, Plan
from graphc.ops import Fusion

Select = Callable[[Fusion, frozenset[int], CpuTarget], Kernel]


@dataclass(frozen=True)
class Body:
    """A planned body: `functions` run parallel to the plan's calls, `packing` is by operand of the outer kernel."""

    graph: Graph
    plan: Plan
    functions: tuple[Function, ...]
    packing: Mapping[int, Packing]

    @property
    def parts(self) -> tuple[Function, ...]:
        """The distinct functions."""
        return tuple(dict.fromkeys(self.functions))

    @property
    def faults(self) -> int:
        """How many fault ids the body takes."""
        return len(checks(self.graph))

    def emit(self, io: KernelIO, address: Callable[[Place], Any], first_fault: int = 0) -> None:
        """Emits the calls; `first_fault` counts from the outer kernel's first fault id."""
        bases = first_faults(self.graph, first_fault)
        fault = None if io.fault is None else io.fault.address((0,))
        for call, function in zip(self.plan.calls, self.functions, strict=True):
            base = io.fault_base + bases.get(call.node.id, 0)
            call_kernel(call, function, address, io.dims, fault, base, f"{io.symbol}_")


def plan_body(
    body: Graph,
    packable: Mapping[Value, int],
    static: frozenset[int],
    target: CpuTarget,
    select: Select,
    prefix: str = "",
) -> Body:
    """Plans a body and selects its kernels, whose symbols begin with `prefix`.

    `packable` are inputs of the body that may be packed outside, and the operands of the outer kernel that they are;
    `static` are the operands known when the module is built.
    """
    plan, kernels, packing = plan_inside(
        body, packable, static, lambda fusion, known: select(fusion, known, target)
    )
    return Body(body, plan, tuple(functions_of(plan, kernels, prefix)), packing)


__all__ = ["Body", "Select", "plan_body"]
