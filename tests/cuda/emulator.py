"""CUDA programs run on the CPU: the same source, compiled by g++ against `emulator/device.h`.

`Emulated` is one program; `run` executes a `DeviceProgram` on NumPy arrays. Memory that kernels see ends where a page
without access begins, and begins as NaN; an access outside of it, a barrier that not all threads reach, an array index
out of bounds or a misaligned vector raises `EmulatorError` with the kernel, the block and the thread.
"""

import ctypes
import functools
import hashlib
import mmap
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from graphc.artifact.device import Address, DeviceProgram, Launch, Loop, Step, TensorMap
from graphc.ir.dim import DimLike, evaluate

HERE = Path(__file__).parent / "emulator"
FLAGS = (
    *("-std=c++17", "-O0", "-march=x86-64-v3", "-ffp-contract=off", "-fPIC", "-w"),
    *("-fno-strict-aliasing", "-fvisibility=hidden"),  # GPU code reinterprets memory freely
    *("-fsanitize=bounds,alignment", "-fsanitize-undefined-trap-on-error"),
    *("-I", str(HERE / "include")),
)
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?'
    r"(?:__cluster_dims__\((\d+), 1, 1\)\s+)?(\w+)\s*\("
)
_ALIGNED = re.compile(r"__shared__\s+alignas\((\d+)\)")  # g++ wants it elsewhere
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w\s]+?)\s+(\w+)\[\];")
_PAGE = mmap.PAGESIZE
_MAP_TYPES = {"f16": 6, "f32": 7, "f64": 8, "bf16": 9}
_SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}


class EmulatorError(RuntimeError):
    """A program that g++ refuses, or a launch that a GPU would have failed, hung or got wrong."""


def compile_source(source: str) -> bytes:
    """The shared object of a program: `emulated_launch` of machine.h and its kernels. Cached on disk."""
    clusters = {name: int(size or 1) for size, name in _KERNEL.findall(source)}
    text = _ALIGNED.sub(r"__shared__ __align__(\1)", source)
    text = _DYNAMIC.sub(r"\1* \2 = (\1*)machine::dynamic_shared();", text)
    entries = "".join(
        f'    {{"{n}", machine::Entry<&{n}>::invoke, machine::Entry<&{n}>::sizes, '
        f"machine::Entry<&{n}>::count, {size}}},\n"
        for n, size in clusters.items()
    )
    visible = '__attribute__((visibility("default")))'
    text += (
        f'\nextern "C" {{ {visible} extern const machine::Kernel emulated_kernels[] = {{\n{entries}'
        "    {nullptr, nullptr, nullptr, 0, 1}};\n"
        f"{visible} extern const size_t emulated_kernel_count = {len(clusters)}; }}\n"
    )
    digest = hashlib.sha256(text.encode())
    for path in sorted(HERE.rglob("*.*")):
        digest.update(path.read_bytes())
    return _compiled(text, digest.hexdigest())


@functools.lru_cache(maxsize=256)
def _compiled(text: str, key: str) -> bytes:
    cache = Path(tempfile.gettempdir()) / f"graphc-emulator-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    made = cache / f"{key}.so"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            work = Path(folder)
            (work / "program.cc").write_text('#include "device.h"\n' + text)
            _run(["g++", *FLAGS, "-I", str(HERE), "-c", "program.cc"], work)
            objects = ["program.o", str(_machine(cache))]
            _run(["g++", "-shared", "-Wl,-Bsymbolic", "-o", "program.so", *objects], work)
            (work / "program.so").rename(made)
    return made.read_bytes()


def _machine(cache: Path) -> Path:
    """machine.cc, compiled."""
    key = hashlib.sha256(b"".join((HERE / f"machine.{e}").read_bytes() for e in ("h", "cc")))
    made = cache / f"machine-{key.hexdigest()}.o"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            command = ["g++", "-std=c++17", "-O2", "-fPIC", "-Wall", "-c", str(HERE / "machine.cc")]
            _run([*command, "-o", "machine.o"], Path(folder))
            (Path(folder) / "machine.o").rename(made)
    return made


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmulatorError("\n".join([" ".join(command[:1]), *done.stderr.splitlines()[:40]]))


class Emulated:
    """A loaded program."""

    def __init__(self, source: str) -> None:
        self.library = _load(compile_source(source))

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[int | bytes],
        shared_bytes: int = 0,
        reverse: bool = False,
    ) -> None:
        """Runs a kernel: `arguments` are addresses and int64, or the bytes of a struct.

        `reverse` runs blocks and threads last to first: results that differ show a missing barrier.
        """
        if 0 in grid:
            return
        found = self.library.emulated_kernel(kernel.encode())
        if not found:
            raise EmulatorError(f"the program has no kernel `{kernel}`")
        expected = list(found.contents.sizes[: found.contents.arguments])
        values = [
            ctypes.create_string_buffer(a, len(a)) if isinstance(a, bytes) else ctypes.c_int64(a)
            for a in arguments
        ]
        given = [ctypes.sizeof(v) for v in values]
        if given != expected:
            raise EmulatorError(
                f"`{kernel}` takes arguments of {expected} bytes, given are {given}"
            )
        pointers = (ctypes.c_void_p * (len(values) + 1))(*map(ctypes.addressof, values))
        three = ctypes.c_uint * 3
        if self.library.emulated_launch(
            found, three(*grid), three(*block), shared_bytes, pointers, int(reverse)
        ):
            raise EmulatorError(self.library.emulated_error().decode())

    def tensor_map(self, map: TensorMap, base: int, env: Mapping[str, int]) -> bytes:
        """What a launch is given for a map of memory at `base`. Raises EmulatorError where the driver refuses it."""
        shape = [evaluate(d, env) for d in map.shape]
        strides = [evaluate(d, env) for d in map.strides]
        encoded = ctypes.create_string_buffer(128)
        if 0 in shape:  # nothing is copied from it (cuda_frame.c)
            return encoded.raw
        if not self.library.emulated_tensor_map(
            encoded,
            _MAP_TYPES[map.dtype],
            len(shape),
            base,
            (ctypes.c_uint64 * len(shape))(*shape),
            (ctypes.c_uint64 * len(shape))(*strides),
            (ctypes.c_uint32 * len(shape))(*map.box),
            _SWIZZLES[map.swizzle],
        ):
            raise EmulatorError(f"the driver refuses {map}")
        return encoded.raw


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("invoke", ctypes.c_void_p),
        ("sizes", ctypes.POINTER(ctypes.c_size_t)),
        ("arguments", ctypes.c_size_t),
        ("cluster", ctypes.c_uint),
    )


@functools.lru_cache(maxsize=256)
def _load(image: bytes) -> ctypes.CDLL:
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(image)
        file.flush()
        library = ctypes.CDLL(file.name, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    library.emulated_kernel.restype = ctypes.POINTER(_Kernel)
    library.emulated_error.restype = ctypes.c_char_p
    library.emulated_tensor_map.argtypes = (
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p),
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
    )
    return library


class Memory:
    """`size` bytes of 0xff (NaN, -1) that end, up to alignment, where a page without access begins."""

    def __init__(self, size: int, alignment: int = 16) -> None:
        self.size = size
        room = -(-max(size, 1) // _PAGE) * _PAGE
        self._map = mmap.mmap(-1, room + _PAGE)
        self._buffer = (ctypes.c_char * (room + _PAGE)).from_buffer(self._map)
        start = ctypes.addressof(self._buffer)
        ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(_PAGE), 0)
        self.address = start + room - -(-size // alignment) * alignment
        ctypes.memset(self.address, 0xFF, size)

    def write(self, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array)
        ctypes.memmove(self.address, data.ctypes.data, data.nbytes)

    def read(self, like: np.ndarray) -> np.ndarray:
        raw = ctypes.string_at(self.address, like.nbytes)
        return np.frombuffer(raw, like.dtype).reshape(like.shape).copy()


def run(
    program: DeviceProgram,
    *,
    inputs: Sequence[np.ndarray] = (),
    outputs: Sequence[np.ndarray] = (),
    weights: Sequence[np.ndarray] = (),
    arena_bytes: DimLike = 0,
    dims: Mapping[str, int] | None = None,
    reverse: bool = False,
) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """Executes a device program, each array in memory of its own.

    `outputs` say dtypes and shapes. Returns the inputs after the call (for state), the outputs and the fault record.
    """
    sizes = dict(dims or {})
    emulated = Emulated(program.source)
    memory = {
        "input": [_holding(a, 16) for a in inputs],
        "output": [Memory(a.nbytes, 16) for a in outputs],
        "weight": [_holding(a, 64) for a in weights],
        "arena": [Memory(evaluate(arena_bytes, sizes), 64)],
        "fault": [_holding(np.zeros(4, np.uint64), 8)],
    }

    def value(argument: Address | TensorMap | DimLike, env: Mapping[str, int]) -> int | bytes:
        if isinstance(argument, TensorMap):
            base = memory[argument.base.space][argument.base.index].address
            return emulated.tensor_map(argument, base + evaluate(argument.base.offset, env), env)
        if isinstance(argument, Address):
            base = memory[argument.space][argument.index].address
            return base + evaluate(argument.offset, env)
        return evaluate(argument, env)

    def execute(steps: Sequence[Step], env: dict[str, int]) -> None:
        for step in steps:
            if isinstance(step, Loop):
                for i in range(evaluate(step.length, env)):
                    execute(step.body, {**env, step.variable: i})
            else:
                launch(step, env)

    def launch(step: Launch, env: Mapping[str, int]) -> None:
        grid = [evaluate(g, env) for g in step.grid]
        arguments = [value(a, env) for a in step.arguments]
        emulated.launch(step.kernel, grid, step.block, arguments, step.shared_bytes, reverse)

    for call in program.calls:
        execute(call, sizes)
    after = [m.read(a) for m, a in zip(memory["input"], inputs, strict=True)]
    results = [m.read(a) for m, a in zip(memory["output"], outputs, strict=True)]
    return after, results, [int(v) for v in memory["fault"][0].read(np.zeros(4, np.uint64))]


def _holding(array: np.ndarray, alignment: int) -> Memory:
    memory = Memory(array.nbytes, alignment)
    memory.write(array)
    return memory
