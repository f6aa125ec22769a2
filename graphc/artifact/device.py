"""What lowering hands over for a GPU: the CUDA C of all kernels, and the launches of one call, as plain data.

The device program takes the place of object code (`spec.py`): everything else about the module is its `ModuleSpec`.
Sizes and addresses are polynomials in the named dims, and inside a `Loop` in its variable too; the host evaluates them
at each call.

The contract with the kernels:

- Each is `extern "C" __global__ void name(arguments...)` and takes one parameter for each argument of its launch: an
  `Address` is a pointer, a dim an `int64_t`, a `TensorMap` a `const __grid_constant__ CUtensorMap`.
- Inputs and outputs are dense and row major, and aligned to 16 bytes; weights and arena offsets that are multiples of
  64 are aligned to 64 bytes. No output and no state overlaps anything. What the arena holds at the start is arbitrary.
- Launches run in order, each after the end of the one before. A launch with an empty grid is left out.
- `Address("fault")` points to an `unsigned long long[4]` of zeros. A kernel that meets an index out of range clamps it,
  and the first thread to find (atomicCAS) a zero in place 0 stores {fault id + 1, the index, its position, the limit};
  the call then fails with that fault's message. Nobody reads the record before the call has ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from graphc.artifact.errors import ModuleSpecError
from graphc.artifact.spec import ModuleSpec
from graphc.ir.dim import DimLike, names_of

Space = Literal["input", "output", "weight", "arena", "fault"]

MAX_THREADS = 1024
"""Most threads of a block."""

MAX_GRID = (2**31 - 1, 65535, 65535)
"""Most blocks along x, y and z."""

MAX_SHARED = 227 << 10
"""Most bytes of shared memory of one block, on any GPU up to sm_90."""


@dataclass(frozen=True)
class Address:
    """Bytes on the device: an input, output or weight by its index, the arena, or the fault record; `offset` in bytes.

    A state input is written through its input. Weights are counted as in `ModuleSpec.weights`.
    """

    space: Space
    index: int = 0
    offset: DimLike = 0


@dataclass(frozen=True)
class TensorMap:
    """A tensor as the TMA unit sees it (`cuTensorMapEncodeTiled`), the innermost axis first.

    Attributes:
        base: its first byte, 16-byte aligned.
        dtype: of an element, as in .nn files: `bf16`, `f16`, `f32`.
        shape: elements along each axis; reads beyond are zeros.
        strides: bytes from one element to the next along each axis but the innermost, multiples of 16.
        box: elements that one copy moves along each axis.
        swizzle: bytes of the swizzle: 0 (none), 32, 64 or 128.
    """

    base: Address
    dtype: str
    shape: tuple[DimLike, ...]
    strides: tuple[DimLike, ...]
    box: tuple[int, ...]
    swizzle: int = 0


Argument = Address | TensorMap | DimLike


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: its name in the source.
        grid: blocks along x, y, z.
        block: threads along x, y, z.
        shared_bytes: dynamic shared memory of a block.
        arguments: in the order of the kernel's parameters.
    """

    kernel: str
    grid: tuple[DimLike, DimLike, DimLike]
    block: tuple[int, int, int]
    arguments: tuple[Argument, ...]
    shared_bytes: int = 0


@dataclass(frozen=True)
class Loop:
    """Launches that are repeated with `variable` counting from 0 to `length - 1`: a dim for the sizes inside."""

    variable: str
    length: DimLike
    body: tuple[Step, ...]


Step = Launch | Loop


@dataclass(frozen=True)
class DeviceProgram:
    """The code of a module for GPUs.

    Attributes:
        source: CUDA C++17 of all kernels; includes at most CUDA's own headers.
        calls: for each of `ModuleSpec.kernels` what is launched, in order.
    """

    source: str
    calls: tuple[tuple[Step, ...], ...]

    @property
    def launches(self) -> tuple[Launch, ...]:
        """Every launch, each loop's body once."""
        return tuple(launch for call in self.calls for launch in _launches(call))


def _launches(steps: Sequence[Step]) -> Iterator[Launch]:
    for step in steps:
        if isinstance(step, Loop):
            yield from _launches(step.body)
        else:
            yield step


def check_program(program: DeviceProgram, spec: ModuleSpec) -> None:
    """Raises ModuleSpecError where a program and its module's description do not fit each other."""
    if len(program.calls) != len(spec.kernels):
        raise ModuleSpecError(
            f"{len(program.calls)} calls for {len(spec.kernels)} kernels: each kernel has one call"
        )
    dims = frozenset(d.name for d in spec.dims)
    for launch in program.launches:
        if not re.search(rf"\b{re.escape(launch.kernel)}\s*\(", program.source):
            raise ModuleSpecError(f"kernel `{launch.kernel}` is launched and not in the source")
    for call in program.calls:
        _check_steps(call, spec, dims)


def _check_steps(steps: Sequence[Step], spec: ModuleSpec, dims: frozenset[str]) -> None:
    for step in steps:
        if isinstance(step, Loop):
            _check_dims(step.length, dims, f"the length of loop `{step.variable}`")
            if step.variable in dims:
                raise ModuleSpecError(f"loop variable `{step.variable}` is also a dim")
            _check_steps(step.body, spec, dims | {step.variable})
        else:
            _check_launch(step, spec, dims)


def _check_launch(launch: Launch, spec: ModuleSpec, dims: frozenset[str]) -> None:
    what = f"kernel `{launch.kernel}`"
    x, y, z = launch.block
    if min(launch.block) < 1 or x * y * z > MAX_THREADS or z > 64:
        raise ModuleSpecError(f"{what} has a block of {x} x {y} x {z} threads")
    if not 0 <= launch.shared_bytes <= MAX_SHARED:
        raise ModuleSpecError(f"{what} asks for {launch.shared_bytes} bytes of shared memory")
    for size, limit in zip(launch.grid, MAX_GRID, strict=True):
        _check_dims(size, dims, f"the grid of {what}")
        if isinstance(size, int) and not 0 <= size <= limit:
            raise ModuleSpecError(f"{what} has a grid of {size} blocks along an axis")
    for argument in launch.arguments:
        if isinstance(argument, TensorMap):
            _check_address(argument.base, spec, dims, what)
            for size in (*argument.shape, *argument.strides):
                _check_dims(size, dims, what)
            if not len(argument.shape) == len(argument.strides) + 1 == len(argument.box):
                raise ModuleSpecError(f"{what} has a tensor map whose ranks differ")
        elif isinstance(argument, Address):
            _check_address(argument, spec, dims, what)
        else:
            _check_dims(argument, dims, what)


def _check_address(address: Address, spec: ModuleSpec, dims: frozenset[str], what: str) -> None:
    counts = {
        "input": len(spec.inputs),
        "output": len(spec.outputs),
        "weight": len(spec.weights),
        "arena": 1,
        "fault": 1,
    }
    if not 0 <= address.index < counts[address.space]:
        raise ModuleSpecError(f"{what} reads {address.space} {address.index}, which there is not")
    _check_dims(address.offset, dims, what)


def _check_dims(size: DimLike, dims: frozenset[str], what: str) -> None:
    if unknown := set(names_of(size)) - dims:
        raise ModuleSpecError(f"{what} uses unknown dims: {', '.join(sorted(unknown))}")
