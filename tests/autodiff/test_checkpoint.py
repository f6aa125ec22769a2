"""Checkpoint blocks: the same gradients, from values that are computed again instead of kept."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.autodiff import grad_graph
from graphc.ir.dim import evaluate
from graphc.ir.graph import Graph
from graphc.lowering.cpu.features import parse_target
from graphc.lowering.cpu.select import select
from graphc.lowering.plan import Needs, make_plan
from graphc.ops import OptimizationBarrier
from graphc.optim import SGD, Rule
from graphc.optim.step import training_step
from graphc.passes import pipeline
from graphc.passes.fuse import static_nodes
from graphc.reference import interpret
from tests.frontend.helpers import load
from tests.lowering.compiled import compile_graph

DEPTH = 12


def net(open_block: str, close_block: str, inner: str = "h -> fc{i}{j}: Linear(64) -> tanh") -> str:
    return f"""
model Deep {{
    input x: f32[512, 64]
    h = x
    for i in range({DEPTH // 3}) {{
        {open_block}
            for j in range(3) {{
                h = {inner}
            }}
        {close_block}
    }}
    output loss = mean(h * h)
}}
"""


def gradients(text: str) -> tuple[Graph, list[str]]:
    elaborated = load(text)
    paths = [p.path for p in elaborated.parameters]
    return grad_graph(elaborated.graph, "loss", ["x", *paths], ["loss"]), paths


def arena(graph: Graph, scratch: bool = True) -> int:
    fused, _ = pipeline.run(graph)
    static, target = static_nodes(fused), parse_target("x86-64-v3")

    def needs(node):
        return Needs(select(node.op, frozenset(), target).scratch if scratch else 0)

    size = make_plan(fused, needs, static).arena.size
    return int(evaluate(size, {}))


PLAIN, CHECKED = net("if true {", "}"), net("checkpoint {", "}")


def test_the_gradients_are_the_same() -> None:
    rng = np.random.default_rng(0)
    (plain, paths), (checked, _) = gradients(PLAIN), gradients(CHECKED)
    weights = {
        n.op.path: (rng.standard_normal(n.op.shape) / 8).astype(np.float32)
        for n in plain.parameters
    }
    x = {"x": rng.standard_normal((512, 64)).astype(np.float32)}
    want = interpret(plain, x, weights)
    found = compile_graph(checked, weights)(**x)
    assert list(found) == list(want) and len(want) == 2 + len(paths)
    for name, value in want.items():
        scale = np.abs(value).max()
        assert np.abs(found[name] - value).max() <= 1e-5 * scale, name


def test_inner_values_are_computed_again_after_all_passes() -> None:
    def count(text: str) -> int:
        graph, _ = pipeline.run(gradients(text)[0], until="halo")
        return sum(n.op.name == "tanh" for n in graph.nodes)

    assert count(PLAIN) == DEPTH
    assert count(CHECKED) == 2 * DEPTH - DEPTH // 3  # what leaves a block is kept


def test_memory_shrinks_as_predicted() -> None:
    plain, checked = (arena(gradients(text)[0]) for text in (PLAIN, CHECKED))
    value = 512 * 64 * 4
    # Kept are one value per block and the inner ones of one block, instead of one per layer.
    assert plain - checked == pytest.approx((DEPTH - DEPTH // 3 - 2) * value, abs=1.1 * value)


def test_the_memory_of_a_training_step_shrinks_as_predicted() -> None:
    def step(text: str) -> int:
        elaborated = load(text)
        paths = [p.path for p in elaborated.parameters]
        rule = Rule(SGD(0.1, momentum=0.9))
        return arena(training_step(elaborated.graph, "loss", rule, paths).graph, scratch=False)

    plain, checked = step(PLAIN), step(CHECKED)
    value = 512 * 64 * 4
    # Weights are updated as the backward pass goes: besides the layers' values only a few cotangents are alive.
    assert DEPTH * value <= plain <= (DEPTH + 3) * value
    assert plain - checked == pytest.approx((DEPTH - DEPTH // 3 - 2) * value, abs=1.1 * value)


def test_a_checkpoint_costs_nothing_without_a_gradient() -> None:
    plain, checked = load(PLAIN).graph, load(CHECKED).graph
    assert [n.op for n in plain.nodes] == [n.op for n in checked.nodes]
    assert not any(isinstance(n.op, OptimizationBarrier) for n in checked.nodes)


def test_second_derivatives_go_through_checkpoints() -> None:
    text = """
model M {{
    input x: f64[3]
    {} {{
        y = sin(x) * exp(x)
        z = y * y
    }}
    first = grad(sum(z), x)
    output second = grad(sum(first * first), x)
}}
"""
    x = {"x": np.array([0.3, -1.0, 2.0])}
    plain, checked = (
        interpret(load(text.format(w)).graph, x, {}) for w in ("if true", "checkpoint")
    )
    np.testing.assert_allclose(checked["second"], plain["second"], rtol=1e-12)
