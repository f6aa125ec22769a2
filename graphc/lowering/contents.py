"""What a module holds besides its code, whatever the target: weights, faults, ports, and where kernels came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np

from graphc.artifact.spec import (
    DimSpec,
    FaultInfo,
    KernelInfo,
    ModuleSpec,
    OpSource,
    Port,
    WeightSpec,
)
from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.printer import print_graph
from graphc.lowering.aliasing import origin
from graphc.lowering.generic.bodies import checks
from graphc.lowering.packing import Packing
from graphc.lowering.plan import Call, Needs, Plan
from graphc.reference import evaluate_values

Array = np.ndarray[Any, np.dtype[Any]]
_ALIGN = 64


class Selected(Protocol):
    """What selection decides for a fusion, as far as the plan and the weights need it."""

    @property
    def scratch(self) -> DimLike:
        """Bytes of the arena."""

    @property
    def packing(self) -> Mapping[int, Packing]:
        """Operands that are laid out anew."""


def static_slots(node: Node, graph: Graph, static: frozenset[int]) -> frozenset[int]:
    """Operands of a kernel that are known when the module is built."""
    return frozenset(i for i, v in enumerate(node.operands) if origin(graph, v).node in static)


def needs_of(kernel: Selected) -> Needs:
    """What a kernel asks of the plan."""
    packing = kernel.packing
    return Needs(
        kernel.scratch,
        {slot: p.name for slot, p in packing.items()},
        {slot: p.write for slot, p in packing.items() if p.write is not None},
    )


def weights_of(
    graph: Graph, plan: Plan, kernels: Mapping[int, Selected], parameters: Mapping[str, Array]
) -> tuple[tuple[WeightSpec, ...], list[int]]:
    """Evaluates the build-time values, packs them, and lays them out one after another."""
    packings = {
        (node_value, packing.name): packing
        for call in plan.calls
        for slot, packing in kernels[call.node.id].packing.items()
        for node_value in [call.node.operands[slot]]
    }
    arrays = evaluate_values(graph, [value for value, _ in plan.weights], parameters)

    def packed(weight: tuple[Value, str]) -> Array:
        value, packing_name = weight
        array = np.asarray(arrays[value])
        if packing_name:
            array = packings[value, packing_name].pack(array)
        return np.ascontiguousarray(array)

    specs, offsets, end = [], [], 0
    names: dict[str, int] = {}
    with ThreadPoolExecutor(2) as pool:
        packs = pool.map(packed, plan.weights)
    for (value, _), array in zip(plan.weights, packs, strict=True):
        name = _weight_name(graph, value)
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            name = f"{name}.{names[name]}"
        specs.append(WeightSpec(name, array, end))
        offsets.append(end)
        end += -(-array.nbytes // _ALIGN) * _ALIGN
    return tuple(specs), offsets


def _weight_name(graph: Graph, value: Value) -> str:
    """The path of the first parameter a build-time value depends on; `constant` without one."""
    stack = [value.node]
    while stack:
        node = graph.node(stack.pop())
        if node.op.name == "parameter":
            return str(node.op.attributes()["path"])
        stack += [v.node for v in reversed(node.operands)]
    return "constant"


def faults_of(plan: Plan) -> tuple[tuple[FaultInfo, ...], list[int]]:
    """Messages for the run-time checks inside kernels, and each call's first fault id."""
    infos: list[FaultInfo] = []
    first = []
    for call in plan.calls:
        first.append(len(infos))
        for node in checks(call.fusion.body):
            where = f" ({_place(node)})" if node.span else ""
            what = f" for `{node.path}`" if node.path else ""
            infos.append(
                FaultInfo(
                    f"index {{value}} is out of range{what}: it must be 0 <= index < {{limit}}{where}"
                )
            )
    return tuple(infos), first


def spec_of(
    graph: Graph,
    plan: Plan,
    symbols: Sequence[str],
    weights: tuple[WeightSpec, ...],
    faults: tuple[FaultInfo, ...],
    target: str,
    cpu_features: tuple[str, ...] = (),
) -> ModuleSpec:
    """The description of a module; `symbols` name the kernel of each call."""
    infos = tuple(
        KernelInfo(
            name=symbol,
            label=_label(call),
            source=_place(call.node),
            op=call.fusion.kind,
            flops=sum_flops(call.fusion.body),
            bytes=_traffic(graph, call.node),
        )
        for call, symbol in zip(plan.calls, symbols, strict=True)
    )
    ops = tuple(
        OpSource(f"%{node.id}", node.op.name, node.path, _place(node), symbol)
        for call, symbol in zip(plan.calls, symbols, strict=True)
        for node in call.fusion.body.nodes
        if node.op.name != "input"
    )
    state = [node for node, _ in graph.state]
    return ModuleSpec(
        name=graph.name,
        inputs=tuple(
            Port(
                str(n.op.attributes()["label"]), str(n.types[0].dtype), n.types[0].shape, n in state
            )
            for n in graph.inputs
        ),
        outputs=tuple(
            Port(name, str(graph.type_of(v).dtype), graph.type_of(v).shape)
            for name, v in graph.results
        ),
        dims=tuple(DimSpec(name, b.low, b.high) for name, b in graph.dims.items()),
        weights=weights,
        arena_bytes=plan.arena.size,
        kernels=infos,
        faults=faults,
        target=target,
        cpu_features=cpu_features,
        graph_text=print_graph(graph),
        ops=ops,
    )


def sum_flops(body: Graph) -> DimLike:
    """Arithmetic of all nodes of a body."""
    total: DimLike = 0
    for node in body.nodes:
        total = total + node.op.flops([body.type_of(v) for v in node.operands], node.types)
    return total


def _traffic(graph: Graph, node: Node) -> DimLike:
    """Bytes of all operands and results, each once."""
    total: DimLike = 0
    for value in dict.fromkeys(node.operands):
        total = total + graph.type_of(value).nbytes
    for t in node.types:
        total = total + t.nbytes
    return total


def _label(call: Call) -> str:
    """What a kernel computes, for people: the layers it came from, joined."""
    paths = dict.fromkeys(n.path for n in call.fusion.body.nodes if n.path)
    return " + ".join(list(paths)[:4]) or call.fusion.kind


def _place(node: Node) -> str:
    """`lenet.nn:9:12`, without the folder: a module's bytes do not depend on where it was built."""
    if node.span is None:
        return ""
    return f"{PurePath(node.span.source.name).name}:{node.span.line}:{node.span.column}"
