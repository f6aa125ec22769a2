"""Compiled loops against the interpreter: forward and back, reversed, in each other, of any length."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.autodiff import gradients
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ir.op import Array
from graphc.ops import Convert, Input
from tests.autodiff.numeric import weighted
from tests.frontend.helpers import load
from tests.lowering.compiled import compare, compile_graph, random_parameters
from tests.ops.samples import SAMPLES

CELLS = """
block Cell(x: f32[T, N, D], hidden: int, back: bool = false) {
    param w: f32[D, 3 * hidden] = normal(std=0.5)
    param u: f32[hidden, 3 * hidden] = normal(std=0.5)
    p = x @ w
    scan p_t in p with h = zeros([N, hidden]), c = ones([N, hidden]) {
        z = p_t + h @ u
        f = sigmoid(z[:, :hidden])
        c = f * c + tanh(z[:, hidden:2 * hidden])
        h = sigmoid(z[:, 2 * hidden:]) * tanh(c)
        emit h, f
    }
    return h.stacked, h.last, c.last, f.stacked
}

block Lasts(x: f32[T, N, D], hidden: int) {
    param u: f32[hidden, hidden] = normal(std=0.5)
    scan x_t in x with a = zeros([N, hidden]), b = ones([N, hidden]) reversed {
        old = a
        a = tanh(b @ u) + x_t[:, :hidden]
        b = old
    }
    return a.last, b.last
}
"""

LENGTHS = """model M {
    input x: f32[T, N, 20]
    h, last, c, f = x -> first: Cell(24)
    a, b = h -> second: Lasts(24)
    output h
    output last
    output c
    output f
    output a
    output b
    loss = sum(h * h) + sum(a) + sum(b * b)
    output g = grad(loss, x)
}
"""

NESTED = """model M {
    input x: f32[T, S, 3]
    input w: f32[3, 3]
    scan row in x with total = zeros([S, 3]), n = zeros([]) {
        scan element in row with inner = total reversed {
            inner = sin(inner + element * x[0, 0]) @ w
            e = inner @ w
            emit e
        }
        total = tanh(inner.last)
        n = n + 1
        s = sum(total) + mean(e.stacked)
        emit s, total
    }
    output y = s.stacked
    output n = n.last
    output g = grad(sum(s.stacked * total.stacked[:, 0, 0]), w)
}
"""

CHECKED = """model M {
    input ids: i64[T, N]
    input table: f32[5, 4]
    scan i in ids with h = zeros([N, 4]) {
        h = h + table[i] + table[i + 1]
    }
    output y = h.last
}
"""


def random_loops() -> tuple[Graph, dict[str, Array]]:
    """Some random scans and their gradients, in one graph."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("loops")
    outputs, inputs = [], {}
    for k in range(4):
        op, arrays = SAMPLES["scan"](rng)
        values = []
        for i, x in enumerate(arrays):
            inputs[f"a{k}_{i}"] = x
            values.append(b(Input(f"a{k}_{i}", DType.from_numpy(x.dtype), x.shape)))
        results = b.emit(op, *values)
        narrow = [b(Convert(DType.F64), v) for v in results]
        found = gradients(b, weighted(b, narrow, rng), values)
        outputs += [(f"r{k}_{i}", v) for i, v in enumerate((*results, *found))]
    return b.build(outputs), inputs


def test_random_loops_and_their_gradients() -> None:
    graph, inputs = random_loops()
    compare(compile_graph(graph, {}), graph, inputs, {}, 2e-5)


@pytest.mark.parametrize("target", ["x86-64-v3", "native"])
def test_carries_stacks_and_gradients_of_any_length(target: str) -> None:
    graph = load(CELLS + LENGTHS).graph
    weights = random_parameters(graph)
    module = compile_graph(graph, weights, target)
    rng = np.random.default_rng(1)
    for steps, rows in ((1, 1), (2, 3), (9, 2)):
        x = rng.normal(size=(steps, rows, 20)).astype(np.float32)
        compare(module, graph, {"x": x}, weights, 2e-5)


def test_a_loop_in_a_loop_and_its_gradient() -> None:
    graph = load(NESTED).graph
    rng = np.random.default_rng(2)
    module = compile_graph(graph, {})
    for steps in (1, 4):
        inputs = {
            "x": rng.normal(size=(steps, 2, 3)).astype(np.float32),
            "w": rng.normal(size=(3, 3)).astype(np.float32),
        }
        compare(module, graph, inputs, {}, 1e-4)


def test_an_index_out_of_range_in_a_loop_is_reported() -> None:
    graph = load(CHECKED).graph
    module = compile_graph(graph, {})
    table = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    good = np.array([[0, 1], [3, 2]])
    compare(module, graph, {"ids": good, "table": table}, {})
    with pytest.raises(Exception, match=r"index 5 is out of range.*index < 5 \(test.nn:5:\d+\)"):
        module(ids=good + np.array([[0], [1]]), table=table)
