"""Code generation for one target: from the fused graph and its parameters to a module's data and objects.

Select a kernel for each fusion, plan memory, pack the weights, emit the distinct kernels and `graphc_main`, compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np

from graphc.artifact import cache
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
from graphc.lowering.cpu.build import compile_objects
from graphc.lowering.cpu.features import CpuTarget, parse_target
from graphc.lowering.cpu.kernel import Kernel
from graphc.lowering.cpu.program import (
    MAIN,
    Function,
    checks,
    emit_function,
    emit_main,
    functions_of,
)
from graphc.lowering.cpu.select import select
from graphc.lowering.join import join_kernels
from graphc.lowering.plan import Call, Needs, Plan, make_plan
from graphc.lowering.precision import lower_precision
from graphc.lowering.verify import verify_plan
from graphc.ops import Fusion
from graphc.passes.fuse import static_nodes
from graphc.reference import evaluate_values

Array = np.ndarray[Any, np.dtype[Any]]
_ALIGN = 64
_PER_OBJECT = 4  # kernels of one object: few, so that LLVM starts early; each object costs 15 ms


def generate(
    graph: Graph,
    parameters: Mapping[str, Array],
    *,
    target: str = "native",
    precision: str = "f32",
) -> tuple[ModuleSpec, list[bytes]]:
    """Generates code for a fused graph.

    Args:
        graph: what the pass pipeline ends in.
        parameters: parameter path -> array of the parameter's type and shape.
        target: see `parse_target`.
        precision: see `lower_precision`.

    Returns the module's data and its object files, equal for equal arguments. Raises TargetError.
    """
    cpu = parse_target(target)
    lowered, note = lower_precision(graph, precision, cpu)
    # Tiles multiply faster than what joining saves.
    graph = join_kernels(graph, static_nodes(graph), cpu) if lowered is graph else lowered
    plan, kernels = plan_kernels(graph, cpu)
    verify_plan(graph, plan)
    functions = functions_of(plan, kernels)
    faults, fault_ids = _faults(plan)
    with ThreadPoolExecutor(1) as pool:
        # NumPy packs the weights while kernels compile; only the main function needs to know where they lie.
        packed = pool.submit(_weights, graph, plan, kernels, parameters)

        def main() -> Any:
            return emit_main(graph, plan.calls, functions, fault_ids, packed.result()[1])

        objects = _objects(
            (print_graph(graph), cpu.name, precision),
            lambda: compile_objects(_partitions(functions, cpu, main), cpu, plain={MAIN}),
        )
        weights, _ = packed.result()
    spec = _spec(graph, plan, functions, weights, faults, cpu)
    return replace(spec, precision="f32" if note else precision, note=note), objects


def plan_kernels(graph: Graph, cpu: CpuTarget) -> tuple[Plan, dict[int, Kernel]]:
    """The plan of a fused graph, and the kernel of each call by its node's id."""
    static = static_nodes(graph)
    kernels: dict[int, Kernel] = {}

    def needs(node: Node) -> Needs:
        assert isinstance(node.op, Fusion)
        kernels[node.id] = select(node.op, _static_slots(node, graph, static), cpu)
        return _needs(kernels[node.id])

    return make_plan(graph, needs, static), kernels


def _objects(parts: Sequence[str], make: Callable[[], list[bytes]]) -> list[bytes]:
    """The object code of a fused graph, from the cache if it was compiled before with whatever weights."""
    store = cache.find()
    if store is None:
        return make()
    key = cache.key_of("objects", parts)
    files = store.read(key)
    if files is None:
        files = {f"{i}.o": data for i, data in enumerate(make())}
        store.write(key, files)
    return [files[f"{i}.o"] for i in range(len(files))]


def _static_slots(node: Node, graph: Graph, static: frozenset[int]) -> frozenset[int]:
    return frozenset(i for i, v in enumerate(node.operands) if origin(graph, v).node in static)


def _needs(kernel: Kernel) -> Needs:
    packing = kernel.packing
    return Needs(
        kernel.scratch,
        {slot: p.name for slot, p in packing.items()},
        {slot: p.write for slot, p in packing.items() if p.write is not None},
    )


def _weights(
    graph: Graph, plan: Plan, kernels: Mapping[int, Kernel], parameters: Mapping[str, Array]
) -> tuple[tuple[WeightSpec, ...], list[int]]:
    """Evaluates the build-time values, packs them, and lays them out one after another."""
    packings = {
        (node_value, packing.name): packing
        for call in plan.calls
        for slot, packing in kernels[call.node.id].packing.items()
        for node_value in [call.node.operands[slot]]
    }
    arrays = evaluate_values(graph, [value for value, _ in plan.weights], parameters)
    specs, offsets, end = [], [], 0
    names: dict[str, int] = {}
    for value, packing_name in plan.weights:
        array = np.asarray(arrays[value])
        if packing_name:
            array = packings[value, packing_name].pack(array)
        array = np.ascontiguousarray(array)
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


def _partitions(
    functions: Sequence[Function], cpu: CpuTarget, main: Callable[[], Any]
) -> Iterator[dict[str, Any]]:
    """The distinct functions, emitted a few at a time, and last `graphc_main`."""
    named = {function.symbol: function for function in functions}
    distinct = [each for function in named.values() for each in function.every()]
    for start in range(0, len(distinct), _PER_OBJECT):
        chunk = distinct[start : start + _PER_OBJECT]
        yield {function.symbol: emit_function(function, cpu) for function in chunk}
    yield {MAIN: main()}


def _faults(plan: Plan) -> tuple[tuple[FaultInfo, ...], list[int]]:
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


def _spec(
    graph: Graph,
    plan: Plan,
    functions: Sequence[Function],
    weights: tuple[WeightSpec, ...],
    faults: tuple[FaultInfo, ...],
    cpu: CpuTarget,
) -> ModuleSpec:
    infos = tuple(
        KernelInfo(
            name=function.symbol,
            label=_label(call),
            source=_place(call.node),
            op=call.fusion.kind,
            flops=sum_flops(call.fusion.body),
            bytes=_traffic(graph, call.node),
        )
        for call, function in zip(plan.calls, functions, strict=True)
    )
    ops = tuple(
        OpSource(f"%{node.id}", node.op.name, node.path, _place(node), function.symbol)
        for call, function in zip(plan.calls, functions, strict=True)
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
        target=cpu.name,
        cpu_features=cpu.required_features,
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
