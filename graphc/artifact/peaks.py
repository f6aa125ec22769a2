"""What the machine can do at best, measured: the yardstick of a profile."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from graphc.artifact.compiler import find_compiler
from graphc.artifact.errors import ModuleCompilerError
from graphc.artifact.header import NATIVE


@dataclass(frozen=True)
class Peaks:
    """10^9 f32 operations a second from registers, and 10^9 bytes a second read from memory, with `threads` threads."""

    gflops: float
    gbytes: float
    threads: int


def measure_peaks(threads: int) -> Peaks:
    """Compiles `native/peaks.c` for this machine and runs it, which takes about a second.

    Raises ModuleCompilerError when there is no C compiler, or the program fails.
    """
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="graphc-") as folder:
        program = Path(folder) / "peaks"
        build = [*compiler, "-O3", "-march=native", "-ffast-math", "-pthread"]
        build += [str(NATIVE / "peaks.c"), "-o", str(program)]
        try:
            subprocess.run(
                build, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"}
            )
            done = subprocess.run(
                [str(program), str(threads)], check=True, capture_output=True, text=True, timeout=60
            )
            gflops, gbytes = (float(word) for word in done.stdout.split())
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise ModuleCompilerError(
                f"this machine's peaks cannot be measured: {error}"
            ) from error
    return Peaks(gflops, gbytes, threads)
