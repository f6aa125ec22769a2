"""Recurrent cells as one kernel: every layer, forward and backward, of all sizes, against the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.autodiff import grad_graph
from graphc.ir.graph import Graph
from graphc.lowering.cpu.families.recurrence.select import Cell, find_cell
from graphc.ops import Fusion, Scan
from graphc.passes import pipeline
from tests.frontend.helpers import load
from tests.lowering.compiled import RUNNABLE, compare, compile_graph, random_parameters

HANDWRITTEN = """block Handwritten(x: f32[N, T, D], hidden: int) {
    param w: f32[hidden, 2 * hidden] = normal(std=0.4)
    param v: f32[hidden, hidden] = normal(std=0.4)
    p = permute(x, (1, 0, 2)) -> project: Linear(2 * hidden)
    scan p_t in p with h = zeros([N, hidden]), c = zeros([N, hidden]) reversed {
        z = p_t + h @ w
        r = sigmoid(z[:, hidden:])
        n = tanh((r * h) @ v + z[:, :hidden])
        c = c + n * h
        h = h + r * (n - h)
        both = concat([z[:, hidden:], c], dim=1)
        emit h, both
    }
    return h.stacked, h.last, both.stacked
}
"""


def model(layer: str, width: int = 12, dims: dict[str, int] | None = None) -> Graph:
    """A layer in a model, and a loss of all it gives."""
    text = f"""{HANDWRITTEN}
    model M {{
        input x: f32[N, T, {width}]
        result = x -> layer: {layer}
        output y = result[0]
        output loss = mean(result[0] ** 2) + sum(result[0]) * 0.001
    }}"""
    return load(text, dims=dims or {}).graph


def cells(graph: Graph) -> list[Cell | None]:
    """What becomes of the loops of a graph after all passes."""
    fused, _ = pipeline.run(graph)
    regions = [r for n in fused.nodes if isinstance(n.op, Fusion) for r in n.op.regions]
    return [find_cell(n.op) for r in regions for n in r.nodes if isinstance(n.op, Scan)]


def inputs(rows: int, steps: int, width: int = 12) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    return {"x": rng.normal(size=(rows, steps, width)).astype(np.float32)}


LAYERS = ["LSTM(32, batch_first=true)", "GRU(24, batch_first=true)", "Handwritten(16)"]
CASES = [
    ('RNN(16, 2, batch_first=true, bidirectional=true, nonlinearity="relu")', "native"),
    (LAYERS[0], "native"),
    *((layer, level) for layer, level in zip(LAYERS, RUNNABLE, strict=False)),
    (LAYERS[2], "native"),
]


@pytest.mark.parametrize(("layer", "target"), CASES)
def test_a_cell_of_any_batch_and_length(layer: str, target: str) -> None:
    graph = model(layer)
    assert all(cells(graph))
    weights = random_parameters(graph)
    weights = {k: v * np.float32(0.3) for k, v in weights.items()}
    module = compile_graph(graph, weights, target)
    for rows, steps in ((1, 3), (2, 1), (9, 4), (30, 2)):
        compare(module, graph, inputs(rows, steps), weights, 1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_way_back_is_a_cell_as_well(layer: str) -> None:
    graph = model(layer, dims={"N": 7, "T": 5})
    names = ["x", *(p.op.path for p in graph.parameters)]
    backward = grad_graph(graph, "loss", names, ["loss"])
    assert all(cells(backward))
    weights = {k: v * np.float32(0.3) for k, v in random_parameters(backward).items()}
    module = compile_graph(backward, weights)
    compare(module, backward, inputs(7, 5), weights, 2e-5)


def test_weights_that_only_a_run_knows_are_packed_in_it() -> None:
    text = """model M {
        input x: f32[T, N, 16]
        input u: f32[16, 16]
        input v: f32[16, 16]
        scan x_t in x with h = zeros([N, 16]), c = zeros([N, 16]) {
            h = tanh(x_t + h @ u + c @ permute(v, (1, 0)))
            c = c * 0.5 + h
            emit h
        }
        output y = h.stacked
        output g = grad(mean(h.stacked ** 2), u)
    }"""
    graph = load(text).graph
    assert all(cells(graph))
    module = compile_graph(graph, {})
    rng = np.random.default_rng(0)
    for rows in (1, 5):
        arrays = {
            "x": rng.normal(size=(3, rows, 16)).astype(np.float32),
            "u": 0.3 * rng.normal(size=(16, 16)).astype(np.float32),
            "v": 0.3 * rng.normal(size=(16, 16)).astype(np.float32),
        }
        compare(module, graph, arrays, {}, 1e-5)


@pytest.mark.parametrize(("rows", "units"), [(1, 48), (1, 256), (3, 40), (16, 128)])
def test_static_batches(rows: int, units: int) -> None:
    graph = model(f"LSTM({units}, batch_first=true)", dims={"N": rows, "T": 4})
    weights = {k: v * np.float32(0.3) for k, v in random_parameters(graph).items()}
    compare(compile_graph(graph, weights), graph, inputs(rows, 4), weights, 1e-5)


def test_what_is_no_cell_goes_the_general_way() -> None:
    """A sum over the units, a loop without a product, units that come from other units."""
    for body in (
        "h = tanh(x_t + h) / sum(h @ u, dim=1, keepdim=true)",
        "h = tanh(x_t + h)",
        "h = softmax(x_t + h @ u, dim=1)",
        "h = tanh(x_t + concat([(h @ u)[:, 1:], h[:, :1]], dim=1))",
    ):
        text = f"""model M {{
            input x: f32[T, N, 16]
            param u: f32[16, 16] = normal(std=1.0)
            scan x_t in x with h = ones([N, 16]) {{
                {body}
            }}
            output y = h.last
        }}"""
        graph = load(text).graph
        assert cells(graph) == [None], body
        weights = random_parameters(graph)
        x = np.random.default_rng(0).normal(size=(3, 2, 16)).astype(np.float32)
        compare(compile_graph(graph, weights), graph, {"x": x}, weights, 1e-4)
