"""What a kernel family gets to work with, and what it hands back: the memory of one kernel, and its launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphc.ir.dim import DimLike
from graphc.lowering.cuda.emit import VECTOR_BYTES, Expr, Memory, Thread
from graphc.lowering.packing import Packing

if TYPE_CHECKING:
    from graphc.lowering.cuda.regions.choice import Choice
    from graphc.lowering.cuda.regions.loop import ScanLoop
    from graphc.lowering.generic.streams import General

__all__ = ["Kernel", "KernelIO", "MapOf", "Setting", "Stage"]


@dataclass(frozen=True)
class Setting:
    """What selection goes by, besides the fusion.

    Attributes:
        precision: what products of f32 multiply: `f32` or `tf32`.
        alignment: bytes of which every operand's and result's address is a multiple.
        warp_groups: whether the GPU has tensor maps and products of warp groups (sm_90a).
    """

    precision: str = "f32"
    alignment: int = VECTOR_BYTES
    warp_groups: bool = False


@dataclass(frozen=True)
class MapOf:
    """A tensor map of an operand: `artifact.device.TensorMap`, with its slot for the base."""

    slot: int
    dtype: str
    shape: tuple[DimLike, ...]
    strides: tuple[DimLike, ...]
    box: tuple[int, ...]
    swizzle: int


@dataclass(frozen=True)
class KernelIO:
    """The surroundings of one kernel, valid inside its open frame.

    Attributes:
        operands: memory of the body's inputs, in order: dense, row major.
        results: memory of the body's outputs, in order, likewise.
        dims: int64 expressions of the named dims.
        thread: the block's and the thread's numbers.
        fault: a pointer to the fault record, or None when the body checks no index.
        fault_base: the fault id of the kernel's first checked node (see `trace.checked_nodes`); the
            others follow in node order.
        scratch: bytes of the arena that the family asked for, as elements of its type, or None.
        alignment: bytes of which every operand's and result's address is a multiple.
        maps: the stage's tensor maps, in order.
    """

    operands: tuple[Memory, ...]
    results: tuple[Memory, ...]
    dims: Mapping[str, Expr]
    thread: Thread
    fault: Expr | None = None
    fault_base: Expr | int = 0
    scratch: Memory | None = None
    alignment: int = VECTOR_BYTES
    maps: tuple[Expr, ...] = ()


@dataclass(frozen=True, eq=False)
class Stage:
    """One launch of a kernel: `emit(io)` writes what a thread does.

    Attributes:
        grid: blocks along x, y, z.
        threads: of a block.
        shared_bytes: dynamic shared memory of a block.
        maps: tensor maps that it is given.
        cluster: neighbouring blocks along x that run together.
    """

    emit: Callable[[KernelIO], None]
    grid: tuple[DimLike, DimLike, DimLike]
    threads: int
    shared_bytes: int = 0
    maps: tuple[MapOf, ...] = ()
    cluster: int = 1


@dataclass(frozen=True, eq=False)
class Kernel:
    """What selection decides for a fusion: which family takes it, and how it is launched.

    Attributes:
        family: its name, for people.
        stages: launches, one after another, all with the same arguments.
        scratch: bytes of the arena.
        packing: operands that are laid out anew.
        alignment: bytes of which every operand's and result's address is a multiple.
        inside: what it launches instead of stages: a loop or a choice.
        alike: what it computes where that is more than the fusion it was selected for: the same with other numbers,
            which a launch gives.
    """

    family: str
    stages: tuple[Stage, ...]
    scratch: DimLike = 0
    packing: Mapping[int, Packing] = field(default_factory=dict)
    alignment: int = VECTOR_BYTES
    inside: ScanLoop | Choice | None = None
    alike: General | None = None
