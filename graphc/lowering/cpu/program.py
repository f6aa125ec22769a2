"""`graphc_main`: one C function that calls every kernel of a module in order, and the kernels' own functions.

The main function is address arithmetic only: each argument is the start of an input, an output, a weight or an arena
buffer, whose offset may be a polynomial in the named dims. After each kernel it stores the cycle counter when the
caller wants a profile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.dim import DimLike, names_of
from graphc.ir.graph import Graph
from graphc.lowering.cpu.emit import call_symbol, i64, when
from graphc.lowering.plan import Call, Place

MAIN = "graphc_main"


@dataclass(frozen=True)
class Signature:
    """The C parameters of a kernel: pointers (operands, results that are not in place, scratch, fault), then int64s."""

    symbol: str
    operands: int
    results: tuple[int, ...]  # indices of results that have a pointer of their own
    scratch: bool
    fault: bool
    dims: tuple[str, ...]


def emit_main(
    graph: Graph,
    calls: Sequence[Call],
    signatures: Sequence[Signature],
    fault_ids: Sequence[int],
    weight_offsets: Sequence[int],
) -> Any:
    """The PrimFunc of `graphc_main`, its parameters in the order `artifact/spec.py` documents.

    `signatures` and `fault_ids` (the first fault id of the call) run parallel to `calls`.
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
        outputs = [t.arg(f"out{i}", t.handle("uint8")) for i in range(len(graph.outputs))]
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
        clocks = t.decl_buffer((t.int64(1 << 46),), "uint64", data=clock)

        def address(place: Place) -> Any:
            if place.space in ("input", "output"):
                return t.address_of(bases[place.space][place.index][i64(0)])
            offset = weight_offsets[place.index] if place.space == "weight" else place.offset
            return t.address_of(bases[place.space][0][i64(dim_expr(offset, dims))])

        def tick(at: int) -> None:
            with when(tx.Not(t.isnullptr(clock))):
                now = t.call_llvm_intrin("uint64", "llvm.readcyclecounter")
                t.buffer_store(clocks, now, [t.int64(at)])

        tick(0)
        for i, (call, signature) in enumerate(zip(calls, signatures, strict=True)):
            arguments = [address(p) for p in call.operands]
            arguments += [address(call.results[r]) for r in signature.results]
            if signature.scratch:
                assert call.scratch is not None
                arguments.append(address(call.scratch))
            if signature.fault:
                arguments.append(fault)
            arguments += [dims[name] for name in signature.dims]
            if signature.fault:
                arguments.append(i64(fault_ids[i]))
            call_symbol(signature.symbol, *arguments)
            tick(i + 1)
    function = builder.get()
    body = tx.SeqStmt([function.body, tx.Return(tx.const(0, "int32"))])
    return tx.PrimFunc(function.params, body, tvm.ir.PrimType("int32"), function.attrs)


def dim_expr(dim: DimLike, env: Mapping[str, Any]) -> Any:
    """A dimension as an int, or as an int64 expression over the variables of its named dims."""
    if isinstance(dim, int):
        return dim
    from tvm.script.ir_builder import tirx as t

    return dim.fold(
        lambda name: env[name],
        i64,
        lambda a, b: a + b,
        lambda a, b: a * b,
        t.floordiv,
    )


def dims_in(dims: Sequence[DimLike]) -> tuple[str, ...]:
    """The named dims in several dimensions, sorted."""
    return tuple(sorted({name for dim in dims for name in names_of(dim)}))
