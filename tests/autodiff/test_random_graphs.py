"""Gradients of random graphs with named dims: against finite differences, and kept by every pass."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import assume, given, settings

from graphc.autodiff import gradients
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.op import Array, Op
from graphc.ir.verify import verify
from graphc.ops import Constant, Tanh, arith
from graphc.passes import pipeline
from graphc.reference import interpret
from tests.strategies import Program, programs

Arrays = dict[str, Array]
STEP = 1e-6


def in_f64(op: Op) -> Op:
    """The op with f64 wherever it names a float type."""
    if isinstance(op, Constant):
        return Constant.of(op.array.astype(np.float64)) if op.literal.dtype.is_float else op
    dtype = op.attributes().get("dtype")
    return dataclasses.replace(op, dtype=DType.F64) if dtype and dtype.is_float else op


def differentiated(program: Program) -> Graph:
    """`y`, the mean of all float outputs in f64, and its gradients by the float inputs and the parameters."""
    old = program.graph
    b = GraphBuilder(old.name, old.dims)
    values: dict[Value, Value] = {}
    for node in old.nodes:
        new = b.emit(in_f64(node.op), *(values[v] for v in node.operands))
        values.update(zip(node.values, new, strict=True))
    y = arith.constant(b, 0.0, DType.F64)
    for _, value in old.outputs:
        if b.type_of(values[value]).dtype.is_float:
            y = arith.add(b, y, arith.mean(b, b(Tanh(), values[value])))
    sources = [n for n in (*old.inputs, *old.parameters) if n.types[0].dtype.is_float]
    xs = [values[n.values[0]] for n in sources]
    names = [str(next(iter(n.op.attributes().values()))) for n in sources]
    found = gradients(b, y, xs)
    return b.build([("y", y), *zip(names, found, strict=True)])


def normal(arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """Normal f64 in place of floats: away from ties and kinks."""
    return {
        k: np.asarray(rng.normal(size=x.shape)) if x.dtype == np.float32 else x
        for k, x in arrays.items()
    }


@settings(max_examples=60)
@given(program=programs(smooth=True))
def test_gradient_is_the_finite_difference(program: Program) -> None:
    graph = differentiated(program)
    verify(graph)
    rng = np.random.default_rng(0)
    inputs, parameters = (normal(a, rng) for a in (program.inputs, program.parameters))
    found = interpret(graph, inputs, parameters)
    names = [name for name, _ in graph.outputs[1:]]
    ways = {name: rng.normal(size=found[name].shape) for name in names}

    def at(step: float) -> float:
        moved = [
            {k: x + step * ways[k] if k in ways else x for k, x in arrays.items()}
            for arrays in (inputs, parameters)
        ]
        return float(interpret(graph, *moved)["y"])

    slopes = [(at(h) - at(-h)) / (2 * h) for h in (STEP, STEP / 2)]
    parts = [found[name] * way for name, way in ways.items()]
    scale = 1.0 + sum(float(np.abs(p).sum()) for p in parts)
    assume(np.isfinite(scale) and abs(slopes[0] - slopes[1]) <= 1e-6 * scale)  # no kink nearby
    assert abs(slopes[0] - sum(float(p.sum()) for p in parts)) <= 1e-5 * scale


@settings(max_examples=40)
@given(program=programs(smooth=True))
def test_passes_keep_gradients(program: Program) -> None:
    graph = differentiated(program)
    rng = np.random.default_rng(0)
    inputs, parameters = (normal(a, rng) for a in (program.inputs, program.parameters))
    want = interpret(graph, inputs, parameters)
    assume(all(np.isfinite(x).all() for x in want.values()))
    found = interpret(pipeline.run(graph)[0], inputs, parameters)
    for name, expected in want.items():
        scale = max(float(np.max(np.abs(expected), initial=0)), 1.0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-7, atol=1e-7 * scale)
