"""The vocabulary of GPU kernels over TVM's IRBuilder: kernels, memory, variables, loops, calls of the prelude.

Everything is scalar: one expression is one element of one thread. Vectors exist in memory only, where `Memory.fetch`
and `Memory.put` move several neighbours at once between it and an array of the thread. Kernels go to CUDA C without
TVM's simplifier (see `build.py`), so that a name bound here is a variable there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from graphc.ir.dtype import DType

__all__ = [
    "Array",
    "Expr",
    "Memory",
    "Thread",
    "Variable",
    "barrier",
    "call",
    "cast",
    "const",
    "dtype_of",
    "either",
    "equal",
    "evaluate",
    "i32",
    "i64",
    "kernel",
    "loop",
    "named",
    "pure",
    "select",
    "shared",
    "storage",
    "when",
]

Expr = Any
"""A TVM primitive expression (TVM ships no types)."""

CLUSTER = "graphc.cluster"
"""The attribute of a kernel that says how many blocks along x run together."""

VECTOR_BYTES = 16
"""What one thread moves with one instruction, and the alignment of every operand and result."""

PROCESSORS = 132
"""Multiprocessors that work is dealt out to: those of an H100 or H200. Others finish as well, not as evenly."""


def _t() -> Any:
    """TVM's statement builder, imported when the first kernel is emitted."""
    from tvm.script.ir_builder import tirx

    return tirx


# ------------------------------------------------------------------------------------------- values


def i32(value: int | Expr) -> Expr:
    """An int32 constant; expressions as they are."""
    return _t().int32(value) if isinstance(value, int) else value


def i64(value: int | Expr) -> Expr:
    """An int64 constant; expressions as they are."""
    return _t().int64(value) if isinstance(value, int) else value


def dtype_of(value: Expr) -> str:
    """TVM's name of an expression's type."""
    return str(value.ty.dtype)


def const(value: float | int | bool, dtype: str) -> Expr:
    """A constant; infinities and NaN are allowed."""
    import tvm.tirx as tx

    return tx.const(value, dtype)


def cast(value: Expr, dtype: str) -> Expr:
    """Conversion as in C: truncation towards zero."""
    return value if dtype_of(value) == dtype else _t().Cast(dtype, value)


def select(condition: Expr, a: Expr, b: Expr) -> Expr:
    """`condition ? a : b`."""
    return _t().Select(condition, a, b)


def equal(a: Expr, b: Expr) -> Expr:
    """Whether two numbers of one type are equal."""
    import tvm.tirx as tx

    return tx.EQ(a, b)


def named(value: Expr) -> Expr:
    """A variable that holds `value`; constants and names as they are."""
    if type(value).__name__ in ("IntImm", "FloatImm", "Var"):
        return value
    return _t().bind(value)


def pure(name: str, dtype: str, *arguments: Expr) -> Expr:
    """The result of a C function without effects."""
    return _t().call_pure_extern(dtype, name, *arguments)


def call(name: str, *arguments: Expr) -> None:
    """A statement that calls a C function."""
    evaluate(_t().call_extern("void", name, *arguments))


def evaluate(value: Expr) -> None:
    """A statement that is an expression."""
    _t().evaluate(value)


def barrier() -> None:
    """Waits for all threads of the block, and makes what they wrote to shared memory visible."""
    call("__syncthreads")


# ------------------------------------------------------------------------------------------- memory


def storage(dtype: DType) -> str:
    """How an element lies in memory: booleans as bytes, half precision as 16-bit words."""
    names = {DType.BOOL: "uint8", DType.BF16: "uint16", DType.F16: "uint16"}
    return names.get(dtype, str(dtype.numpy))


def computed(dtype: DType) -> str:
    """The type of expressions: half precision is widened to float32."""
    return "float32" if dtype in (DType.BF16, DType.F16) else str(dtype.numpy)


_HALF = {DType.BF16: "bf16", DType.F16: "f16"}


def from_storage(stored: Expr, dtype: DType) -> Expr:
    """The value of what lies in memory."""
    if dtype is DType.BOOL:
        import tvm.tirx as tx

        return tx.NE(stored, const(0, "uint8"))
    if dtype in _HALF:
        return pure(f"graphc_widen_{_HALF[dtype]}", "float32", stored)
    return stored


def to_storage(value: Expr, dtype: DType) -> Expr:
    """What lies in memory for a value, rounded to nearest even in half precision."""
    if dtype is DType.BOOL:
        return cast(value, "uint8")
    if dtype in _HALF:
        return pure(f"graphc_narrow_{_HALF[dtype]}", "uint16", _unrounded(value, dtype))
    return value


def _unrounded(value: Expr, dtype: DType) -> Expr:
    """What a value was before it was rounded to half precision, as it will be when it is stored."""
    arguments: Sequence[Expr] = getattr(value, "args", ())
    if len(arguments) == 2 and getattr(arguments[0], "value", "") == f"graphc_round_{_HALF[dtype]}":
        return arguments[1]
    return value


@dataclass(frozen=True)
class Memory:
    """Elements behind a pointer: of the whole device, or of a thread (`Array`).

    Attributes:
        buffer: the flat TVM buffer.
        dtype: of an element.
        narrow: the same buffer for int32 positions, which TVM would widen term by term otherwise.
    """

    buffer: Any
    dtype: DType
    narrow: Any = None

    def _at(self, position: Expr) -> Expr:
        """The TVM element at a position."""
        return self._for(position)[position]

    def _for(self, position: Expr) -> Any:
        wide = self.narrow is None or dtype_of(position) == "int64"
        return self.buffer if wide else self.narrow

    def load(self, position: Expr) -> Expr:
        """The element at a position."""
        return from_storage(self._at(position), self.dtype)

    def store(self, position: Expr, value: Expr) -> None:
        """Replaces the element at a position."""
        _t().buffer_store(self._for(position), to_storage(value, self.dtype), [position])

    def address(self, position: Expr) -> Expr:
        """A pointer to the element at a position."""
        return _t().address_of(self._at(position))

    def fetch(
        self,
        position: Expr,
        count: int,
        alignment: int = VECTOR_BYTES,
        holds: Expr | None = None,
    ) -> Array:
        """`count` neighbours from a position on, whose address is a multiple of their bytes or of `alignment`.

        Where there is a condition that does not hold, they are zeros, and nothing is read.
        """
        array = Array(count, self.dtype)
        for first, size in self._pieces(count, alignment):
            ends = array.address(i32(first)), self.address(position + first)
            if holds is None:
                call(f"graphc_copy_{size}", *ends)
            else:
                call(f"graphc_copy_{size}_if", holds, *ends)
        return array

    def put(self, position: Expr, array: Array, alignment: int = VECTOR_BYTES) -> None:
        """Stores all of `array` from a position on."""
        for first, size in self._pieces(array.count, alignment):
            call(f"graphc_copy_{size}", self.address(position + first), array.address(i32(first)))

    def _pieces(self, count: int, alignment: int) -> Iterator[tuple[int, int]]:
        """Where each instruction starts, in elements, and the bytes it moves."""
        item = self.dtype.bytes
        size = min(alignment, VECTOR_BYTES, count * item)
        for first in range(0, count, size // item):
            yield first, size


class Array(Memory):
    """A few elements of the thread's own: registers, as long as positions are constants."""

    def __init__(self, count: int, dtype: DType) -> None:
        super().__init__(_t().alloc_buffer((count,), storage(dtype), scope="local"), dtype)
        object.__setattr__(self, "count", count)

    def store_all(self, values: Sequence[Expr]) -> None:
        """Replaces all elements: in half precision two at a time, which is twice as fast."""
        if self.dtype not in _HALF or self.count % 2:
            for i, value in enumerate(values):
                self.store(i32(i), value)
            return
        name = f"graphc_narrow_two_{_HALF[self.dtype]}"
        for i in range(0, self.count, 2):
            call(
                name, self.address(i32(i)), *(_unrounded(v, self.dtype) for v in values[i : i + 2])
            )

    count: int


def shared(count: int, dtype: DType) -> Memory:
    """Elements that all threads of the block share."""
    buffer = _t().alloc_buffer((count,), storage(dtype), scope="shared")
    return Memory(buffer, dtype)


class Variable:
    """A scalar that changes."""

    def __init__(self, value: Expr) -> None:
        self.dtype = dtype_of(value)
        self._stored = "uint8" if self.dtype == "bool" else self.dtype
        self._buffer = _t().alloc_buffer((1,), self._stored, scope="local")
        self.set(value)

    def get(self) -> Expr:
        """Its value now."""
        value = self._buffer[0]
        if self.dtype != "bool":
            return value
        import tvm.tirx as tx

        return tx.NE(value, const(0, "uint8"))

    def set(self, value: Expr) -> None:
        """Replaces it."""
        _t().buffer_store(self._buffer, cast(value, self._stored), [0])


# ------------------------------------------------------------------------------------------- control


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Runs the body where a condition holds."""
    t = _t()
    with t.If(condition), t.Then():
        yield


@contextmanager
def either(
    condition: Expr,
) -> Iterator[tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]:
    """Two bodies, to be opened in turn: the first runs where a condition holds, the second where it does not."""
    t = _t()
    with t.If(condition):
        yield t.Then(), t.Else()


@contextmanager
def loop(extent: int | Expr, *, unroll: bool = False) -> Iterator[Expr]:
    """A loop over `range(extent)`; the index has the extent's type, int32 for an int."""
    t = _t()
    stop = i32(extent)
    start = const(0, dtype_of(stop))
    with (t.unroll if unroll else t.serial)(start, stop) as index:
        yield index


# ------------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class Thread:
    """Where a thread is: int32 numbers of its block along x, y, z, and of itself in the block."""

    block: tuple[Expr, Expr, Expr]
    index: Expr


class Kernel:
    """A kernel under construction; `function` is its PrimFunc when the `with` block has ended."""

    function: Any
    thread: Thread

    def __init__(
        self, memory: Mapping[str, Memory], dims: Mapping[str, Expr], maps: Sequence[Expr]
    ) -> None:
        self.memory, self.dims, self.maps = dict(memory), dict(dims), tuple(maps)


@contextmanager
def kernel(
    name: str,
    pointers: Mapping[str, DType],
    dims: Sequence[str],
    threads: int,
    maps: int = 0,
    cluster: int = 1,
) -> Iterator[Kernel]:
    """Opens the definition of `extern "C" __global__ void name(pointers..., int64 dims..., tensor maps...)`.

    Args:
        name: the symbol.
        pointers: parameter -> element type. No two reach the same memory.
        dims: int64 parameters, which follow the pointers.
        threads: of a block.
        maps: how many tensor maps follow.
        cluster: blocks along x that run together.
    """
    from tvm.script.ir_builder import IRBuilder

    t = _t()
    with IRBuilder() as builder, t.prim_func(is_private=False):
        t.func_name(name)
        t.func_attr({"tirx.noalias": True, "global_symbol": name, CLUSTER: cluster})
        handles = {p: t.arg(p, t.handle(storage(d))) for p, d in pointers.items()}
        extents = {d: t.arg(d, t.int64()) for d in dims}
        described = [t.arg(f"map{i}", t.handle("tensormap")) for i in range(maps)]
        sizes = t.int64(1 << 46), t.int32(2**31 - 1)  # never used: positions are flat
        buffers = {
            p: [t.decl_buffer((size,), storage(d), data=handles[p]) for size in sizes]
            for p, d in pointers.items()
        }
        memory = {p: Memory(wide, pointers[p], narrow) for p, (wide, narrow) in buffers.items()}
        result = Kernel(memory, extents, described)
        big = t.int32(1 << 30)  # never used either: the launch has the grid
        with (
            t.launch_thread("blockIdx.x", big) as x,
            t.launch_thread("blockIdx.y", big) as y,
            t.launch_thread("blockIdx.z", big) as z,
            t.launch_thread("threadIdx.x", threads) as index,
        ):
            result.thread = Thread((x, y, z), index)
            yield result
    result.function = builder.get()
