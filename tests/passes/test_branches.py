"""Choices after each pass mean what they meant, with what differentiation makes of them."""

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
from graphc.ops import OPS, Cond, Fusion, Input
from graphc.passes import pipeline
from graphc.reference import interpret
from tests.autodiff.numeric import weighted
from tests.frontend.helpers import load
from tests.ops.samples import SAMPLES


def sample(seed: int) -> tuple[Graph, dict[str, Array]]:
    """A random choice, its results and its first gradients."""
    rng = np.random.default_rng(seed)
    op, arrays = SAMPLES["cond"](rng)
    b = GraphBuilder("choice")
    values = [b(Input(f"a{i}", DType.from_numpy(x.dtype), x.shape)) for i, x in enumerate(arrays)]
    results = b.emit(op, *values)
    wide = [b(OPS["convert"](DType.F64), v) for v in results]
    floats = [v for v in values if b.type_of(v).dtype.is_float]
    found = gradients(b, weighted(b, wide, rng), floats)
    names = [f"y{i}" for i in range(len(results))] + [f"g{i}" for i in range(len(found))]
    graph = b.build(list(zip(names, (*results, *found), strict=True)))
    return graph, {f"a{i}": x for i, x in enumerate(arrays)}


def assert_close(found: dict[str, Array], expected: dict[str, Array]) -> None:
    for name, y in expected.items():
        scale = 1 + np.abs(y).max(initial=0)
        np.testing.assert_allclose(found[name], y, rtol=2e-5, atol=2e-5 * scale)


@pytest.mark.parametrize("seed", range(6))
def test_every_pass_keeps_what_random_choices_compute(seed: int) -> None:
    graph, inputs = sample(seed)
    runs = [inputs | {"a0": np.array(flag)} for flag in (True, False)]
    expected = [interpret(graph, each, {}) for each in runs]

    def check(name: str, after: Graph) -> None:
        verify(after, name)
        for each, truth in zip(runs, expected, strict=True):
            assert_close(interpret(after, each, {}), truth)

    fused, _ = pipeline.run(graph, observe=check)
    assert read_graph(print_graph(fused), OPS) == fused


def conds(graph: Graph) -> list[Cond]:
    return [n.op for n in graph.nodes if isinstance(n.op, Cond)]


def test_what_is_known_when_a_module_is_built_leaves_the_branches() -> None:
    """Weights that a branch turns or scales are turned and scaled once, whichever branch runs."""
    text = """model M {
        input x: f32[N, 4]
        param w: f32[4, 4] = normal(std=1.0)
        param s: f32[4] = normal(std=1.0)
        cond mean(x) > 0 {
            y = x @ (exp(w) * 2) + s
        } else {
            y = x @ permute(w, (1, 0)) * exp(s)
        }
        output y
    }
    """
    elaborated = load(text)
    graph, _ = pipeline.run(elaborated.graph, until="late-branches")
    (choice,) = conds(graph)
    inside = {n.op.name for body in choice.regions for n in body.nodes}
    assert "exp" not in inside
    assert sum(n.op.name == "exp" for n in graph.nodes) == 2
    weights = initialise(elaborated.parameters)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for sign in (1, -1):
        inputs = {"x": x + np.float32(2 * sign)}
        whole = interpret(elaborated.graph, inputs, weights)
        assert_close(interpret(graph, inputs, weights), whole)


def test_an_index_is_not_looked_up_before_the_branch_runs() -> None:
    """Moving the lookup in front of the choice would report an index that no run reads."""
    text = """model M {
        input x: f32[N, 4]
        param table: f32[5, 4] = normal(std=1.0)
        y = x
        cond mean(x) > 0 {
            y = x + expand(table[argmax(table[:, 0], dim=0)], [N, 4])
        }
        output y
    }
    """
    graph, _ = pipeline.run(load(text).graph, until="late-branches")
    (choice,) = conds(graph)
    assert any(n.op.name == "take" for n in choice.on_true.nodes)


def test_kernels_of_both_branches_have_captures_of_their_own() -> None:
    """Two products with one weight may want it packed in two ways, also from different branches."""
    text = """model M {
        input x: f32[N, 4]
        param u: f32[4, 4] = normal(std=1.0)
        cond mean(x) > 0 {
            y = x @ u
        } else {
            y = tanh(x @ permute(u, (1, 0))) @ u
        }
        output y
    }
    """
    graph, _ = pipeline.run(load(text).graph)
    (choice,) = [c for n in graph.nodes if isinstance(n.op, Fusion) for c in conds(n.op.body)]
    assert [n.op for n in choice.on_true.inputs] == [n.op for n in choice.on_false.inputs]
    read: list[int] = []
    for body in choice.regions:
        slots = {n.values[0]: i for i, n in enumerate(body.inputs)}
        read += [slots[v] for n in body.nodes if n.op.regions for v in n.operands if v in slots]
    assert len(read) == len(set(read)) and len(read) >= 5


def test_choices_leave_loops_that_do_not_change_them() -> None:
    text = """model M {
        input x: f32[T, 4]
        input s: f32[4]
        scan x_t in x with h = zeros([4]) {
            cond mean(s) > 0 {
                k = exp(s)
            } else {
                k = sin(s)
            }
            h = h + x_t * k
        }
        output y = h.last
    }
    """
    graph, _ = pipeline.run(load(text).graph, until="late-loops")
    assert len(conds(graph)) == 1
    (loop,) = [n.op for n in graph.nodes if n.op.name == "scan"]
    assert not conds(loop.body)


def test_experts_of_one_shape_keep_what_their_gradients_read() -> None:
    """One forward choice, which keeps x w; no product of it in the backward one. Other shapes are computed again."""
    text = """model M {{
        input x: f32[N, 4]
        param w: f32[4, {0}] = normal(std=1.0)
        param a: f32[{0}, 3] = normal(std=1.0)
        param u: f32[4, {1}] = normal(std=1.0)
        param b: f32[{1}, 3] = normal(std=1.0)
        cond mean(x) > 0 {{
            y = tanh(x @ w) @ a
        }} else {{
            y = sin(x @ u) @ b
        }}
        output loss = sum(y * y)
    }}
    """
    for widths, outputs, products in (((5, 5), 2, 4), ((5, 6), 1, 5)):
        elaborated = load(text.format(*widths))
        whole = grad_graph(elaborated.graph, "loss", ["x", "w", "a", "u", "b"], ["loss"])
        graph, _ = pipeline.run(whole, until="late-loops")
        forward, backward = conds(graph)
        assert len(forward.on_true.outputs) == outputs
        for body in backward.regions:
            assert sum(n.op.name == "dot_general" for n in body.nodes) == products
        weights = initialise(elaborated.parameters)
        x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
        for sign in (1, -1):
            inputs = {"x": x + np.float32(2 * sign)}
            expected = interpret(whole, inputs, weights)
            assert_close(interpret(graph, inputs, weights), expected)
