"""Compiles graphs and runs them, to be compared with the reference interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from graphc.artifact import Module
from graphc.artifact import open as open_module
from graphc.artifact.writer import write
from graphc.ir.graph import Graph
from graphc.lowering.cpu.features import detect_host, parse_target
from graphc.lowering.generate import generate
from graphc.lowering.precision import uses_tiles
from graphc.passes import pipeline
from graphc.reference import interpret

Array = np.ndarray[Any, np.dtype[Any]]

# Every level this machine can run; code for the others is compiled in their own tests.
RUNNABLE = [
    level
    for level in ("x86-64-v3", "x86-64-v4")
    if not parse_target(level).supported_by(detect_host())
]

TILES = "x86-64-v4+amx_bf16+amx_tile+avx512_bf16"
"""A target with AMX; whether this machine can run it."""
HOST_RUNS_TILES = not parse_target(TILES).supported_by(detect_host())


def random_parameters(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Normal numbers for every parameter."""
    rng = np.random.default_rng(seed)
    return {
        n.op.path: rng.standard_normal(n.op.shape).astype(n.op.dtype.numpy)
        for n in graph.parameters
    }


def compile_graph(
    graph: Graph,
    parameters: dict[str, Array],
    target: str = "native",
    threads: int = 2,
    precision: str = "f32",
) -> Module:
    """Pass pipeline, code generation, link, open. The folder goes when the process ends."""
    fused, _ = pipeline.run(graph, tiles=uses_tiles(precision, target))
    spec, objects = generate(fused, parameters, target=target, precision=precision)
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "module"
    write(spec, objects, path)
    module = open_module(path, threads=threads)
    module._test_folder = folder
    return module


def check(
    graph: Graph, inputs: dict[str, Array], target: str = "native", tolerance: float = 2e-6
) -> Module:
    """Compares every output with the interpreter's, relative to the largest element."""
    parameters = random_parameters(graph)
    module = compile_graph(graph, parameters, target)
    compare(module, graph, inputs, parameters, tolerance)
    return module


def compare(
    module: Module,
    graph: Graph,
    inputs: dict[str, Array],
    parameters: dict[str, Array],
    tolerance: float = 2e-6,
) -> None:
    """One call of a module against the interpreter."""
    found, expected = module(**inputs), interpret(graph, inputs, parameters)
    assert list(found) == list(expected)
    for name, want in expected.items():
        got = found[name]
        assert got.shape == want.shape and got.dtype == want.dtype, name
        if want.dtype.kind not in "fV" or want.size == 0:
            np.testing.assert_array_equal(got, want, err_msg=name)
            continue
        scale = np.abs(want.astype(np.float64)).max() or 1.0
        error = np.abs(got.astype(np.float64) - want.astype(np.float64)).max() / scale
        assert error <= tolerance, f"{name}: relative error {error:.1e}"
