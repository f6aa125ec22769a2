"""Opening a compiled module, whatever it was compiled for."""

from __future__ import annotations

import os
from pathlib import Path

from graphc.artifact import manifest
from graphc.artifact.cuda.module import CudaModule
from graphc.artifact.cuda.target import is_cuda
from graphc.artifact.errors import ModuleInputError
from graphc.artifact.module import Module


def open(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    verify: bool = True,
    debug: bool = False,
    device: int | None = None,
) -> Module:
    """Opens a compiled module, such as `graphc compile` writes.

    A module's library is code: open only what you would run as a program.

    Args:
        path: the folder.
        threads: how many threads compute; by default `$GRAPHC_NUM_THREADS`, else one per physical
            core that this process may use. Modules for GPUs have none.
        verify: compare the SHA-256 of every file with the manifest. Without it, sizes and the
            header of the weights are still checked.
        debug: for tests of the compiler: run on guarded copies in memory filled with NaN, and
            raise ModuleError for a kernel that writes where it must not.
        device: for modules that were compiled for GPUs, which one of them; by default the first.

    Returns a `Module`, or a `CudaModule` for a GPU.

    Raises:
        ModuleFileError: a file is missing, truncated or altered, or the folder is no module.
        ModuleVersionError: it was written in a newer format.
        ModuleTargetError: this machine lacks what it was compiled for: CPU features, a GPU of that
            kind, or its driver.
        ModuleInputError: there is no such device.
    """
    module = _read(path, threads, verify, debug, device)
    if isinstance(module, CudaModule):
        module.wake()
    return module


def open_compiled(path: str | os.PathLike[str], threads: int | None = None) -> Module:
    """A module that was written just now, perhaps for another machine: not verified, and what this one lacks (a GPU,
    features of the CPU) is an error when it is used first.
    """
    return _read(path, threads, False, False, None, elsewhere=True)


def _read(
    path: str | os.PathLike[str],
    threads: int | None,
    verify: bool,
    debug: bool,
    device: int | None,
    elsewhere: bool = False,
) -> Module:
    info = manifest.read_manifest(Path(os.path.abspath(path)))
    if is_cuda(str(info.data["target"]["name"])):
        return CudaModule(path, verify=verify, debug=debug, device=device or 0, info=info)
    if device is not None:
        raise ModuleInputError(f"`{info.name}` was compiled for a CPU: it has no device {device}")
    return Module(path, threads=threads, verify=verify, debug=debug, info=info, elsewhere=elsewhere)
