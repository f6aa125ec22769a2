"""Loops after each pass mean what they meant, with what differentiation makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.autodiff import grad_graph, gradients
from graphc.frontend.parameters import initialise
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ir.op import Array
from graphc.ir.printer import print_graph
from graphc.ir.reader import read_graph
from graphc.ir.verify import verify
from graphc.ops import OPS, Fusion, Input, Scan
from graphc.passes import pipeline
from graphc.reference import interpret
from tests.autodiff.numeric import weighted
from tests.frontend.helpers import load
from tests.ops.samples import SAMPLES


def sample(seed: int) -> tuple[Graph, dict[str, Array]]:
    """A random scan, its results and its first gradients."""
    rng = np.random.default_rng(seed)
    op, arrays = SAMPLES["scan"](rng)
    b = GraphBuilder("loop")
    values = [b(Input(f"a{i}", DType.from_numpy(x.dtype), x.shape)) for i, x in enumerate(arrays)]
    results = b.emit(op, *values)
    narrow = [b(OPS["convert"](DType.F64), v) for v in results]
    found = gradients(b, weighted(b, narrow, rng), values)
    names = [f"y{i}" for i in range(len(results))] + [f"g{i}" for i in range(len(found))]
    graph = b.build(list(zip(names, (*results, *found), strict=True)))
    return graph, {f"a{i}": x for i, x in enumerate(arrays)}


def assert_close(found: dict[str, Array], expected: dict[str, Array]) -> None:
    for name, y in expected.items():
        np.testing.assert_allclose(
            found[name], y, rtol=2e-5, atol=2e-5 * (1 + np.abs(y).max(initial=0))
        )


@pytest.mark.parametrize("seed", range(6))
def test_every_pass_keeps_what_random_loops_compute(seed: int) -> None:
    graph, inputs = sample(seed)
    expected = interpret(graph, inputs, {})

    def check(name: str, after: Graph) -> None:
        verify(after, name)
        assert_close(interpret(after, inputs, {}), expected)

    fused, _ = pipeline.run(graph, observe=check)
    assert read_graph(print_graph(fused), OPS) == fused


def scans(graph: Graph) -> list[Scan]:
    """The loops of a graph."""
    return [n.op for n in graph.nodes if isinstance(n.op, Scan)]


def products(graph: Graph) -> int:
    return sum(n.op.name == "dot_general" for n in graph.nodes)


def test_a_recurrent_layer_multiplies_once_a_step() -> None:
    """Forward one product in the loop and one in front; backward one in the loop and all others behind."""
    text = """model M {
        input x: f32[T, N, 8]
        param w: f32[8, 16] = normal(std=1.0)
        param u: f32[16, 16] = normal(std=1.0)
        param v: f32[16, 5] = normal(std=1.0)
        scan x_t in x with h = zeros([N, 16]) {
            h = tanh(x_t @ w + h @ u)
            y = h @ v
            emit y
        }
        output loss = sum(y.stacked ** 2)
    }
    """
    elaborated = load(text)
    whole = grad_graph(elaborated.graph, "loss", ["x", "w", "u", "v"], ["loss"])
    graph, _ = pipeline.run(whole, until="late-loops")
    forward, backward = scans(graph)
    assert (forward.reverse, backward.reverse) == (False, True)
    assert products(forward.body) == products(backward.body) == 1
    assert products(graph) == 2 + 5  # x w, h v; g v, and the cotangents of v, u, w, x
    inputs = {"x": np.random.default_rng(0).normal(size=(4, 2, 8)).astype(np.float32)}
    weights = initialise(elaborated.parameters)
    assert_close(interpret(graph, inputs, weights), interpret(whole, inputs, weights))


def test_kernels_of_a_loop_have_captures_of_their_own() -> None:
    """Two products with one weight may want it packed in two ways."""
    text = """model M {
        input x: f32[T, N, 4]
        param u: f32[4, 4] = normal(std=1.0)
        scan x_t in x with h = zeros([N, 4]) {
            h = tanh(x_t + h @ u) * u[0] @ permute(u, (1, 0))
        }
        output y = h.last
    }
    """
    graph, _ = pipeline.run(load(text).graph)
    (loop,) = [s for n in graph.nodes if isinstance(n.op, Fusion) for s in scans(n.op.body)]
    reads = [v for n in loop.body.nodes if n.op.regions for v in n.operands]
    heavy = [
        v
        for n in loop.body.nodes
        for region in n.op.regions
        if products(region)
        for v in n.operands
        if v in loop.captured
    ]
    assert len(heavy) >= 2 and all(reads.count(v) == 1 for v in heavy)
