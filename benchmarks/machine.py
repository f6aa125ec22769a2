"""What results depend on besides the code: processor, memory, versions, and how busy the machine is."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

from prepare import version

TOLD_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
)
"""Processor flags that decide which kernels anybody can use."""


def _fields(path: str) -> dict[str, str]:
    """`key: value` lines of a file in /proc; empty where there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def processor() -> str:
    """Name, usable processors, flags that matter, and caches."""
    cpu = _fields("/proc/cpuinfo")
    flags = set(cpu.get("flags", "").split())
    told = " ".join(f for f in TOLD_FEATURES if f in flags)
    name = cpu.get("model name", platform.processor() or platform.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} processors, {told}; cache {cpu.get('cache size', 'unknown')}"


def memory() -> str:
    """Installed memory."""
    kilobytes = _fields("/proc/meminfo").get("MemTotal", "0 kB").split()[0]
    return f"{int(kilobytes) / 2**20:.0f} GiB"


def versions(peers: Iterable[str]) -> str:
    """Python and the packages compared."""
    packages = dict.fromkeys(("graphc", *peers, "numpy"))
    found = {p: version(p) for p in packages}
    told = [f"Python {platform.python_version()}", *(f"{p} {v}" for p, v in found.items() if v)]
    return ", ".join(told)


def stolen() -> int:
    """Clock ticks (1/100 s) since boot that the hypervisor gave to other machines."""
    try:
        return int(Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[8])
    except (OSError, IndexError, ValueError):
        return 0
