"""The whole compiler as a table of contents: text → graph → optimised → kernels → module. Stops anywhere.

elaborated = frontend.load(path)             text → AST → graph, every shape checked
graph      = specialise(elaborated.graph)    named dims fixed by the user become integers
optimised  = optimise(graph)                 the pass pipeline, ending in fused kernels
program    = generate(optimised, weights)    plan, TIR, object code
write(program, directory)                    the deployable module
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.artifact.compiler import check_compiler, find_compiler
from graphc.artifact.spec import ModuleSpec, with_initial
from graphc.artifact.writer import write
from graphc.ir.graph import Graph
from graphc.lowering.generate import generate
from graphc.lowering.precision import uses_tiles
from graphc.passes import pipeline

Array = np.ndarray[Any, np.dtype[Any]]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Compiled:
    """What code generation produced, not yet on disk."""

    spec: ModuleSpec
    objects: tuple[bytes, ...]
    report: pipeline.Report

    def write(self, directory: str | Path) -> Path:
        """Writes the module folder, atomically. Raises ModuleError when it cannot."""
        return write(self.spec, self.objects, Path(directory))


def optimise(
    graph: Graph,
    *,
    until: str | None = None,
    observe: pipeline.Observer | None = None,
    tiles: bool = False,
) -> tuple[Graph, pipeline.Report]:
    """Runs the pass pipeline, or its beginning up to and including the pass called `until`.

    `tiles` prepares the graph for kernels that multiply bfloat16 tiles (see `lowering/precision.py`).
    """
    return pipeline.run(graph, until=until, observe=observe, tiles=tiles)


def compile_graph(
    graph: Graph,
    parameters: Mapping[str, Array],
    *,
    target: str = "native",
    precision: str = "f32",
    state: Mapping[str, Array] | None = None,
    progress: Progress = lambda stage: None,
) -> Compiled:
    """Everything after elaboration: from a checked graph and its build-time parameters to object code.

    `state` is what inputs that are state start as, by name; the module hands it out. `precision` is `f32`, `bf16` or
    `high`, see `lowering/precision.py`; ValueError for anything else. Raises ModuleCompilerError before any long work
    when there is no C compiler to link with.
    """
    find_compiler()
    with ThreadPoolExecutor(1) as pool:
        runtime = pool.submit(check_compiler)  # the C runtime compiles while kernels are made
        progress("optimising")
        graph, report = optimise(graph, tiles=uses_tiles(precision, target))
        progress("generating code")
        spec, objects = generate(graph, parameters, target=target, precision=precision)
        runtime.result()
    if state is not None:
        spec = with_initial(spec, state)
    return Compiled(spec, tuple(objects), report)
