"""NVRTC, NVIDIA's compiler as a library, through ctypes: no GPU and no driver are needed.

Its packages from PyPI (the extra `graphc[cuda]`) put library and headers below `site-packages/nvidia/cu13`; an
installed CUDA toolkit is found through `$CUDA_HOME` or `$CUDA_PATH`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from graphc.artifact.errors import ModuleCompilerError

_MAJOR = 13
_FAILED = 6  # NVRTC_ERROR_COMPILATION


@dataclass(frozen=True)
class Nvrtc:
    """A loaded NVRTC.

    Attributes:
        library: its C interface.
        includes: folders with CUDA's headers.
        version: `nvrtc 13.0`, and the size of the library's file, since patch releases share a version.
    """

    library: ctypes.CDLL
    includes: tuple[str, ...]
    version: str

    def compile(self, source: str, options: tuple[str, ...]) -> tuple[bytes, bytes, str]:
        """Compiles a program for a real architecture: its cubin, its PTX and what the compiler said.

        Raises ModuleCompilerError with what it said.
        """
        program = ctypes.c_void_p()
        self._call(
            "CreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
        )
        try:
            words = [o.encode() for o in (*options, *(f"-I{i}" for i in self.includes))]
            array = (ctypes.c_char_p * len(words))(*words)
            status = self.library.nvrtcCompileProgram(program, len(words), array)
            log = self._text(program, "ProgramLog").decode("utf-8", "replace").rstrip("\0")
            if status == _FAILED:
                raise ModuleCompilerError(f"NVRTC refused a kernel:\n{_beginning(log)}")
            if status:
                raise ModuleCompilerError(
                    f"NVRTC failed: {self._reason(status)}\n{_beginning(log)}"
                )
            return self._text(program, "CUBIN"), self._text(program, "PTX"), log
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", program, buffer)
        return buffer.raw

    def _call(self, name: str, *arguments: object) -> None:
        if status := getattr(self.library, f"nvrtc{name}")(*arguments):
            raise ModuleCompilerError(f"NVRTC failed: {self._reason(status)}")

    def _reason(self, status: int) -> str:
        return str(self.library.nvrtcGetErrorString(status).decode())


@functools.lru_cache(maxsize=1)
def find_nvrtc() -> Nvrtc | None:
    """NVRTC of the CUDA version that modules are built with, or None where it is not installed.

    Raises ModuleCompilerError where it is there and cannot be loaded.
    """
    for root in _roots():
        for folder in (root / "lib", root / "lib64"):
            library = folder / f"libnvrtc.so.{_MAJOR}"
            if library.exists():
                return _loaded(library, root)
    return None


def _loaded(path: Path, root: Path) -> Nvrtc:
    try:
        # Loaded by name when the first program is compiled, from wherever the linker looks: it is not told where.
        for builtins in sorted(path.parent.glob(f"libnvrtc-builtins.so.{_MAJOR}.*")):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ModuleCompilerError(f"NVRTC at {str(path)!r} cannot be loaded: {error}") from error
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    includes = tuple(str(f) for f in (root / "include", root / "include" / "cccl") if f.is_dir())
    version = f"nvrtc {major.value}.{minor.value} {path.stat().st_size}"
    return Nvrtc(library, includes, version)


def _roots() -> list[Path]:
    """Where a CUDA of our version may lie: the packages first, then the user's toolkit."""
    spec = importlib.util.find_spec("nvidia")
    found = (
        [Path(p) / f"cu{_MAJOR}" for p in (spec.submodule_search_locations or [])] if spec else []
    )
    return found + [Path(p) for name in ("CUDA_HOME", "CUDA_PATH") if (p := os.environ.get(name))]


def _beginning(log: str) -> str:
    return "\n".join(log.strip().splitlines()[:20])
