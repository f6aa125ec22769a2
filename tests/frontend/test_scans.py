"""`scan` in a file: its values and gradients against the same loop in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from graphc.frontend.parameters import initialise
from graphc.reference import interpret
from tests.frontend.helpers import load

Tensors = dict[str, torch.Tensor]


def run(body: str, model: Callable[[Tensors], Tensors], **inputs: tuple[int, ...]) -> None:
    """Every output of a model, over random inputs, is what the same loop gives in PyTorch."""
    elaborated = load(f"model M {{\n{body}\n}}\n")
    rng = np.random.default_rng(0)
    arrays = {k: rng.normal(size=s).astype(np.float32) for k, s in inputs.items()}
    weights = initialise(elaborated.parameters)
    given = {k: torch.tensor(v, requires_grad=True) for k, v in (arrays | weights).items()}
    truth = model(given)
    found = interpret(elaborated.graph, arrays, weights)
    assert set(found) == set(truth)
    for name, y in found.items():
        np.testing.assert_allclose(y, truth[name].detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", ["", "reversed"])
def test_carries_sequences_captures_and_gradients(direction: str) -> None:
    def model(v: Tensors) -> Tensors:
        h, c, hs, cs = torch.zeros(2, 4), v["start"], [], []
        steps = range(5)
        for t in reversed(steps) if direction else steps:
            h = torch.tanh(v["x"][t] @ v["w"] + h @ v["u"]) * v["m"][t]
            c = c + h * v["start"]
            hs.append(h)
            cs.append(c * 2)
        if direction:
            hs.reverse(), cs.reverse()
        loss = (torch.stack(hs) ** 2).sum() + c.sum()
        names = ("x", "start", "w", "u", "m")
        grads = torch.autograd.grad(loss, [v[n] for n in names])
        outputs = {"hs": torch.stack(hs), "cs": torch.stack(cs), "h_n": h, "c_n": c}
        return outputs | {f"g_{n}": g for n, g in zip(names, grads, strict=True)}

    text = f"""
    input x: f32[T, N, 3]
    input m: f32[T, N, 1]
    input start: f32[N, 4]
    param w: f32[3, 4] = normal(std=1.0)
    param u: f32[4, 4] = normal(std=0.5)
    scan x_t in x, m_t in m with h = zeros([N, 4]), c = start {direction} {{
        h = tanh(x_t @ w + h @ u) * m_t
        c = c + h * start
        twice = c * 2
        emit h, twice
    }}
    loss = sum(h.stacked ** 2) + sum(c.last)
    output hs = h.stacked
    output cs = twice.stacked
    output h_n = h.last
    output c_n = c.last
    output g_x = grad(loss, x)
    output g_start = grad(loss, start)
    output g_w = grad(loss, w)
    output g_u = grad(loss, u)
    output g_m = grad(loss, m)
    """
    run(text, model, x=(5, 2, 3), m=(5, 2, 1), start=(2, 4))


def test_layers_in_a_body_have_one_set_of_weights() -> None:
    def model(v: Tensors) -> Tensors:
        h, out = torch.zeros(2, 4), []
        for x_t in v["x"]:
            both = torch.cat([x_t, h], 1)
            h = torch.tanh(both @ v["cell.weight"].T + v["cell.bias"])
            out.append(h)
        return {"y": torch.stack(out)}

    text = """
    input x: f32[T, N, 3]
    scan x_t in x with h = zeros([N, 4]) {
        h = concat([x_t, h], dim=1) -> cell: Linear(4) -> Tanh
        emit h
    }
    output y = h.stacked
    """
    run(text, model, x=(5, 2, 3))


def test_a_scan_in_a_scan() -> None:
    def model(v: Tensors) -> Tensors:
        total, sums = torch.zeros(3), []
        for row in v["x"]:
            for element in row:
                total = torch.sin(total + element * v["x"][0, 0])
            sums.append(total.sum())
        y = torch.stack(sums)
        (g,) = torch.autograd.grad((y * y).sum(), v["x"])
        return {"y": y, "g": g}

    text = """
    input x: f32[T, S, 3]
    scan row in x with total = zeros([3]) {
        scan element in row with inner = total {
            inner = sin(inner + element * x[0, 0])
        }
        total = inner.last
        s = sum(total)
        emit s
    }
    output y = s.stacked
    output g = grad(sum(y * y), x)
    """
    run(text, model, x=(4, 3, 3))


def test_a_gradient_in_a_scan() -> None:
    """Newton's method: each step takes a derivative."""

    def model(v: Tensors) -> Tensors:
        r = torch.ones(3)
        for _ in range(4):
            r = r - (r * r - v["x"][0]) / (2 * r)
        return {"root": r}

    text = """
    input x: f32[T, K]
    scan a in x with r = ones([K]) {
        f = r * r - x[0]
        r = r - f / grad(sum(f), r)
    }
    output root = r.last
    """
    run(text, model, x=(4, 3))
