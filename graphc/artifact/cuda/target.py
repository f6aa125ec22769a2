"""Which GPU a module is compiled for: `cuda`, or `cuda:sm_80` with an architecture of its own."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from graphc.artifact.errors import TargetError

ARCHITECTURES = (
    "sm_80",  # A100
    "sm_86",  # RTX 30, A10, A40
    "sm_87",  # Jetson Orin
    "sm_89",  # RTX 40, L4, L40
    "sm_90",  # H100, H200
    "sm_90a",  # the same, with instructions that no other GPU has
    "sm_100",  # B200
    "sm_103",  # B300
    "sm_110",  # Jetson Thor
    "sm_120",  # RTX 50
    "sm_121",  # GB10
)
"""Architectures that code can be compiled for. Kernels need bfloat16 and asynchronous copies, so sm_80 or later."""

DEFAULT = "sm_90"
_PREFIX = "cuda"


@dataclass(frozen=True)
class CudaTarget:
    """One GPU architecture, such as `sm_90a`."""

    arch: str

    @property
    def name(self) -> str:
        """The canonical text, which `parse_cuda_target` reads back: `cuda:sm_90`."""
        return f"{_PREFIX}:{self.arch}"

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability: (9, 0)."""
        number = int(re.sub(r"\D", "", self.arch))
        return divmod(number, 10)

    @property
    def specific(self) -> bool:
        """Whether the code runs on this architecture alone, so that there is no PTX for later ones."""
        return self.arch.endswith("a")


def is_cuda(text: str) -> bool:
    """Whether a target text names a GPU, well or badly."""
    return text.strip().lower().split(":")[0] == _PREFIX


def parse_cuda_target(text: str) -> CudaTarget:
    """The target that a text names: `cuda` (sm_90), `cuda:sm_80`.

    Raises TargetError for another architecture, with the nearest that there is.
    """
    _, colon, arch = text.strip().lower().partition(":")
    if not colon:
        return CudaTarget(DEFAULT)
    if arch in ARCHITECTURES:
        return CudaTarget(arch)
    near = difflib.get_close_matches(arch, ARCHITECTURES, n=1, cutoff=0.4)
    hint = f"did you mean {_PREFIX}:{near[0]}? " if near else ""
    raise TargetError(f"unknown GPU architecture {arch!r}; {hint}Known: {', '.join(ARCHITECTURES)}")
