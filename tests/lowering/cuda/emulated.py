"""Compiles graphs for a GPU and runs them on the emulator, to be compared with the reference interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.artifact.cuda.target import parse_cuda_target
from graphc.artifact.device import DeviceProgram
from graphc.artifact.spec import ModuleSpec
from graphc.ir.dim import evaluate
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph
from graphc.lowering.cuda.generate import generate_device
from graphc.passes import pipeline
from graphc.reference import interpret
from tests.cuda.emulator import run
from tests.lowering.compiled import random_parameters

Array = np.ndarray[Any, np.dtype[Any]]


def compile_device(
    graph: Graph, parameters: dict[str, Array], target: str = "cuda", precision: str = "f32"
) -> tuple[ModuleSpec, DeviceProgram]:
    """Pass pipeline and code generation."""
    fused, _ = pipeline.run(graph, keep=pipeline.device_kernels)
    return generate_device(fused, parameters, parse_cuda_target(target), precision)


def execute(
    spec: ModuleSpec,
    program: DeviceProgram,
    graph: Graph,
    inputs: dict[str, Array],
    reverse: bool = False,
) -> tuple[dict[str, Array], list[int]]:
    """One call on the emulator: results by name (state's next values among them), and the fault record."""
    ordered = [inputs[p.name] for p in spec.inputs]
    dims: dict[str, int] = {}
    for step in spec.steps:
        size = ordered[step.input].shape[step.axis]
        if step.dim is not None:
            rest, each = evaluate(step.rest, dims), evaluate(step.coefficient, dims)
            dims[step.dim] = (size - rest) // each
    like = [
        np.zeros([evaluate(d, dims) for d in p.shape], DType(p.dtype).numpy) for p in spec.outputs
    ]
    after, results, fault = run(
        program,
        inputs=ordered,
        outputs=like,
        weights=[w.array for w in spec.weights],
        arena_bytes=spec.arena_bytes,
        dims=dims,
        reverse=reverse,
    )
    found = {p.name: a for p, a in zip(spec.outputs, results, strict=True)}
    found |= {p.name: a for p, a in zip(spec.inputs, after, strict=True) if p.state}
    return found, fault


def check(
    graph: Graph,
    inputs: dict[str, Array],
    *,
    target: str = "cuda",
    tolerance: float = 2e-6,
    reverse: bool = False,
) -> tuple[ModuleSpec, DeviceProgram]:
    """Compares every output with the interpreter's, relative to the largest element."""
    parameters = random_parameters(graph)
    spec, program = compile_device(graph, parameters, target)
    found, fault = execute(spec, program, graph, inputs, reverse)
    assert fault[0] == 0
    compare(found, interpret(graph, inputs, parameters), tolerance)
    return spec, program


def compare(found: dict[str, Array], expected: dict[str, Array], tolerance: float) -> None:
    """Asserts that results are those of the interpreter."""
    for name, want in expected.items():
        got = found[name]
        assert got.shape == want.shape and got.dtype == want.dtype, name
        if want.dtype.kind not in "fV" or want.size == 0:
            np.testing.assert_array_equal(got, want, err_msg=name)
            continue
        wide, right = got.astype(np.float64), want.astype(np.float64)
        finite = np.isfinite(right)
        np.testing.assert_array_equal(
            np.where(finite, 0, wide), np.where(finite, 0, right), err_msg=name
        )
        scale = np.abs(right[finite]).max(initial=0.0) or 1.0
        error = np.abs(wide - right)[finite].max(initial=0.0) / scale
        assert error <= tolerance, f"{name}: relative error {error:.1e}"
