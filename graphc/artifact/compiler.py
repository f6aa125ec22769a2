"""Linking with the system's C compiler: the runtime, the generated tables and the kernels become
`module.so`.

The same input gives the same bytes: sources are compiled under relative names in an empty folder,
without debug information, build ids or compiler comments.
"""

from __future__ import annotations

import functools
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graphc.artifact import cache
from graphc.artifact.errors import ModuleCompilerError, ModuleSpecError
from graphc.artifact.header import NATIVE

COMMON = ("arguments.c", "binding.c", "weights.c", "errors.c")
"""The C files that every module has, in `graphc/artifact/native`."""

RUNTIME = (*COMMON, "runtime.c", "pool.c", "cpu.c", "python.c")
"""The C files of the runtime for CPUs."""

EXPORTS = (
    "graphc_close",
    "graphc_dim_sizes",
    "graphc_error",
    "graphc_module_info",
    "graphc_initial_state",
    "graphc_open",
    "graphc_output_shapes",
    "graphc_profile",
    "graphc_python",
    "graphc_run",
    "graphc_threads",
)
"""The only symbols that module.so shows."""

_COMPILE = ["-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-fno-ident", "-pthread"]
_LINK = [
    "-shared",
    "-pthread",
    "-Wl,-soname,module.so",
    "-Wl,--version-script=exports.map",
    "-Wl,--build-id=none",
    "-Wl,--gc-sections",
    "-Wl,-Bsymbolic",
    "-Wl,-z,defs,-z,now,-z,relro,-z,noexecstack",
    "-Wl,--as-needed",
    "-Wl,-s",
]
_INSTALL = {
    "debian": "sudo apt install gcc libc6-dev",
    "ubuntu": "sudo apt install gcc libc6-dev",
    "fedora": "sudo dnf install gcc glibc-devel",
    "rhel": "sudo dnf install gcc glibc-devel",
    "centos": "sudo dnf install gcc glibc-devel",
    "arch": "sudo pacman -S gcc",
    "alpine": "sudo apk add gcc musl-dev",
    "suse": "sudo zypper install gcc glibc-devel",
}


def find_compiler() -> tuple[str, ...]:
    """The C compiler's command: `$CC` if set, else the first of cc, gcc, clang on the PATH.

    Raises ModuleCompilerError with the command that installs one when there is none, or when the
    system is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise ModuleCompilerError(
            f"compiled modules are Linux shared libraries; this is {sys.platform}"
        )
    if wish := os.environ.get("CC"):
        command = shlex.split(wish)
        if command and shutil.which(command[0]):
            return tuple(command)
        raise ModuleCompilerError(f"the C compiler named by $CC, {wish!r}, was not found")
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return (path,)
    raise ModuleCompilerError(f"no C compiler found (cc, gcc or clang). {install_hint()}")


def install_hint() -> str:
    """One line on how to install a C compiler on this system."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    for kind in f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split():
        if kind in _INSTALL:
            return f"Install one with: {_INSTALL[kind]}"
    return "Install gcc or clang, with the C library's headers, through your package manager"


def check_compiler(runtime: tuple[str, ...] = RUNTIME) -> None:
    """Compiles and links the runtime's empty shell, so that a missing compiler is found before long
    work starts.

    Raises ModuleCompilerError.
    """
    _runtime_objects(find_compiler(), runtime)


def link_module(module_c: str, objects: Sequence[bytes]) -> bytes:
    """The bytes of module.so.

    Args:
        module_c: the generated tables.
        objects: relocatable ELF objects that define `graphc_main`.

    Raises:
        ModuleCompilerError: no compiler, or it refused; the message holds what it said.
        ModuleSpecError: an object that is none, or needs a barrier, which the runtime does not
            have.
    """
    for data in objects:
        if data[:4] != b"\x7fELF":
            raise ModuleSpecError("kernels must be ELF object files for Linux")
        if b"__TVMBackendParallelBarrier" in data:
            raise ModuleSpecError(
                "a kernel uses a barrier inside a parallel loop; modules have none"
            )
    files = {f"kernels{i}.o": data for i, data in enumerate(objects)}
    return link({"module.c": module_c}, files, RUNTIME, EXPORTS)


def link(
    sources: Mapping[str, str],
    files: Mapping[str, bytes],
    runtime: tuple[str, ...],
    exports: Sequence[str],
) -> bytes:
    """The bytes of module.so: C sources and a runtime of the C files named, with `files` beside them.

    Files that are objects are linked in. Raises ModuleCompilerError.
    """
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="graphc-") as folder:
        work = Path(folder)
        for name, data in {**_runtime_objects(compiler, runtime), **files}.items():
            (work / name).write_bytes(data)
        for header in sorted(NATIVE.glob("*.h")):
            shutil.copyfile(header, work / header.name)
        for name, text in sources.items():
            (work / name).write_text(text, encoding="utf-8")
        (work / "exports.map").write_text(
            f"{{ global: {'; '.join(exports)}; local: *; }};\n", encoding="utf-8"
        )
        inputs = [name for name in files if name.endswith(".o")]
        inputs += [Path(name).with_suffix(".o").name for name in (*sources, *runtime)]
        _run([*compiler, *_COMPILE, *_machine(), "-c", *sources], work)
        _run([*compiler, *_LINK, "-o", "module.so", *inputs, "-lm", "-ldl"], work)
        return (work / "module.so").read_bytes()


@functools.lru_cache(maxsize=4)
def _runtime_objects(compiler: tuple[str, ...], runtime: tuple[str, ...]) -> dict[str, bytes]:
    """A runtime's objects by name; the same for every module, so compiled once per process."""
    store = cache.find()
    program = os.stat(shutil.which(compiler[0]) or compiler[0])
    parts = (
        *compiler,
        *runtime,
        str(program.st_mtime_ns),
        str(program.st_size),
        *_COMPILE,
        *_machine(),
    )
    key = "" if store is None else cache.key_of("runtime", parts)
    found = None if store is None else store.read(key)
    if found is None:
        found = _compiled_runtime(compiler, runtime)
        if store is not None:
            store.write(key, found)
    return found


def _compiled_runtime(compiler: tuple[str, ...], runtime: tuple[str, ...]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="graphc-") as folder:
        work = Path(folder)
        for path in (*(NATIVE / name for name in runtime), *sorted(NATIVE.glob("*.h"))):
            shutil.copyfile(path, work / path.name)
        compile_one = [*compiler, *_COMPILE, *_machine(), "-c"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # 0.25 s instead of 0.45 s on two cores
            list(pool.map(lambda name: _run([*compile_one, name], work), runtime))
        return {path.name: path.read_bytes() for path in sorted(work.glob("*.o"))}


def _machine() -> list[str]:
    """Plain x86-64 whatever the compiler defaults to: the runtime must run where the kernels
    cannot.
    """
    return ["-march=x86-64", "-mtune=generic"] if platform.machine() == "x86_64" else []


def _run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise ModuleCompilerError(f"cannot run the C compiler {command[0]!r}: {error}") from error
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[:20])
        missing = "stdio.h" in said or "stddef.h" in said or "pthread.h" in said or "crti.o" in said
        hint = f"\nThe C library's headers seem to be missing. {install_hint()}" if missing else ""
        raise ModuleCompilerError(f"the C compiler failed: {shlex.join(command)}\n{said}{hint}")
