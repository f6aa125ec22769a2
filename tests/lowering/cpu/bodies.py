"""Compiles fusion bodies as kernels and calls them on NumPy arrays; many bodies share one object."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphc.ir.graph import Graph
from graphc.lowering.cpu.build import compile_object
from graphc.lowering.cpu.emit import View, kernel
from graphc.lowering.cpu.features import CpuTarget, parse_target
from graphc.lowering.cpu.io import FAULT_WORDS, KernelIO
from graphc.lowering.cpu.trace import checked_nodes

from .harness import _LAUNCHER as LAUNCHER
from .harness import guarded, misaligned

Emit = Callable[[Graph, CpuTarget, KernelIO], None]
NATIVE = parse_target("native")


def function(name: str, body: Graph, emit: Emit, target: CpuTarget) -> Any:
    """The public PrimFunc `name(operands..., results..., fault, dims...)`."""
    inputs = {f"x{i}": n.types[0] for i, n in enumerate(body.inputs)}
    outputs = {f"y{i}": body.type_of(v) for i, (_, v) in enumerate(body.outputs)}
    pointers = {p: str(t.dtype.numpy) for p, t in (inputs | outputs).items()}
    with kernel(name, pointers | {"fault": "int64"}, dims=tuple(body.dims), public=True) as k:
        dims = {d: k.dim(d) for d in body.dims}

        def view(pointer: str) -> View:
            return k.view(pointer, (1 << 40,))

        fault = k.view("fault", (FAULT_WORDS,))
        io = KernelIO(
            tuple(map(view, inputs)),
            tuple(map(view, outputs)),
            dims,
            fault=fault if checked_nodes(body) else None,
            in_place=(None,) * len(outputs),
        )
        emit(body, target, io)
    return k.function


class Kernels:
    """Compiled bodies, by name."""

    def __init__(
        self, bodies: Mapping[str, Graph], emit: Emit, target: CpuTarget = NATIVE
    ) -> None:
        self.bodies = dict(bodies)
        functions = {n: function(n, b, emit, target) for n, b in bodies.items()}
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
        return tuple(array for array, _ in results)
