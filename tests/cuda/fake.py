"""A GPU for tests, where there is none: the stand-in driver (`emulator/driver.cc`), and modules for it.

`gpu()` puts it into this process as libcuda.so.1. `emulated()` lets modules be built with code that it can run;
whatever else there is about them (tables, host program, C runtime, loader) is what users get. `Gpu.array` makes device
arrays, the kind that other libraries pass through DLPack.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from graphc.artifact.arrays import numpy_dtype
from graphc.artifact.cuda import build, dlpack
from graphc.artifact.cuda.target import CudaTarget
from graphc.artifact.cuda.toolchain import Binary
from tests.cuda.emulator import HERE, compile_source

_DTYPES = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool")


@functools.cache
def library() -> Path:
    """The stand-in libcuda.so.1, compiled; its folder can go onto LD_LIBRARY_PATH."""
    key = hashlib.sha256(b"".join((HERE / n).read_bytes() for n in ("driver.cc", "machine.h")))
    folder = Path(tempfile.gettempdir()) / f"graphc-emulator-{os.getuid()}" / key.hexdigest()
    made = folder / "libcuda.so.1"
    if not made.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            command = [
                "g++",
                "-std=c++17",
                "-O1",
                "-Wall",
                "-fPIC",
                "-fvisibility=hidden",
                "-shared",
            ]
            command += ["-Wl,-soname,libcuda.so.1", "-o", "driver.so", str(HERE / "driver.cc")]
            subprocess.run([*command, "-ldl"], cwd=work, check=True)
            Path(work, "driver.so").rename(made)
    return made


class Gpu:
    """The stand-in driver of this process."""

    def __init__(self) -> None:
        # Loaded by its path, it answers to its name for everybody who asks for it later.
        self.lib = ctypes.CDLL(str(library()), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        self.lib.fake_set.argtypes = [ctypes.c_char_p, ctypes.c_longlong]
        self.lib.fake_get.restype = ctypes.c_longlong
        self.lib.fake_live.restype = ctypes.c_longlong
        self.lib.fake_copy.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t]
        self.lib.cuMemAlloc_v2.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.lib.cuMemFree_v2.argtypes = [ctypes.c_uint64]

    def count(self, what: str) -> int:
        """How often: launches, executed, captures, graphs, copies, copies in, copies out, allocations; modules open."""
        return int(self.lib.fake_get(what.encode()))

    @property
    def live(self) -> int:
        """Allocations that there are."""
        return int(self.lib.fake_live())

    @contextlib.contextmanager
    def setting(self, **values: int) -> Iterator[None]:
        """Changes settings (see driver.cc) for a while."""
        before = {"devices": 1, "major": 9, "minor": 0, "version": 13000, "memory": 1 << 40}
        for name, value in values.items():
            self.lib.fake_set(name.replace("_", " ").encode(), value)
        try:
            yield
        finally:
            for name in values:
                self.lib.fake_set(name.replace("_", " ").encode(), before.get(name, 0))

    def array(self, array: np.ndarray, dtype: str = "", skip: int = 0) -> "Array":
        """A device array with these values, in memory of its own, `skip` bytes behind its beginning."""
        return Array(self, np.ascontiguousarray(array), dtype, skip)


class Array:
    """What another library would hand over: memory on the GPU with `__dlpack__`."""

    def __init__(self, gpu: Gpu, values: np.ndarray, dtype: str, skip: int) -> None:
        self.gpu, self.like = gpu, np.empty_like(values)
        self.dtype = dtype or next(d for d in _DTYPES if numpy_dtype(d) == values.dtype)
        self.streams: list[int] = []
        at = ctypes.c_uint64()
        context = ctypes.c_void_p()
        gpu.lib.cuCtxPushCurrent_v2(None)
        size = values.nbytes + skip
        assert not size or gpu.lib.cuMemAlloc_v2(ctypes.byref(at), size) == 0
        gpu.lib.cuCtxPopCurrent_v2(ctypes.byref(context))
        self.memory, self.address = at.value, at.value + skip
        self.set(values)

    def set(self, values: np.ndarray) -> None:
        data = np.ascontiguousarray(values)
        if data.nbytes:
            self.gpu.lib.fake_copy(self.address, data.ctypes.data, data.nbytes)

    def get(self) -> np.ndarray:
        found = np.empty_like(self.like)
        if found.nbytes:
            self.gpu.lib.fake_copy(found.ctypes.data, self.address, found.nbytes)
        return found

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, 0)

    def __dlpack__(self, *, stream: int | None = None) -> object:
        assert stream is not None
        self.streams.append(stream)
        return dlpack.exported(self.address, self.like.shape, self.dtype, 0, self)

    def __del__(self) -> None:
        context = ctypes.c_void_p()
        self.gpu.lib.cuCtxPushCurrent_v2(None)
        if self.memory:
            self.gpu.lib.cuMemFree_v2(self.memory)
        self.gpu.lib.cuCtxPopCurrent_v2(ctypes.byref(context))


@functools.cache
def gpu() -> Gpu:
    """The stand-in driver, in this process."""
    return Gpu()


@contextlib.contextmanager
def emulated() -> Iterator[Gpu]:
    """While this lasts, modules for GPUs are built with code that the stand-in driver runs."""

    def compiled(source: str, target: CudaTarget) -> Binary:
        return Binary(compile_source(source), b"", "")

    with mock.patch.object(build, "compile_source", compiled):
        yield gpu()
