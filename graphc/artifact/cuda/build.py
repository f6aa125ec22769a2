"""From a device program to a module's folder: compiled for its GPU, linked with the runtime, written like any other."""

from __future__ import annotations

import os
from pathlib import Path

from graphc.artifact.codegen import tables_c
from graphc.artifact.compiler import COMMON, EXPORTS, link
from graphc.artifact.cuda.host import CUBIN, PTX, program_c
from graphc.artifact.cuda.target import parse_cuda_target
from graphc.artifact.cuda.toolchain import compile_source
from graphc.artifact.device import DeviceProgram, check_program
from graphc.artifact.safetensors_io import WeightsInfo
from graphc.artifact.spec import ModuleSpec
from graphc.artifact.writer import Draft, drafting

CUDA_RUNTIME = (*COMMON, "cuda_driver.c", "cuda_frame.c", "cuda_model.c", "cuda_run.c")
"""The C files of the runtime for GPUs."""

CUDA_EXPORTS = (
    "graphc_copy",
    "graphc_device",
    "graphc_device_allocate",
    "graphc_device_free",
    "graphc_run_on_stream",
    "graphc_stream",
    "graphc_stream_wait",
    "graphc_synchronize",
)
"""What module.so shows beside the symbols of every module."""

SOURCE = "kernels.cu"
"""The kernels' source in the module's folder, for people."""


def write_cuda(spec: ModuleSpec, program: DeviceProgram, directory: str | os.PathLike[str]) -> Path:
    """Writes a module for the GPU that `spec.target` names: the files of any module, and kernels.cu.

    The same description and program give the same bytes.

    Raises:
        ModuleSpecError: description and program do not fit each other.
        ModuleCompilerError: no CUDA or C compiler, or it refused.
        ModuleFileError: the folder cannot be written, or something that is no module is in the way.

    Returns the folder.
    """
    with drafting(directory) as draft:
        draft.write_weights(spec.weights)
        write_program(draft, spec, program)
    return Path(directory)


def write_program(draft: Draft, spec: ModuleSpec, program: DeviceProgram) -> None:
    """The same but for the weights, which are there. Raises as `write_cuda` does, and OSError."""
    check_program(program, spec)
    target = parse_cuda_target(spec.target)
    binary = compile_source(program.source, target)
    files = {CUBIN: binary.cubin, **({PTX: binary.ptx} if binary.ptx else {})}
    host = program_c(program, spec, target, bool(binary.ptx))

    def library(weights: WeightsInfo) -> bytes:
        sources = {"module.c": tables_c(spec, weights), "program.c": host}
        return link(sources, files, CUDA_RUNTIME, (*EXPORTS, *CUDA_EXPORTS))

    draft.write_linked(spec, library, {SOURCE: program.source})
