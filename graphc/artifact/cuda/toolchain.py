"""From CUDA C to machine code, on machines without a GPU: NVRTC where it is installed, else nvcc.

Never with fast-math: what a kernel computes is what its source says, apart from products and sums that become one fused
multiply-add, as everywhere in CUDA.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from graphc.artifact import cache
from graphc.artifact.cuda.nvrtc import Nvrtc, find_nvrtc
from graphc.artifact.cuda.target import CudaTarget
from graphc.artifact.errors import ModuleCompilerError

VARIABLE = "GRAPHC_NVCC"
"""The environment variable that names an nvcc to compile with, instead of NVRTC."""

INSTALL = "pip install 'graphc[cuda]'"

_OPTIONS = ("--std=c++17", "--fmad=true")

# What nvcc takes from the C library, for NVRTC, which has none.
_NAMES = """\
#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
struct alignas(64) CUtensorMap { unsigned long long opaque[16]; };
#else
#include <cstdint>
#include <cuda.h>
#endif
#line 1
"""


@dataclass(frozen=True)
class Binary:
    """A compiled program.

    Attributes:
        cubin: machine code of the target.
        ptx: for GPUs that came after it; empty where none can run it.
        log: what the assembler says about each kernel: registers, shared memory, spills.
    """

    cubin: bytes
    ptx: bytes
    log: str


@dataclass(frozen=True)
class Nvcc:
    """An installed nvcc."""

    path: str
    version: str

    def compile(self, source: str, target: CudaTarget) -> Binary:
        """Compiles a program. Raises ModuleCompilerError with what nvcc said."""
        with tempfile.TemporaryDirectory(prefix="graphc-") as folder:
            work = Path(folder)
            (work / "kernels.cu").write_text(source, encoding="utf-8")
            arch = (f"-arch={target.arch}", *_OPTIONS)
            log = self._run(work, "-cubin", *arch, "-Xptxas=-v")
            ptx = b""
            if not target.specific:
                self._run(work, "-ptx", f"-arch={target.arch.replace('sm', 'compute')}", *_OPTIONS)
                ptx = (work / "kernels.ptx").read_bytes() + b"\0"
            return Binary((work / "kernels.cubin").read_bytes(), ptx, log)

    def _run(self, folder: Path, *options: str) -> str:
        command = [self.path, *options, "kernels.cu"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
            )
        except OSError as error:
            raise ModuleCompilerError(f"cannot run nvcc {self.path!r}: {error}") from error
        if done.returncode:
            said = "\n".join((done.stderr or done.stdout).strip().splitlines()[:20])
            raise ModuleCompilerError(f"nvcc failed: {' '.join(command)}\n{said}")
        return done.stderr + done.stdout


def find_toolchain() -> Nvrtc | Nvcc:
    """The compiler of kernels: nvcc where `$GRAPHC_NVCC` names one, else NVRTC, else an nvcc on the PATH.

    Raises ModuleCompilerError with the command that installs one.
    """
    if wish := os.environ.get(VARIABLE):
        path = shutil.which(wish)
        if path is None:
            raise ModuleCompilerError(f"the nvcc named by ${VARIABLE}, {wish!r}, was not found")
        return _nvcc(path)
    if found := find_nvrtc():
        return found
    if path := shutil.which("nvcc"):
        return _nvcc(path)
    raise ModuleCompilerError(
        f"no CUDA compiler found: a target for GPUs needs NVRTC or nvcc. Install one with: {INSTALL}"
    )


def _nvcc(path: str) -> Nvcc:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ModuleCompilerError(f"cannot run nvcc {path!r}: {error}") from error
    return Nvcc(path, f"nvcc {done.stdout.strip()}")


def compile_source(source: str, target: CudaTarget) -> Binary:
    """Compiles CUDA C for a target; what was compiled before comes from the cache.

    Raises ModuleCompilerError: no compiler, or it refused; the message holds what it said.
    """
    toolchain = find_toolchain()
    store = cache.find()
    key = cache.key_of("cuda", (source, target.arch, toolchain.version)) if store else ""
    found = store.read(key) if store else None
    if found is not None:
        return Binary(found["cubin"], found["ptx"], found["log"].decode())
    binary = _compile(toolchain, _NAMES + source, target)
    if store:
        files = {"cubin": binary.cubin, "ptx": binary.ptx, "log": binary.log.encode()}
        store.write(key, files)
    return binary


def _compile(toolchain: Nvrtc | Nvcc, source: str, target: CudaTarget) -> Binary:
    if isinstance(toolchain, Nvcc):
        return toolchain.compile(source, target)
    options = (f"--gpu-architecture={target.arch}", *_OPTIONS, "--ptxas-options=-v")
    cubin, ptx, log = toolchain.compile(source, options)
    return Binary(cubin, b"" if target.specific else ptx, log)
