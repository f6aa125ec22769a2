"""What selection decides for a fusion: which family emits it, how its weights are packed, what scratch it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.dim import DimLike

if TYPE_CHECKING:
    from graphc.lowering.cpu.io import KernelIO

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Packing:
    """How a build-time operand is laid out for a kernel: `pack(array)`; equal `name`s mean equal layouts."""

    name: str
    pack: Callable[[Array], Array]


@dataclass(frozen=True)
class Kernel:
    """A selected kernel. `emit(io)` writes its loops into the open kernel frame."""

    family: str
    emit: Callable[[KernelIO], None]
    scratch: DimLike = 0
    packing: Mapping[int, Packing] = field(default_factory=dict)
