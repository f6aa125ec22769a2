"""From a plan and selected kernels to the text of all kernels and the launches of one call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property

from graphc.artifact.device import Address, Argument, Launch, Step, TensorMap
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.lowering.cuda.build import prelude, text_of
from graphc.lowering.cuda.emit import cast, equal, i32, kernel, when
from graphc.lowering.cuda.hopper import instructions
from graphc.lowering.cuda.io import Kernel, KernelIO, MapOf, Stage
from graphc.lowering.generic.bodies import checks, structure
from graphc.lowering.plan import Call, Place, Plan
from graphc.ops import Fusion

__all__ = ["Function", "Guards", "functions_of", "launches", "source_of"]

_SCRATCH = DType.U8

Guards = tuple[tuple[Address, int], ...]
"""Predicates, bool scalars on the device, and what each must be for a kernel to do anything."""


@dataclass(frozen=True, eq=False)
class Function:
    """The code of one kernel: for each stage `symbol(operands..., results..., scratch?, fault?, dims..., fault id?)`.

    A result that takes over an operand's storage (`in_place`) has no pointer of its own. In front of all else come
    `guards` pairs of a predicate's address and what it must be for the kernel to do anything. A call gives `sizes` for
    dims that are not the graph's: calls that differ in these share a symbol.
    """

    symbol: str
    fusion: Fusion
    kernel: Kernel
    in_place: tuple[int | None, ...]
    guards: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def own_results(self) -> tuple[int, ...]:
        """Results with a pointer parameter."""
        return tuple(r for r, slot in enumerate(self.in_place) if slot is None)

    @cached_property
    def has_fault(self) -> bool:
        """Whether the kernel checks indices at run time."""
        return bool(checks(self.fusion.body))

    @property
    def dims(self) -> tuple[str, ...]:
        """Named dims that are parameters, in order."""
        return tuple(self.fusion.body.dims)

    def part(self, part: Function) -> Function:
        """A function that a loop or a choice launches, under its name in the source."""
        inside = self.kernel.inside
        guards = self.guards + (0 if inside is None else inside.guards)
        return replace(part, symbol=f"{self.symbol}_{part.symbol}", guards=guards)

    def every(self) -> Iterator[Function]:
        """The function and all it needs."""
        yield self
        if self.kernel.inside is not None:
            for part in {p.symbol: p for p in self.kernel.inside.parts}.values():
                yield from self.part(part).every()

    def stage_symbol(self, stage: int) -> str:
        """The name of a stage's kernel."""
        return self.symbol if len(self.kernel.stages) == 1 else f"{self.symbol}_{stage}"


def functions_of(
    plan: Plan, kernels: Mapping[int, Kernel], prefix: str = "graphc_"
) -> list[Function]:
    """One function per call; equal bodies with equal storage patterns share it."""
    shared: dict[Hashable, Function] = {}
    result = []
    for call in plan.calls:
        chosen, fusion, sizes = kernels[call.node.id], call.fusion, dict[str, int]()
        if chosen.alike is not None:
            fusion, sizes = chosen.alike.fusion, dict(chosen.alike.sizes)
        packing = tuple((slot, p.name) for slot, p in sorted(chosen.packing.items()))
        key = (structure(fusion.body), packing, call.in_place, chosen.alignment)
        if key not in shared:
            name = f"{prefix}k{len(shared)}_{call.fusion.kind}"
            shared[key] = Function(name, fusion, chosen, call.in_place)
        result.append(replace(shared[key], sizes=sizes) if sizes else shared[key])
    return result


def source_of(functions: Sequence[Function]) -> str:
    """The prelude and every distinct kernel."""
    distinct = {f.symbol: f for f in functions}.values()
    every = [each for f in distinct for each in f.every()]
    prims = [_emitted(f, i, s) for f in every for i, s in enumerate(f.kernel.stages)]
    mapped = any(stage.maps for f in every for stage in f.kernel.stages)
    texts = (prelude(), instructions.prelude()) if mapped else (prelude(),)
    return "\n".join((*texts, text_of(prims)))


def _emitted(function: Function, number: int, stage: Stage) -> object:
    """The PrimFunc of one stage."""
    body = function.fusion.body
    types = [n.types[0] for n in body.inputs]
    outputs = [body.type_of(v) for _, v in body.outputs]
    chosen = function.kernel
    pointers = {f"guard{i}": DType.BOOL for i in range(function.guards)}
    pointers |= {f"a{i}": t.dtype for i, t in enumerate(types)}
    for slot, packing in chosen.packing.items():
        if packing.dtype is not None:
            pointers[f"a{slot}"] = DType.from_numpy(packing.dtype)
    pointers |= {f"r{i}": outputs[i].dtype for i in function.own_results}
    if chosen.scratch != 0:
        pointers["scratch"] = _SCRATCH
    if function.has_fault:
        pointers["fault"] = DType.I64
    wanted = [f"wanted{i}" for i in range(function.guards)]
    dims = [*wanted, *function.dims, *(["fault_base"] if function.has_fault else [])]
    symbol = function.stage_symbol(number)
    with kernel(symbol, pointers, dims, stage.threads, len(stage.maps), stage.cluster) as k:
        zero = i32(0)
        io = KernelIO(
            tuple(k.memory[f"a{i}"] for i in range(len(types))),
            tuple(
                k.memory[f"r{i}" if slot is None else f"a{slot}"]
                for i, slot in enumerate(function.in_place)
            ),
            {name: k.dims[name] for name in function.dims},
            k.thread,
            fault=k.memory["fault"].address(zero) if function.has_fault else None,
            fault_base=k.dims["fault_base"] if function.has_fault else 0,
            scratch=k.memory["scratch"] if chosen.scratch != 0 else None,
            alignment=chosen.alignment,
            maps=k.maps,
        )
        with ExitStack() as stack:
            for i in range(function.guards):
                holds = cast(k.memory[f"guard{i}"].load(zero), "int64")
                stack.enter_context(when(equal(holds, k.dims[f"wanted{i}"])))
            stage.emit(io)
    return k.function


def launches(
    call: Call,
    function: Function,
    address: Callable[[Place], Address],
    fault_id: int,
    guards: Guards = (),
) -> Iterator[Step]:
    """What one call of a kernel launches; `address` tells where a place is."""
    if function.kernel.inside is not None:
        yield from function.kernel.inside.steps(call, function, address, fault_id, guards)
        return
    arguments: list[Argument] = [predicate for predicate, _ in guards]
    arguments += [address(p) for p in call.operands]
    arguments += [address(call.results[r]) for r in function.own_results]
    if function.kernel.scratch != 0:
        assert call.scratch is not None
        arguments.append(address(call.scratch))
    if function.has_fault:
        arguments.append(Address("fault"))
    arguments += [wanted for _, wanted in guards]
    arguments += [function.sizes.get(name, Dim.symbol(name)) for name in function.dims]
    if function.has_fault:
        arguments.append(fault_id)
    for i, stage in enumerate(function.kernel.stages):
        yield Launch(
            function.stage_symbol(i),
            stage.grid,
            (stage.threads, 1, 1),
            (*arguments, *(_mapped(m, address(call.operands[m.slot])) for m in stage.maps)),
            stage.shared_bytes,
        )


def _mapped(m: MapOf, base: Address) -> TensorMap:
    return TensorMap(base, m.dtype, m.shape, m.strides, m.box, m.swizzle)
