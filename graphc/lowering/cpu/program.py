"""`graphc_main`: one C function that calls every kernel of a module in order, and the kernels' own functions.

The main function is address arithmetic only: each argument is the start of an input, an output, a weight or an arena
buffer, whose offset may be a polynomial in the named dims. Between kernels the runtime notes the cycle counter when the
caller wants a profile.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from graphc.ir.dtype import DType
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType
from graphc.lowering.cpu.emit import View, call_symbol, i64, kernel
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import FAULT_WORDS, KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.bodies import checks, structure
from graphc.lowering.plan import Call, Place, Plan
from graphc.ops import Fusion

MAIN = "graphc_main"
TICK = "graphc_tick"  # the runtime's, see artifact/spec.py
_ALIKE = 3  # kernels that differ in sizes only, from which on they are one


@dataclass(frozen=True, eq=False)
class Function:
    """One compiled kernel: `symbol(operands..., results..., scratch?, fault?, dims..., fault id?)`.

    A result that takes over an operand's storage (`in_place`) has no pointer of its own. A call gives `sizes` for
    dims that are not the graph's: calls that differ in these share a symbol.
    """

    symbol: str
    fusion: Fusion
    kernel: Kernel
    in_place: tuple[int | None, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def own_results(self) -> tuple[int, ...]:
        """Results with a pointer parameter."""
        return tuple(r for r, slot in enumerate(self.in_place) if slot is None)

    @property
    def has_scratch(self) -> bool:
        """Whether the kernel asked for scratch memory."""
        return self.kernel.scratch != 0

    @cached_property
    def has_fault(self) -> bool:
        """Whether the kernel checks indices at run time."""
        return bool(checks(self.fusion.body))

    @property
    def parts(self) -> tuple[Function, ...]:
        """The functions it calls."""
        return tuple(replace(p, symbol=f"{self.symbol}_{p.symbol}") for p in self.kernel.parts)

    def every(self) -> Iterator[Function]:
        """The function and all it needs."""
        yield self
        for part in {p.symbol: p for p in self.parts}.values():
            yield from part.every()

    @property
    def dims(self) -> tuple[str, ...]:
        """Named dims that are parameters, in order."""
        return tuple(self.fusion.body.dims)


def functions_of(
    plan: Plan, kernels: Mapping[int, Kernel], prefix: str = "graphc_"
) -> list[Function]:
    """One compiled function per call; equal bodies with equal storage patterns share it."""
    shared: dict[Hashable, Function] = {}
    result = []
    general = _worth_sharing(plan, kernels)
    for call in plan.calls:
        kernel, fusion, sizes = kernels[call.node.id], call.fusion, dict[str, int]()
        if kernel.alike is not None:
            fusion, sizes = kernel.alike.fusion, dict(kernel.alike.sizes)
        if call.node.id in general and kernel.general is not None:
            kernel, any_size = kernel.general
            fusion, sizes = any_size.fusion, dict(any_size.sizes)
        packing = tuple((slot, p.name) for slot, p in sorted(kernel.packing.items()))
        key = (structure(fusion.body), packing, call.in_place, call.scratch is not None)
        if key not in shared:
            name = f"{prefix}k{len(shared)}_{call.fusion.kind}"
            shared[key] = Function(name, fusion, kernel, call.in_place)
        result.append(replace(shared[key], sizes=sizes) if sizes else shared[key])
    return result


def _worth_sharing(plan: Plan, kernels: Mapping[int, Kernel]) -> set[int]:
    """Calls whose kernels become one of any size: several that differ in sizes only."""
    alike: dict[Hashable, dict[Hashable, list[int]]] = {}
    for call in plan.calls:
        general = kernels[call.node.id].general
        if general is not None:
            key = (structure(general[1].fusion.body), call.in_place)
            size = tuple(general[1].sizes.values())
            alike.setdefault(key, {}).setdefault(size, []).append(call.node.id)
    many = [sizes for sizes in alike.values() if len(sizes) >= _ALIKE]
    return {id for sizes in many for ids in sizes.values() for id in ids}


def emit_function(function: Function, target: CpuTarget) -> Any:
    """The PrimFunc of one kernel."""
    body = function.fusion.body
    types = [n.types[0] for n in body.inputs]
    outputs = [body.type_of(v) for _, v in body.outputs]
    pointers = {f"a{i}": _dtype(t.dtype) for i, t in enumerate(types)}
    for slot, packing in function.kernel.packing.items():
        pointers[f"a{slot}"] = packing.dtype or pointers[f"a{slot}"]
    pointers |= {f"r{i}": _dtype(outputs[i].dtype) for i in function.own_results}
    if function.has_scratch:
        pointers["scratch"] = function.kernel.scratch_dtype
    if function.has_fault:
        pointers["fault"] = "int64"
    dims = [*function.dims, *(["fault_base"] if function.has_fault else [])]
    with kernel(function.symbol, pointers, dims, public=True) as k:
        env = {name: k.dim(name) for name in function.dims}

        def view(name: str, t: TensorType) -> View:
            return k.view(name, [dim_expr(d, env) for d in t.shape])

        operands = tuple(view(f"a{i}", t) for i, t in enumerate(types))
        results = tuple(
            view(f"r{i}" if slot is None else f"a{slot}", t)
            for i, (t, slot) in enumerate(zip(outputs, function.in_place, strict=True))
        )
        io = KernelIO(
            operands,
            results,
            env,
            fault=k.view("fault", (FAULT_WORDS,)) if function.has_fault else None,
            fault_base=k.dim("fault_base") if function.has_fault else 0,
            scratch=k.view("scratch", (1,)) if function.has_scratch else None,
            in_place=function.in_place,
            symbol=function.symbol,
        )
        function.kernel.emit(io)
    return k.function


def _dtype(dtype: DType) -> str:
    """TVM's name of an element type."""
    return str(dtype.numpy)


def emit_main(
    graph: Graph,
    calls: Sequence[Call],
    functions: Sequence[Function],
    fault_ids: Sequence[int],
    weight_offsets: Sequence[int],
) -> Any:
    """The PrimFunc of `graphc_main`, its parameters in the order `artifact/spec.py` documents.

    `functions` and `fault_ids` (the first fault id of the call) run parallel to `calls`.
    """
    import tvm
    import tvm.tirx as tx
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as t

    with IRBuilder() as builder, t.prim_func(is_private=False):
        t.func_name(MAIN)
        t.func_attr({"global_symbol": MAIN, "calling_conv": 1})
        inputs = [t.arg(f"in{i}", t.handle("uint8")) for i in range(len(graph.inputs))]
        weights = t.arg("weights", t.handle("uint8"))
        arena = t.arg("arena", t.handle("uint8"))
        outputs = [t.arg(f"out{i}", t.handle("uint8")) for i in range(len(graph.results))]
        dims = {name: t.arg(name, t.int64()) for name in graph.dims}
        fault = t.arg("fault", t.handle("int64"))
        clock = t.arg("clock", t.handle("uint64"))

        def memory(pointer: Any) -> Any:
            return t.decl_buffer((t.int64(1 << 46),), "uint8", data=pointer)

        bases = {
            "input": [memory(p) for p in inputs],
            "output": [memory(p) for p in outputs],
            "weight": [memory(weights)],
            "arena": [memory(arena)],
        }

        def address(place: Place) -> Any:
            if place.space in ("input", "output"):
                return t.address_of(bases[place.space][place.index][i64(0)])
            offset = weight_offsets[place.index] if place.space == "weight" else place.offset
            return t.address_of(bases[place.space][0][i64(dim_expr(offset, dims))])

        def tick(at: int) -> None:
            call_symbol(TICK, clock, t.int64(at))

        tick(0)
        for i, (call, function) in enumerate(zip(calls, functions, strict=True)):
            call_kernel(call, function, address, dims, fault, fault_ids[i])
            tick(i + 1)
    main = builder.get()
    body = tx.SeqStmt([main.body, tx.Return(tx.const(0, "int32"))])
    return tx.PrimFunc(main.params, body, tvm.ir.PrimType("int32"), main.attrs)


def call_kernel(
    call: Call,
    function: Function,
    address: Callable[[Place], Any],
    dims: Mapping[str, Any],
    fault: Any,
    fault_id: Any,
    prefix: str = "",
) -> None:
    """Emits the call of a kernel: `address` gives the pointer to a place, `fault` that to the fault record."""
    arguments = [address(p) for p in call.operands]
    arguments += [address(call.results[r]) for r in function.own_results]
    if function.has_scratch:
        assert call.scratch is not None
        arguments.append(address(call.scratch))
    if function.has_fault:
        arguments.append(fault)
    sizes = {name: i64(size) for name, size in function.sizes.items()}
    arguments += [sizes[name] if name in sizes else dims[name] for name in function.dims]
    if function.has_fault:
        arguments.append(i64(fault_id))
    call_symbol(prefix + function.symbol, *arguments)
