"""`cond` in a file: its values and gradients against the same choice in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from graphc import frontend
from graphc.diagnostics import DiagnosticError
from graphc.frontend.parameters import initialise
from graphc.ir.graph import Graph
from graphc.ops import Cond
from graphc.reference import interpret
from graphc.source import Source
from tests.frontend.helpers import load

Tensors = dict[str, torch.Tensor]


def run(text: str, model: Callable[[Tensors], Tensors], **inputs: object) -> None:
    """Every output is what PyTorch gives, for inputs whose sum is positive and negative."""
    elaborated = load(f"model M {{\n{text}\n}}\n")
    weights = initialise(elaborated.parameters)
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        arrays = {
            k: np.asarray(s) if isinstance(s, bool) else rng.normal(size=s).astype(np.float32)
            for k, s in inputs.items()
        }
        arrays["x"] += sign - arrays["x"].mean()
        given = {
            k: torch.tensor(v, requires_grad=v.dtype.kind == "f")
            for k, v in (arrays | weights).items()
        }
        truth = model(given)
        found = interpret(elaborated.graph, arrays, weights)
        assert set(found) == set(truth)
        for name, y in found.items():
            np.testing.assert_allclose(y, truth[name].detach().numpy(), rtol=1e-4, atol=1e-5)


def conds(graph: Graph) -> list[Cond]:
    return [n.op for n in graph.nodes if isinstance(n.op, Cond)]


def grads(loss: torch.Tensor, v: Tensors, *names: str) -> Tensors:
    found = torch.autograd.grad(loss, [v[n] for n in names], allow_unused=True)
    zeros = [torch.zeros_like(v[n]) if g is None else g for n, g in zip(names, found, strict=True)]
    return {f"g_{n}": g for n, g in zip(names, zeros, strict=True)}


def test_names_layers_and_gradients() -> None:
    def model(v: Tensors) -> Tensors:
        h = torch.tanh(v["x"] @ v["w"])
        if v["x"].mean() > 0:
            y = torch.relu(h @ v["deep.weight"].T + v["deep.bias"]) * v["s"]
            h = h + y
        else:
            y = h * 2
        loss = (y * y).sum() + h.sum()
        return {"y": y, "h": h} | grads(loss, v, "x", "w", "s")

    text = """
    input x: f32[N, 3]
    input s: f32[]
    param w: f32[3, 4] = normal(std=1.0)
    h = tanh(x @ w)
    cond mean(x) > 0 {
        t = h -> deep: Linear(4) -> ReLU
        y = t * s
        h = h + y
    } else {
        y = h * 2
    }
    loss = sum(y * y) + sum(h)
    output y
    output h
    output g_x = grad(loss, x)
    output g_w = grad(loss, w)
    output g_s = grad(loss, s)
    """
    run(text, model, x=(5, 3), s=())


def test_else_cond_tuples_lists_and_numbers() -> None:
    def model(v: Tensors) -> Tensors:
        x = v["x"]
        a, b = (x, x * 2) if x.mean() > 2 else (x * 3, x) if x.mean() > 0 else (x * 4, x * 5)
        return {"y": a - b + 2}

    text = """
    input x: f32[N, 3]
    cond mean(x) > 2 {
        pair = (x, x * 2)
        k = 2
    } else cond mean(x) > 0 {
        pair = (x * 3, x)
        k = 2
    } else {
        k = 2
        pair = (x * 4, x * 5)
    }
    a, b = pair
    output y = a - b + k
    """
    run(text, model, x=(5, 3))
    (choice,) = conds(load(f"model M {{{text}}}").graph)
    assert len(choice.on_true.outputs) == 2  # the number is no result
    assert len(conds(choice.on_false)) == 1


def test_a_shared_layer_and_a_block_in_both_branches() -> None:
    def model(v: Tensors) -> Tensors:
        if v["flag"]:
            return {"y": v["x"] @ v["fc.weight"].T + v["fc.bias"]}
        twice = v["x"] @ v["fc.weight"].T + v["fc.bias"]
        return {"y": torch.relu(twice @ v["net.deep.weight"].T + v["net.deep.bias"])}

    block = "block Net(x: f32[N, D]) {\n return x -> deep: Linear(D) -> ReLU\n}\n"
    text = """
    input x: f32[N, 3]
    input flag: bool[]
    shared fc: Linear(3)
    cond flag {
        y = x -> fc
    } else {
        y = x -> fc -> net: Net
    }
    output y
    """
    elaborated = load(f"{block}model M {{{text}}}")
    assert [p.path for p in elaborated.parameters] == [
        *("fc.weight", "fc.bias", "net.deep.weight", "net.deep.bias")
    ]
    weights = initialise(elaborated.parameters)
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    for flag in (True, False):
        given = {k: torch.tensor(v) for k, v in ({"x": x, "flag": flag} | weights).items()}
        found = interpret(elaborated.graph, {"x": x, "flag": np.array(flag)}, weights)
        np.testing.assert_allclose(found["y"], model(given)["y"].numpy(), rtol=1e-5, atol=1e-6)


def test_a_cond_in_a_scan_and_a_scan_in_a_cond() -> None:
    def model(v: Tensors) -> Tensors:
        h, hs = torch.ones(3), []
        for x_t in v["x"]:
            h = torch.sin(h + x_t) if x_t[0] > x_t[1] else h * v["s"]
            hs.append(h)
        if v["x"].mean() > 0:
            total = torch.zeros(3)
            for x_t in v["x"]:
                total = torch.tanh(total + x_t * h)
            y = total
        else:
            y = h * h
        loss = (y * y).sum() + (torch.stack(hs) ** 2).sum()
        (once,) = torch.autograd.grad(loss, v["x"], create_graph=True)
        return {"y": y, "hs": torch.stack(hs)} | grads((once**2).sum(), v, "x", "s")

    text = """
    input x: f32[T, 3]
    input s: f32[]
    scan x_t in x with h = ones([3]) {
        cond x_t[0] > x_t[1] {
            h = sin(h + x_t)
        } else {
            h = h * s
        }
        emit h
    }
    cond mean(x) > 0 {
        scan x_t in x with total = zeros([3]) {
            total = tanh(total + x_t * h.last)
        }
        y = total.last
    } else {
        y = h.last * h.last
    }
    loss = sum(y * y) + sum(h.stacked ** 2)
    again = sum(grad(loss, x) ** 2)
    output y
    output hs = h.stacked
    output g_x = grad(again, x)
    output g_s = grad(again, s)
    """
    run(text, model, x=(5, 3), s=())


def test_gradients_in_a_branch_checkpoints_and_stop_gradient() -> None:
    def model(v: Tensors) -> Tensors:
        x = v["x"]
        if x.mean() > 0:
            (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
            y = g * torch.exp(v["s"]) + torch.tanh(torch.tanh(x) * x)
        else:
            y = x.detach() * v["s"] + torch.sin(x)
        return {"y": y} | grads((y * y).sum(), v, "x", "s")

    text = """
    input x: f32[N]
    input s: f32[]
    checkpoint {
        cond mean(x) > 0 {
            y = grad(sum(x ** 3), x) * exp(s)
            checkpoint {
                y = y + tanh(tanh(x) * x)
            }
        } else {
            y = stop_gradient(x) * s + sin(x)
        }
    }
    output y
    output g_x = grad(sum(y * y), x)
    output g_s = grad(sum(y * y), s)
    """
    run(text, model, x=(4,), s=())


def test_scans_that_both_branches_have() -> None:
    def model(v: Tensors) -> Tensors:
        up = v["x"].mean() > 0
        x = v["x"] if up else -v["x"]
        return {"y": torch.cumsum(x, 0), "z": x.sum(0)}

    text = """
    input x: f32[T, 3]
    cond mean(x) > 0 {
        scan x_t in x with s = zeros([3]) {
            s = s + x_t
            emit s
        }
    } else {
        scan x_t in x with s = zeros([3]) {
            s = s - x_t
            emit s
        }
    }
    output y = s.stacked
    output z = s.last
    """
    run(text, model, x=(4, 3))


TRAIN = """
model M {
    input x: f32[N, 4]
    h = x -> BatchNorm1d
    cond mean(x) > 0 {
        h = h -> norm: BatchNorm1d -> Dropout(0.5)
    } else {
        h = h -> Dropout(0.25)
    }
    output y = h -> fc: Linear(1)
}

train M {
    loss mean(y * y)
    optimizer SGD(lr=0.1)
}
"""


def test_the_branch_that_runs_drops_and_updates_statistics() -> None:
    elaborated = frontend.load(Source("m.nn", TRAIN), mode="train")
    weights = initialise(elaborated.parameters)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    updated = {}
    for sign in (1, -1):
        given = {"x": x + np.float32(sign), "rng": np.array([3, 1])}
        found = interpret(elaborated.graph, given, weights)
        assert np.isfinite(found["loss"])
        np.testing.assert_array_equal(found["rng"], [3, 2])
        outer = found["batch_norm1d.running_mean"]
        np.testing.assert_allclose(outer, 0.1 * given["x"].mean(0), rtol=1e-5, atol=1e-6)
        updated[sign] = found["norm.running_var"]
    assert not np.array_equal(updated[1], weights["norm.running_var"])
    np.testing.assert_array_equal(updated[-1], weights["norm.running_var"])


def test_a_scan_that_trains_a_batch_norm_is_refused() -> None:
    text = """
model M {
    input x: f32[T, N, 4]
    scan x_t in x with h = zeros([N, 4]) {
        h = h + x_t -> norm: BatchNorm1d
    }
    output y = h.last
}

train M {
    loss mean(y)
    optimizer SGD(lr=0.1)
}
"""
    with pytest.raises(DiagnosticError, match="a scan cannot change running statistics"):
        frontend.load(Source("m.nn", text), mode="train")
    assert frontend.load(Source("m.nn", text)).graph.outputs
