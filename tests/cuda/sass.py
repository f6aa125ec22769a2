"""What the assembler made of kernels: their instructions (nvdisasm, from pip), registers and spills (its log)."""

import importlib.util
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")


def instructions(cubin: bytes) -> dict[str, Counter[str]]:
    """How often each instruction occurs in each kernel, by its name without modifiers: `HMMA`, `LDL`."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_nvdisasm()), "-c", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Counter[str]] = {}
    name = ""
    for line in text.splitlines():
        if section := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            name = section.group(1)
            found[name] = Counter()
        elif name and (one := _INSTRUCTION.match(line)):
            found[name][one.group(1).split(".")[0]] += 1
    return found


def _nvdisasm() -> Path:
    spec = importlib.util.find_spec("nvidia")
    assert spec is not None and spec.submodule_search_locations is not None
    places = [Path(p) / "cu13" / "bin" / "nvdisasm" for p in spec.submodule_search_locations]
    return next(p for p in places if p.exists())


@dataclass(frozen=True)
class Resources:
    """Of one kernel: registers of a thread, bytes of its stack, bytes spilled there."""

    registers: int
    stack: int
    spilled: int


def resources(log: str) -> dict[str, Resources]:
    """What the assembler's log says about each kernel."""
    found: dict[str, Resources] = {}
    for part in re.split(r"Compiling entry function ", log)[1:]:
        name = re.match(r"'(\w+)'", part)
        stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", part)
        registers = re.search(r"Used (\d+) registers", part)
        assert name and stack and registers, part
        found[name.group(1)] = Resources(int(registers[1]), int(stack[1]), int(stack[2]))
    return found
