"""Code generation for one target: from the fused graph and its parameters to a module's data and objects.

Select a kernel for each fusion, plan memory, pack the weights, emit the distinct kernels and `graphc_main`, compile.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.artifact import cache
from graphc.artifact.spec import ModuleSpec, WeightSpec
from graphc.ir.graph import Graph, Node
from graphc.ir.printer import print_graph
from graphc.lowering.contents import faults_of, needs_of, spec_of, static_slots, weights_of
from graphc.lowering.cpu.build import compile_objects
from graphc.lowering.cpu.emit import stores
from graphc.lowering.cpu.features import CpuTarget, parse_target
from graphc.lowering.cpu.kernel import Kernel
from graphc.lowering.cpu.program import (
    MAIN,
    Function,
    emit_function,
    emit_main,
    functions_of,
)
from graphc.lowering.cpu.select import select
from graphc.lowering.generic.streams import of_any_stream
from graphc.lowering.join import join_kernels
from graphc.lowering.plan import Needs, Plan, make_plan
from graphc.lowering.precision import lower_precision
from graphc.lowering.verify import verify_plan
from graphc.ops import Fusion
from graphc.passes.fuse import static_nodes

Array = np.ndarray[Any, np.dtype[Any]]
# Small enough that LLVM starts early and all threads end together; each object costs 30 ms of its own.
_PER_OBJECT = 1000
_STORES = 40  # what a kernel takes beside its stores, in stores


def generate(
    graph: Graph,
    parameters: Mapping[str, Array],
    *,
    target: str = "native",
    precision: str = "f32",
    packed: Callable[[Sequence[WeightSpec]], None] = lambda weights: None,
) -> tuple[ModuleSpec, list[bytes]]:
    """Generates code for a fused graph.

    Args:
        graph: what the pass pipeline ends in.
        parameters: parameter path -> array of the parameter's type and shape.
        target: see `parse_target`.
        precision: see `lower_precision`.
        packed: called with the weights as soon as they are packed, by another thread, while kernels compile.

    Returns the module's data and its object files, equal for equal arguments. Raises TargetError.
    """
    cpu = parse_target(target)
    lowered, note = lower_precision(graph, precision, cpu)
    # Tiles multiply faster than what joining saves.
    graph = join_kernels(graph, static_nodes(graph), cpu) if lowered is graph else lowered
    plan, kernels = plan_kernels(graph, cpu)
    verify_plan(graph, plan)
    functions = functions_of(plan, kernels)
    faults, fault_ids = faults_of(plan)
    with ThreadPoolExecutor(1) as pool:
        # NumPy packs the weights while kernels compile; only the main function needs to know where they lie.
        weights = pool.submit(weights_of, graph, plan, kernels, parameters)
        kept = pool.submit(lambda: packed(weights.result()[0]))

        def main() -> Any:
            return emit_main(graph, plan.calls, functions, fault_ids, weights.result()[1])

        objects = _objects(
            (print_graph(graph), cpu.name, precision),
            lambda: compile_objects(_partitions(functions, cpu, main), cpu, plain={MAIN}),
        )
        kept.result()
    symbols = [function.symbol for function in functions]
    spec = spec_of(
        graph, plan, symbols, weights.result()[0], faults, cpu.name, cpu.required_features
    )
    return replace(spec, precision="f32" if note else precision, note=note), objects


def plan_kernels(graph: Graph, cpu: CpuTarget) -> tuple[Plan, dict[int, Kernel]]:
    """The plan of a fused graph, and the kernel of each call by its node's id."""
    static = static_nodes(graph)
    kernels: dict[int, Kernel] = {}

    def needs(node: Node) -> Needs:
        assert isinstance(node.op, Fusion)
        alike = of_any_stream(node.op)
        fusion = node.op if alike is None else alike.fusion
        kernel = select(fusion, static_slots(node, graph, static), cpu)
        kernels[node.id] = replace(kernel, alike=alike)
        return needs_of(kernels[node.id])

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


def _partitions(
    functions: Sequence[Function], cpu: CpuTarget, main: Callable[[], Any]
) -> Iterator[dict[str, Any]]:
    """The distinct functions, emitted a few at a time, and last `graphc_main`, alone where there is much else."""
    distinct = {function.symbol: function for function in functions}
    chunk: dict[str, Any] = {}
    full, first = 0, True
    for function in itertools.chain.from_iterable(f.every() for f in distinct.values()):
        before = stores()
        emitted = emit_function(function, cpu)
        size = stores() - before + _STORES
        if chunk and full + size > _PER_OBJECT:
            yield chunk
            chunk, full, first = {}, 0, False
        chunk[function.symbol] = emitted
        full += size
    if chunk and not first:
        yield chunk
        chunk = {}
    yield {**chunk, MAIN: main()}
