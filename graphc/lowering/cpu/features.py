"""What a CPU can do: the target a module is compiled for, and the check that a machine can run it.

A target is a level of the x86-64 psABI (``x86-64-v2``, ``-v3``, ``-v4``) plus optional
extensions, written ``x86-64-v4+amx_tile+amx_bf16``; ``native`` resolves to the richest such text
that the flags of this machine allow. Extensions and required features carry the names of
``/proc/cpuinfo``, because that is what the runtime reads at load time. The CPU's marketing name is
never used: under a hypervisor LLVM takes an AMX machine for an older one.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.artifact.errors import TargetError

__all__ = ["CpuTarget", "TargetError", "detect_host", "parse_target"]


# The levels as the x86-64 psABI defines them (section "Micro-Architecture Levels"), in
# /proc/cpuinfo's spelling: SSE3 is `pni`, LZCNT is `abm`, LAHF is `lahf_lm`.
_V2 = ("cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
_LEVELS = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}

# Extensions with code of their own in a kernel family: cpuinfo's name -> (LLVM's, level needed).
_EXTENSIONS = {
    "amx_bf16": ("amx-bf16", "x86-64-v4"),
    "amx_int8": ("amx-int8", "x86-64-v4"),
    "amx_tile": ("amx-tile", "x86-64-v4"),
    "avx512_bf16": ("avx512bf16", "x86-64-v4"),
    "avx512_fp16": ("avx512fp16", "x86-64-v4"),
    "avx512_vnni": ("avx512vnni", "x86-64-v4"),
    "avx_vnni": ("avxvnni", "x86-64-v3"),
}


@dataclass(frozen=True)
class CpuTarget:
    """One instruction set to compile for.

    Attributes:
        level: the psABI level, ``"x86-64-v2"``, ``"x86-64-v3"`` or ``"x86-64-v4"``.
        extensions: names of :file:`/proc/cpuinfo` beyond the level, sorted.
    """

    level: str
    extensions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The canonical text, which :func:`parse_target` reads back."""
        return "+".join((self.level, *self.extensions))

    @property
    def required_features(self) -> tuple[str, ...]:
        """The flags (``/proc/cpuinfo`` names, sorted) without which the code must not run."""
        return tuple(sorted((*_LEVELS[self.level], *self.extensions)))

    @property
    def vector_bits(self) -> int:
        """Width of the widest vector register: 128 (v2), 256 (v3) or 512 (v4)."""
        return {"x86-64-v2": 128, "x86-64-v3": 256, "x86-64-v4": 512}[self.level]

    @property
    def vector_registers(self) -> int:
        """Number of vector registers a kernel's accumulators may share: 16, or 32 on v4."""
        return 32 if self.level == "x86-64-v4" else 16

    @property
    def fma(self) -> bool:
        """Whether a fused multiply-add exists (v3 and up)."""
        return self.level != "x86-64-v2"

    @property
    def amx_bf16(self) -> bool:
        """Whether tiles of bfloat16 can be multiplied."""
        return {"amx_tile", "amx_bf16"} <= set(self.extensions)

    @property
    def amx_int8(self) -> bool:
        """Whether tiles of 8-bit integers can be multiplied."""
        return {"amx_tile", "amx_int8"} <= set(self.extensions)

    @property
    def avx512_bf16(self) -> bool:
        """Whether AVX-512 dot products of bfloat16 pairs exist."""
        return "avx512_bf16" in self.extensions

    def lanes(self, dtype: str) -> int:
        """Elements of ``dtype`` (a NumPy or TVM name) in a full vector: 8 f32 on AVX2.

        Booleans take a byte. Raises :class:`ValueError` for a dtype without a fixed width.
        """
        if dtype == "bfloat16":
            return self.vector_bits // 16
        if dtype == "bool":
            return self.vector_bits // 8
        try:
            bits = np.dtype(dtype).itemsize * 8
        except TypeError as error:
            raise ValueError(f"{dtype!r} is no element type a vector can hold") from error
        return self.vector_bits // bits

    @property
    def mattr(self) -> tuple[str, ...]:
        """LLVM's feature switches on top of the level (which goes in as ``mcpu``)."""
        extra = tuple("+" + _EXTENSIONS[e][0] for e in self.extensions)
        # The kernels are tiled for 512-bit registers; LLVM's v4 tuning shies away from them.
        return (*extra, "-prefer-256-bit") if self.vector_bits == 512 else extra

    @property
    def optimisation(self) -> int:
        """LLVM's level for kernels, which are written as they are to run: more takes longer and makes them no faster.

        Measured with 16 registers, where level 2 is 20 % slower to compile and level 3 more (benchmarks/NOTES.md); with
        32 only that 3 does not pay.
        """
        return 2 if self.vector_registers == 32 else 1

    def tvm_target(self, level: int | None = None) -> Any:
        """The :class:`tvm.target.Target` of this instruction set (imports TVM).

        `level` is LLVM's, by default that of kernels.
        """
        import tvm

        spec: dict[str, Any] = {
            "kind": "llvm",
            "mtriple": "x86_64-unknown-linux-gnu",
            "mcpu": self.level,
            "opt-level": self.optimisation if level is None else level,
        }
        if self.mattr:
            spec["mattr"] = list(self.mattr)
        return tvm.target.Target(spec)

    def supported_by(self, host_flags: Collection[str]) -> list[str]:
        """The required features missing from ``host_flags``; empty when the code can run there."""
        return [f for f in self.required_features if f not in host_flags]


@functools.lru_cache(maxsize=1)
def detect_host() -> frozenset[str]:
    """The flags of this machine's CPU as Linux reports them, AVX state already checked by it.

    Raises :class:`TargetError` where :file:`/proc/cpuinfo` does not exist or names no x86 flags.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise TargetError(
            f"cannot read /proc/cpuinfo to find this CPU's features ({error.strerror}); "
            "name a target instead, such as x86-64-v3"
        ) from error
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    raise TargetError(
        "/proc/cpuinfo lists no x86 flags: graphc has CPU kernels for x86-64 only; "
        "cross-compile with a target such as x86-64-v3"
    )


def _native(flags: Collection[str]) -> CpuTarget:
    """The richest target whose required features are all among ``flags``."""
    for level in reversed(_LEVELS):
        if all(f in flags for f in _LEVELS[level]):
            order = list(_LEVELS)
            extensions = tuple(
                name
                for name, (_, needs) in sorted(_EXTENSIONS.items())
                if name in flags and order.index(needs) <= order.index(level)
            )
            return CpuTarget(level, extensions)
    missing = ", ".join(f for f in _V2 if f not in flags)
    raise TargetError(f"this CPU is older than x86-64-v2 (it lacks {missing})")


def parse_target(text: str, *, host_flags: Collection[str] | None = None) -> CpuTarget:
    """The target that ``text`` names.

    Args:
        text: ``native``, a level, or a level with extensions: ``x86-64-v4+amx_tile+amx_bf16``.
        host_flags: what ``native`` means; this machine's flags by default.

    Raises:
        TargetError: unknown level or extension (with the nearest name), an extension that needs a
            higher level, or ``native`` on a machine without code.
    """
    level, *extensions = text.strip().lower().split("+")
    if level == "native":
        if extensions:
            raise TargetError(
                "'native' takes no extensions: it already means all of this machine's"
            )
        return _native(detect_host() if host_flags is None else host_flags)
    if level not in _LEVELS:
        raise TargetError(_unknown("target", level, ["native", *_LEVELS]))
    order = list(_LEVELS)
    for name in extensions:
        if name not in _EXTENSIONS:
            raise TargetError(_unknown("target extension", name, list(_EXTENSIONS)))
        needs = _EXTENSIONS[name][1]
        if order.index(needs) > order.index(level):
            raise TargetError(f"extension {name!r} needs {needs}, but the target is {level}")
    return CpuTarget(level, tuple(sorted(set(extensions))))


def _unknown(kind: str, name: str, known: list[str]) -> str:
    """An error line for ``name`` that suggests the nearest of ``known``."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}"
