"""Code generation for a GPU: from the fused graph and its parameters to a module's data and its device program.

Select a kernel for each fusion, plan memory, pack the weights, write the distinct kernels as CUDA C, list the launches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.artifact.cuda.target import CudaTarget
from graphc.artifact.device import Address, DeviceProgram
from graphc.artifact.spec import ModuleSpec, WeightSpec
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node
from graphc.lowering.contents import faults_of, needs_of, spec_of, static_slots, weights_of
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.program import functions_of, launches, source_of
from graphc.lowering.cuda.select import select
from graphc.lowering.generic.streams import of_any_stream
from graphc.lowering.plan import Needs, Place, make_plan
from graphc.lowering.precision import store_narrow
from graphc.lowering.verify import verify_plan
from graphc.ops import Fusion
from graphc.passes.fuse import static_nodes

PRECISIONS = ("f32", "tf32", "bf16", "f16")
"""What `--precision` can be for a GPU."""

Array = np.ndarray[Any, np.dtype[Any]]


def generate_device(
    graph: Graph,
    parameters: Mapping[str, Array],
    target: CudaTarget,
    precision: str = "f32",
    packed: Callable[[Sequence[WeightSpec]], None] = lambda weights: None,
) -> tuple[ModuleSpec, DeviceProgram]:
    """Generates code for a fused graph.

    Args:
        graph: what the pass pipeline ends in.
        parameters: parameter path -> array of the parameter's type and shape.
        target: the GPU.
        precision: `f32`; `tf32`, in which products multiply f32 of 10 bits of mantissa; `bf16` or `f16`, which values
            between kernels are stored and products multiplied in.
        packed: called with the weights as soon as they are packed.

    Returns the module's data and its device program, equal for equal arguments. Raises ValueError for another
    precision.
    """
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ValueError(f"there is no precision {precision!r} on {target.name}; there are {known}")
    if precision in ("bf16", "f16"):
        graph = store_narrow(graph, DType(precision), lambda op, lhs, rhs, packed: True)
    static = static_nodes(graph)
    product = "tf32" if precision == "tf32" else "f32"
    setting = Setting(product, warp_groups=target.arch == "sm_90a")
    kernels: dict[int, Kernel] = {}

    def needs(node: Node) -> Needs:
        assert isinstance(node.op, Fusion)
        alike = of_any_stream(node.op)
        fusion = node.op if alike is None else alike.fusion
        kernel = select(fusion, static_slots(node, graph, static), setting)
        kernels[node.id] = replace(kernel, alike=alike)
        return needs_of(kernels[node.id])

    plan = make_plan(graph, needs, static)
    verify_plan(graph, plan)
    weights, _ = weights_of(graph, plan, kernels, parameters)
    packed(weights)
    faults, fault_ids = faults_of(plan)
    functions = functions_of(plan, kernels)

    def address(place: Place) -> Address:
        return Address(place.space, place.index if place.space != "arena" else 0, place.offset)

    calls = tuple(
        tuple(launches(call, function, address, fault_id))
        for call, function, fault_id in zip(plan.calls, functions, fault_ids, strict=True)
    )
    symbols = [function.symbol for function in functions]
    spec = spec_of(graph, plan, symbols, weights, faults, target.name)
    return replace(spec, precision=precision), DeviceProgram(source_of(functions), calls)
