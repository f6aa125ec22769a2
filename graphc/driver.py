"""The whole compiler as a table of contents: text → graph → optimised → kernels → module. Stops anywhere.

elaborated = frontend.load(path)             text → AST → graph, every shape checked
graph      = specialise(elaborated.graph)    named dims fixed by the user become integers
optimised  = optimise(graph)                 the pass pipeline, ending in fused kernels
program    = generate(optimised, weights)    plan, TIR, object code
draft.write_code(program)                    the deployable module; what was compiled before comes from the cache
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graphc.artifact import cache
from graphc.artifact.compiler import RUNTIME, check_compiler, find_compiler
from graphc.artifact.cuda.build import CUDA_RUNTIME, write_program
from graphc.artifact.cuda.target import CudaTarget, is_cuda, parse_cuda_target
from graphc.artifact.cuda.toolchain import find_toolchain
from graphc.artifact.folder import replacing
from graphc.artifact.spec import WeightSpec, initial_weights, with_initial
from graphc.artifact.writer import drafting
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.lowering import toolkit
from graphc.lowering.cpu.features import CpuTarget, parse_target
from graphc.lowering.cuda.generate import generate_device
from graphc.lowering.generate import generate
from graphc.lowering.precision import uses_tiles
from graphc.passes import pipeline
from graphc.passes.decompose import Keep

Array = np.ndarray[Any, np.dtype[Any]]
Progress = Callable[[str], None]


def optimise(
    graph: Graph,
    *,
    until: str | None = None,
    observe: pipeline.Observer | None = None,
    keep: Keep = pipeline.row_kernels,
    tiles: bool = False,
) -> tuple[Graph, pipeline.Report]:
    """Runs the pass pipeline, or its beginning up to and including the pass called `until`.

    `keep` says which composites stay whole, `pipeline.device_kernels` those for GPUs; `tiles` prepares the graph for
    kernels that multiply bfloat16 tiles (see `lowering/precision.py`).
    """
    return pipeline.run(graph, until=until, observe=observe, keep=keep, tiles=tiles)


def compile_graph(
    graph: Graph,
    parameters: Mapping[str, Array],
    directory: str | Path,
    *,
    target: str = "native",
    precision: str = "f32",
    state: Mapping[str, Array] | None = None,
    durable: bool = True,
    progress: Progress = lambda stage: None,
) -> Path:
    """Everything after elaboration: from a checked graph and its build-time parameters to a module folder.

    What was compiled before, from the very same, is taken from the cache (`artifact/cache.py`).

    Args:
        graph: as elaboration or differentiation made it.
        parameters: an array for each parameter that the graph uses, by path.
        directory: where the module goes; an old one there is replaced in one step.
        target: a CPU, see `lowering.cpu.features.parse_target`, or a GPU, see `artifact.cuda.target`.
        precision: `f32`, `bf16` or `high`, for GPUs `f32`, `tf32`, `bf16` or `f16`, see `lowering/precision.py`;
            ValueError for anything else.
        state: what inputs that are state start as, by name; the module hands it out.
        durable: whether the folder outlives a crash of the machine, which takes as long as the disk does.
        progress: called with the name of each stage.

    Returns the folder. Raises ModuleCompilerError before any long work when there is no C compiler to link with, or no
    CUDA compiler, TargetError, and ModuleFileError when the folder cannot be written.
    """
    machine = parse_cuda_target(target) if is_cuda(target) else parse_target(target)
    store, key = cache.find(), ""
    if store is not None:
        progress("looking into the cache")
        texts = (print_graph(graph, locations=True), machine.name, precision)
        key = cache.key_of("module", (*texts, parameters, state or {}))
        if _from_cache(store, key, directory, durable):
            return Path(directory)
    find_compiler()
    if isinstance(machine, CudaTarget):
        find_toolchain()
    began = state or {}
    imported = toolkit.preload()  # imports TVM beside the passes
    with (
        drafting(directory, durable=durable) as draft,
        _no_collector(),
        ThreadPoolExecutor(1) as pool,
    ):

        def packed(weights: Sequence[WeightSpec]) -> None:
            draft.write_weights((*weights, *initial_weights(weights, began)))

        files = CUDA_RUNTIME if isinstance(machine, CudaTarget) else RUNTIME
        # The C runtime compiles while kernels are made.
        runtime = pool.submit(check_compiler, files)
        progress("optimising")
        tiles = isinstance(machine, CpuTarget) and uses_tiles(precision, target)
        keep = pipeline.device_kernels if isinstance(machine, CudaTarget) else pipeline.row_kernels
        optimised, _ = optimise(graph, keep=keep, tiles=tiles)
        progress("generating code")
        imported.join()  # two threads that begin at different parts of it would see halves
        if isinstance(machine, CudaTarget):
            spec, program = generate_device(optimised, parameters, machine, precision, packed)
            finish = partial(write_program, draft, program=program)
        else:
            spec, objects = generate(
                optimised, parameters, target=machine.name, precision=precision, packed=packed
            )
            finish = partial(draft.write_code, objects=objects)
        runtime.result()
        progress("linking")
        finish(with_initial(spec, began))
    folder = Path(directory)
    if store is not None:
        store.keep(key, folder)
    return folder


@contextmanager
def _no_collector() -> Iterator[None]:
    """The cycle collector off: graphs are many small objects, which it would look through again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _from_cache(store: cache.Cache, key: str, directory: str | Path, durable: bool) -> bool:
    """Puts a module that was compiled before in its place, if it is still there and whole."""
    try:
        with replacing(directory, durable=durable) as folder:
            if not store.copy(key, folder):
                raise LookupError(key)
    except LookupError:
        return False
    return True
