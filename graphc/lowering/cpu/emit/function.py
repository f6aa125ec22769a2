"""Kernels as C functions: their parameters, and calls between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.lowering.cpu.emit.builder import Expr, Extent, builder
from graphc.lowering.cpu.emit.memory import View
from graphc.lowering.cpu.emit.values import product


class Kernel:
    """A kernel under construction; made by :func:`kernel`.

    Attributes:
        function: the finished PrimFunc, after the ``with`` block has ended.
    """

    function: Any

    def __init__(self, pointers: Mapping[str, tuple[Any, str]], dims: Mapping[str, Expr]) -> None:
        self._dims = dict(dims)
        self._dtypes = {name: dtype for name, (_, dtype) in pointers.items()}
        t = builder()
        # The extent is never used: views address by strides. It must only exceed every index.
        size = t.int64(1 << 46)
        self._buffers = {
            name: t.decl_buffer((size,), _storage(dtype), data=pointer)
            for name, (pointer, dtype) in pointers.items()
        }

    def dim(self, name: str) -> Expr:
        """The int64 parameter ``name``."""
        return self._dims[name]

    def view(
        self,
        name: str,
        shape: Sequence[Extent],
        *,
        strides: Sequence[Extent] | None = None,
        offset: Extent = 0,
    ) -> View:
        """A tensor behind pointer ``name``: row-major of ``shape`` unless ``strides`` are given."""
        if strides is None:
            strides = [product(shape[i + 1 :]) for i in range(len(shape))]
        elif len(strides) != len(shape):
            raise ValueError(f"{len(strides)} strides for a view of rank {len(shape)}")
        return View(self._buffers[name], self._dtypes[name], tuple(strides), offset)


def _storage(dtype: str) -> str:
    """How an element type lies in memory: booleans as bytes, bfloat16 as 16-bit words."""
    return {"bool": "uint8", "bfloat16": "uint16"}.get(dtype, dtype)


@contextmanager
def kernel(
    name: str,
    pointers: Mapping[str, str],
    dims: Sequence[str] = (),
    *,
    public: bool = False,
    noalias: bool = True,
) -> Iterator[Kernel]:
    """Opens the definition of a kernel; statements of the ``with`` body become its body.

    Args:
        name: the function's name; the C symbol of a public one.
        pointers: parameter name -> element dtype, in the order of the C parameters.
        dims: names of int64 parameters, which follow the pointers.
        public: a C symbol ``int32_t name(ptr..., int64_t...)``; otherwise a private function, which
            another of the same module calls through its GlobalVar.
        noalias: promise that different pointers never reach the same memory. An in-place kernel
            must either use one pointer for both or pass ``False``.
    """
    import tvm
    import tvm.tirx as tx
    from tvm.script.ir_builder import IRBuilder

    t = builder()
    with IRBuilder() as built, t.prim_func(is_private=not public):
        t.func_name(name)
        attrs: dict[str, Any] = {"tirx.noalias": True} if noalias else {}
        if public:
            attrs |= {"global_symbol": name, "calling_conv": 1}
        t.func_attr(attrs)
        # All parameters come before the first buffer declaration, or TVM refuses them.
        handles = {p: (t.arg(p, t.handle(_storage(d))), d) for p, d in pointers.items()}
        extents = {d: t.arg(d, t.int64()) for d in dims}
        result = Kernel(handles, extents)
        yield result
    function = built.get()
    # A function that holds a parallel loop needs an int32 result: its error exits return one.
    body = tx.SeqStmt([function.body, tx.Return(tx.const(0, "int32"))])
    result.function = tx.PrimFunc(function.params, body, tvm.ir.PrimType("int32"), function.attrs)


def symbol(name: str) -> Any:
    """A module-level name (``GlobalVar``), by which private kernels are compiled and called."""
    import tvm

    return tvm.ir.GlobalVar(name)


def call(function: Any, *arguments: Expr) -> None:
    """Calls a private kernel of the same module through its :func:`symbol`."""
    builder().evaluate(function(*arguments))


def call_symbol(name: str, *arguments: Expr) -> None:
    """Calls a public kernel, possibly of another object, by its C symbol."""
    t = builder()
    t.evaluate(t.call_extern("int32", name, *arguments))
