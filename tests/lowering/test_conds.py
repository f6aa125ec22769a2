"""Compiled choices against the interpreter: both ways, forward and back, in loops and with loops in them."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import frontend
from graphc.artifact import Module
from graphc.autodiff import gradients
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ir.op import Array
from graphc.ops import Convert, Input
from graphc.source import Source
from tests.autodiff.numeric import weighted
from tests.frontend.helpers import load
from tests.lowering.compiled import RUNNABLE, compare, compile_graph, random_parameters
from tests.ops.samples import SAMPLES

LAYERS = """model M {
    input x: f32[N, 3, H, 8]
    input big: bool[]
    cond big {
        h = x -> conv: Conv2d(5, 3, padding=1) -> ReLU -> MaxPool2d(2) -> Flatten(2)
        y = mean(h, dim=2) -> deep: Linear(32) -> GELU -> out: Linear(7)
    } else cond mean(x) > 0 {
        y = mean(x, dim=(2, 3)) -> mid: Linear(7) -> softmax(dim=-1)
    } else {
        y = mean(x, dim=(2, 3)) -> low: Linear(7, bias=false)
        y = y - mean(y, dim=1, keepdim=true)
    }
    output y
    output g = grad(sum(y ** 3), x)
}
"""

LOOPS = """model M {
    input x: f32[T, N, 6]
    param w: f32[6, 6] = normal(std=0.5)
    scan x_t in x with h = ones([N, 6]), n = zeros([]) {
        cond mean(x_t) > 0 {
            h = tanh(h @ w + x_t)
            n = n + 1
        } else {
            h = h -> rare: Linear(6)
        }
        emit h
    }
    cond n.last > 1 {
        scan x_t in x with s = zeros([N, 6]) {
            s = sin(s + x_t @ w)
            emit s
        }
        y = s.last + h.last
        ys = s.stacked
    } else {
        y = h.last
        ys = h.stacked * 2
    }
    output y
    output ys
    output n = n.last
    loss = sum(y * y) + sum(ys ** 2)
    output g = grad(loss, x)
    output g_w = grad(loss, w)
}
"""


def random_choices() -> tuple[Graph, list[dict[str, Array]]]:
    """Some random choices and their gradients, in one graph, and inputs for all of them, both ways."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("choices")
    outputs, inputs = [], {}
    for k in range(6):
        op, arrays = SAMPLES["cond"](rng)
        values = []
        for i, x in enumerate(arrays):
            small = x / 4 if x.dtype.kind == "f" else x  # tanh is not flat there
            inputs[f"a{k}_{i}"] = np.asarray(small, x.dtype)
            values.append(b(Input(f"a{k}_{i}", DType.from_numpy(x.dtype), x.shape)))
        results = b.emit(op, *values)
        wide = [b(Convert(DType.F64), v) for v in results]
        floats = [v for v in values if b.type_of(v).dtype.is_float]
        found = gradients(b, weighted(b, wide, rng), floats)
        outputs += [(f"r{k}_{i}", v) for i, v in enumerate((*results, *found))]
    ways = [
        {k: np.array(way) for k, x in inputs.items() if x.dtype == bool and x.shape == ()}
        for way in (True, False)
    ]
    return b.build(outputs), [inputs | way for way in ways]


def test_random_choices_and_their_gradients() -> None:
    graph, runs = random_choices()
    module = compile_graph(graph, {})
    for inputs in runs:
        compare(module, graph, inputs, {}, 2e-5)


@pytest.mark.parametrize("target", RUNNABLE)
def test_layers_named_dims_and_gradients(target: str) -> None:
    """Products, a convolution, reductions and a choice in a choice; scratch memory of either branch."""
    graph = load(LAYERS).graph
    weights = random_parameters(graph)
    module = compile_graph(graph, weights, target)
    rng = np.random.default_rng(1)
    for rows, height in ((1, 2), (4, 6)):
        x = rng.normal(size=(rows, 3, height, 8)).astype(np.float32)
        x -= x.mean()
        for big in (True, False):
            for sign in (1, -1):
                inputs = {"x": x + np.float32(sign), "big": np.array(big)}
                compare(module, graph, inputs, weights, 2e-5)


def test_element_types() -> None:
    types = ("f64", "f16", "bf16", "i32", "u8", "bool")
    inputs = "".join(f"input {t}_: {t}[N, 3]\n" for t in types)
    true = "".join(f"{t} = {t}_ + {t}_\n" for t in types if t != "bool")
    false = "".join(f"{t} = permute(permute({t}_, (1, 0)) * 1, (1, 0))\n" for t in types[:-1])
    true += "bool = logical_not(bool_)\n"
    false += "bool = bool_\n"
    outputs = "".join(f"output r_{t} = {t.replace('bool', 'm')}\n" for t in types)
    names = {t: t for t in types} | {"bool": "m"}
    for t, name in names.items():
        true, false = (s.replace(f"{t} =", f"{name} =") for s in (true, false))
    text = f"model M {{\n{inputs}cond any(bool_) {{\n{true}}} else {{\n{false}}}\n{outputs}}}\n"
    graph = load(text).graph
    module = compile_graph(graph, {})
    rng = np.random.default_rng(2)
    for flag in (True, False):
        arrays = {
            f"{t}_": rng.integers(0, 9, (4, 3)).astype(DType(t).numpy) for t in types if t != "bool"
        }
        compare(module, graph, {**arrays, "bool_": np.full((4, 3), flag)}, {}, 1e-2)


def test_choices_in_loops_and_loops_in_choices() -> None:
    graph = load(LOOPS).graph
    weights = random_parameters(graph)
    module = compile_graph(graph, weights)
    rng = np.random.default_rng(3)
    for steps, rows, shift in ((1, 1, 1), (4, 2, 0), (7, 3, 0), (5, 2, -2)):
        x = rng.normal(size=(steps, rows, 6)).astype(np.float32) + np.float32(shift)
        compare(module, graph, {"x": x}, weights, 1e-4)


FAULTS = """model M {
    input ids: i64[N]
    input table: f32[5, 4]
    input other: f32[3, 4]
    input first: bool[]
    cond first {
        y = table[ids] * 2
    } else {
        y = other[ids] + other[ids + 1]
    }
    output y
}
"""


@pytest.fixture(scope="module")
def lookups() -> Module:
    return compile_graph(load(FAULTS).graph, {})


@pytest.mark.parametrize(
    ("first", "ids", "message"),
    [
        (True, 5, r"index 5 is out of range.*index < 5 \(test.nn:7:\d+\)"),
        (False, 3, r"index 3 is out of range.*index < 3 \(test.nn:9:\d+\)"),
        (False, 2, r"index 3 is out of range.*index < 3 \(test.nn:9:\d+\)"),
        (True, 3, None),
        (False, 1, None),
    ],
)
def test_only_what_the_branch_that_runs_looks_up_is_a_fault(
    lookups: Module, first: bool, ids: int, message: str | None
) -> None:
    rng = np.random.default_rng(4)
    inputs = {
        "ids": np.array([0, ids]),
        "table": rng.normal(size=(5, 4)).astype(np.float32),
        "other": rng.normal(size=(3, 4)).astype(np.float32),
        "first": np.array(first),
    }
    if message is None:
        compare(lookups, load(FAULTS).graph, inputs, {})
        return
    with pytest.raises(Exception, match=message):
        lookups(**inputs)


def test_state_that_one_branch_changes() -> None:
    """A training step with running statistics in one branch and dropout in both."""
    text = """
model M {
    input x: f32[N, 4]
    cond mean(x) > 0 {
        h = x -> norm: BatchNorm1d -> Dropout(0.5)
    } else {
        h = x -> Dropout(0.25)
    }
    output y = h -> fc: Linear(3)
}

train M {
    loss mean(y * y)
    optimizer SGD(lr=0.1)
}
"""
    step = frontend.load(Source("m.nn", text), mode="train").graph
    graph = Graph(step.name, step.dims, step.nodes, [o for o in step.outputs if o[0] != "rng"])
    weights = random_parameters(graph)
    module = compile_graph(graph, weights)
    rng = np.random.default_rng(5)
    for shift in (1, -1):
        x = rng.normal(size=(16, 4)).astype(np.float32) + np.float32(shift)
        compare(module, graph, {"x": x, "rng": np.array([7, 2])}, weights, 1e-5)
