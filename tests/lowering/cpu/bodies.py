"""Compiles fusion bodies as kernels and calls them on NumPy arrays; many bodies share one object."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.ir.dim import Bounds, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.types import TensorType
from graphc.lowering.cpu.build import compile_object
from graphc.lowering.cpu.emit import View, kernel
from graphc.lowering.cpu.features import CpuTarget, parse_target
from graphc.lowering.cpu.io import FAULT_WORDS, KernelIO
from graphc.lowering.generic.trace import checked_nodes
from graphc.ops import Fusion, Input

from .harness import _LAUNCHER as LAUNCHER
from .harness import TARGETS, can_run, guarded, misaligned, target_id

Emit = Callable[[Graph, CpuTarget, KernelIO], None]
NATIVE = parse_target("native")


def function(
    name: str, body: Graph, emit: Emit, target: CpuTarget, in_place: int | None = None
) -> Any:
    """The public PrimFunc `name(operands..., results..., fault, dims...)`.

    With `in_place` the first result is written over that operand, and its own pointer is ignored.
    """
    inputs = {f"x{i}": n.types[0] for i, n in enumerate(body.inputs)}
    outputs = {f"y{i}": body.type_of(v) for i, (_, v) in enumerate(body.outputs)}
    pointers = {p: str(t.dtype.numpy) for p, t in (inputs | outputs).items()}
    with kernel(name, pointers | {"fault": "int64"}, dims=tuple(body.dims), public=True) as k:
        dims = {d: k.dim(d) for d in body.dims}

        def view(pointer: str) -> View:
            return k.view(pointer, (1 << 40,))

        fault = k.view("fault", (FAULT_WORDS,))
        results = [view(p) for p in outputs]
        if in_place is not None:
            results[0] = view(f"x{in_place}")
        io = KernelIO(
            tuple(map(view, inputs)),
            tuple(results),
            dims,
            fault=fault if checked_nodes(body) else None,
            in_place=(in_place, *(None,) * (len(outputs) - 1)),
        )
        emit(body, target, io)
    return k.function


class Kernels:
    """Compiled bodies, by name."""

    def __init__(
        self,
        bodies: Mapping[str, Graph],
        emit: Emit,
        target: CpuTarget = NATIVE,
        in_place: int | None = None,
    ) -> None:
        self._in_place = in_place
        self.bodies = dict(bodies)
        functions = {n: function(n, b, emit, target, in_place) for n, b in bodies.items()}
        self.functions = functions
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "kernels.o").write_bytes(compile_object(functions, target))
        (folder / "launch.c").write_text(LAUNCHER)
        command = ["cc", "-O1", "-shared", "-fPIC", "-Wl,-z,defs", "-o", "kernels.so"]
        subprocess.run(
            [*command, "launch.c", "kernels.o", "-lpthread"], cwd=folder, check=True, timeout=120
        )
        self._library = ctypes.CDLL(str(folder / "kernels.so"))
        self._library.harness_init()
        self.fault = np.zeros(FAULT_WORDS, np.int64)

    def __call__(
        self, name: str, *operands: np.ndarray, threads: int = 2, **dims: int
    ) -> tuple[np.ndarray, ...]:
        """Runs a kernel on misaligned copies; the bytes around its results must stay as they were."""
        body = self.bodies[name]
        results = [
            guarded(body.type_of(v).concrete(dims), str(body.type_of(v).dtype.numpy))
            for _, v in body.outputs
        ]
        self.fault[:] = 0
        self._library.harness_threads(threads)
        arrays = [misaligned(np.ascontiguousarray(x)) for x in operands]
        arrays += [array for array, _ in results] + [self.fault]
        call = getattr(self._library, name)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
        assert call(*pointers, *(ctypes.c_int64(dims[d]) for d in body.dims)) == 0
        for _, intact in results:
            assert intact(), f"{name} wrote outside of its result"
        if self._in_place is not None:
            return (arrays[self._in_place],)
        return tuple(array for array, _ in results)


def body(
    write: Callable[..., Value | Sequence[Value]],
    *operands: tuple[DimLike, ...] | TensorType,
    dims: Mapping[str, Bounds] | None = None,
) -> Graph:
    """A body: `write(builder, *inputs)` gives its outputs; operands are f32 shapes or types."""
    b = GraphBuilder("body", dims or {})
    types = [o if isinstance(o, TensorType) else TensorType(DType.F32, o) for o in operands]
    inputs = [b(Input(f"x{i}", t.dtype, t.shape)) for i, t in enumerate(types)]
    outputs = write(b, *inputs)
    many = [outputs] if isinstance(outputs, Value) else list(outputs)
    return b.build([(f"y{i}", v) for i, v in enumerate(many)])


def operands(graph: Graph, seed: int = 0, **dims: int) -> list[np.ndarray]:
    """Normal floats and small integers, for the inputs of a body."""
    rng = np.random.default_rng(seed)
    arrays = []
    for node in graph.inputs:
        shape, dtype = node.types[0].concrete(dims), node.types[0].dtype
        numbers = rng.standard_normal(shape) if dtype.is_float else rng.integers(0, 3, shape)
        arrays.append(np.asarray(numbers).astype(dtype.numpy))
    return arrays


def expected(graph: Graph, arrays: Sequence[np.ndarray], **dims: int) -> tuple[np.ndarray, ...]:
    """What the interpreter makes of a body."""
    fixed = graph.substitute_dims(dims) if dims else graph
    return Fusion("body", fixed).evaluate(*arrays)


def close(actual: np.ndarray, wanted: np.ndarray, tolerance: float = 2e-5) -> None:
    """Equal shapes and types; floats up to the rounding of a few operations."""
    assert actual.shape == wanted.shape
    assert actual.dtype == wanted.dtype
    eps = {"float64": 1e-12, "float32": tolerance, "float16": 4e-3, "bfloat16": 3e-2}
    bound = eps.get(wanted.dtype.name, 0)
    a, b = (x.astype(np.float64) if bound else x for x in (actual, wanted))
    np.testing.assert_allclose(a, b, rtol=bound, atol=bound)


def check(kernels: Kernels, name: str, seed: int = 0, **dims: int) -> None:
    """A kernel against the interpreter, on random operands."""
    graph = kernels.bodies[name]
    used = {d: dims[d] for d in graph.dims}
    arrays = operands(graph, seed, **used)
    results = kernels(name, *arrays, **used)
    for actual, wanted in zip(results, expected(graph, arrays, **used), strict=True):
        close(actual, wanted)
    assert not kernels.fault.any()


def kernels_by_target(bodies: Mapping[str, Graph], emit: Emit) -> Any:
    """A fixture: the bodies as kernels for every target, None where this machine cannot run them."""

    @pytest.fixture(scope="module", params=TARGETS, ids=target_id)
    def named(request: pytest.FixtureRequest) -> Kernels | None:
        kernels = Kernels(bodies, emit, request.param)
        return kernels if can_run(request.param) else None

    return named
