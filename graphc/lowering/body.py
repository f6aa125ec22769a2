"""The body of a loop or a branch, planned like a graph of its own, whatever it is compiled for.

Operands of the outer kernel that kernels of the body want packed are packed outside, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from graphc.ir.dim import DimLike, proves_ge
from graphc.ir.graph import Graph, Node, Value
from graphc.lowering.contents import Selected
from graphc.lowering.generic.bodies import checks
from graphc.lowering.packing import Packing
from graphc.lowering.plan import Needs, Plan, make_plan
from graphc.lowering.verify import verify_plan
from graphc.ops import Cond, Fusion

B = TypeVar("B")
K = TypeVar("K", bound=Selected)


def plan_inside(
    body: Graph,
    packable: Mapping[Value, int],
    static: frozenset[int],
    select: Callable[[Fusion, frozenset[int]], K],
) -> tuple[Plan, dict[int, K], dict[int, Packing]]:
    """Plans a body and selects its kernels.

    Args:
        body: the graph.
        packable: inputs of the body that may be packed outside, and the operands of the outer kernel that they are.
        static: the outer operands known when the module is built.
        select: the kernel for a fusion, given which of its operands may be packed outside.

    Returns the plan, the kernels by their nodes' ids, and how operands of the outer kernel are packed.
    """
    kernels: dict[int, K] = {}
    packing: dict[int, Packing] = {}

    def needs(node: Node) -> Needs:
        assert isinstance(node.op, Fusion)
        outer = {s: packable[v] for s, v in enumerate(node.operands) if v in packable}
        kernel = select(node.op, frozenset(outer))
        late = {s for s, p in kernel.packing.items() if p.write is None and outer[s] not in static}
        if late:
            kernel = select(node.op, frozenset(outer) - late)
        kernels[node.id] = kernel
        packing.update({outer[s]: p for s, p in kernel.packing.items() if s in outer})
        inside = {s: p for s, p in kernel.packing.items() if s not in outer}
        return Needs(
            kernel.scratch,
            {s: p.name for s, p in inside.items()},
            {s: p.write for s, p in inside.items() if p.write is not None},
        )

    plan = make_plan(body, needs, frozenset())
    verify_plan(body, plan)
    return plan, kernels, packing


def plan_branches(
    op: Cond, static: frozenset[int], plan: Callable[[Graph, Mapping[Value, int], str], B]
) -> tuple[B, B]:
    """Both bodies of a choice, by `plan(body, packable, prefix)`.

    `static` are the operands known when the module is built: captures among them are packed outside.
    """

    def branch(body: Graph, prefix: str) -> B:
        known = {n.values[0]: i for i, n in enumerate(body.inputs, 1) if i in static}
        return plan(body, {v: i for v, i in known.items() if body.type_of(v).is_static}, prefix)

    return branch(op.on_true, "true_"), branch(op.on_false, "false_")


def larger(op: Cond, a: DimLike, b: DimLike) -> DimLike:
    """The larger of two sizes of a choice's bodies; their sum where it depends on the run which that is."""
    bounds = {**op.on_true.dims, **op.on_false.dims}
    if proves_ge(a, b, bounds):
        return a
    return b if proves_ge(b, a, bounds) else a + b


def first_faults(body: Graph, first: int) -> dict[int, int]:
    """The first fault id of each node of a body whose own begin with `first`."""
    bases: dict[int, int] = {}
    for node in body.nodes:
        bases[node.id] = first
        first += sum(len(checks(region)) for region in node.op.regions)
    return bases
