"""`grad` and `stop_gradient` in a file."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import pytest
import torch
from torch.nn import functional

from graphc import frontend
from graphc.diagnostics import DiagnosticError
from graphc.ir.op import OpError
from graphc.ops import Sine
from graphc.reference import interpret
from tests.frontend.helpers import compute, load, model

X = np.float32([[0.5, -1.0], [2.0, 0.25]])


def test_of_an_intermediate_value() -> None:
    found = compute("h = tanh(x)\ny = sum(h * h)\noutput g = grad(y, h)", x=X)
    np.testing.assert_allclose(found["g"], 2 * np.tanh(X), rtol=1e-6)


LOGITS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32) * 2
TARGETS = np.random.default_rng(1).random((4, 3)).astype(np.float32)
LABELS = np.array([2, 0, 1, 2])
LOSSES = {
    "-mean(gather(log_softmax(x, dim=1), 1, unsqueeze(i, 1)))": lambda x, t, i: (
        functional.cross_entropy(x, i)
    ),
    "mean((x - t) ** 2)": lambda x, t, i: functional.mse_loss(x, t),
    "mean(abs(x - t))": lambda x, t, i: functional.l1_loss(x, t),
    "mean(softplus(x) - x * t)": lambda x, t, i: functional.binary_cross_entropy_with_logits(x, t),
    "mean(where(abs(x - t) < 1.0, 0.5 * square(x - t), abs(x - t) - 0.5))": lambda x, t, i: (
        functional.huber_loss(x, t)
    ),
    "sum(t * (log(t) - log_softmax(x, dim=1))) / 4": lambda x, t, i: functional.kl_div(
        x.log_softmax(1), t, reduction="batchmean"
    ),
    "mean(logsumexp(x, dim=1)) + var(x) + std(x, dim=1)[0]": lambda x, t, i: (
        x.logsumexp(1).mean() + x.var() + x.std(1)[0]
    ),
    "mean(maximum(1.0 - x * t, 0.0)) + norm(x)": lambda x, t, i: (
        functional.relu(1 - x * t).mean() + x.norm()
    ),
    "mean(max(x, dim=1)) + min(x) + sum(sort(x)[:, 0])": lambda x, t, i: (
        x.amax(1).mean() + x.amin() + x.sort()[0][:, 0].sum()
    ),
}


@pytest.mark.parametrize("text", LOSSES)
def test_losses(text: str) -> None:
    found = compute(f"output g = grad({text}, x)\noutput used = t", x=LOGITS, t=TARGETS, i=LABELS)
    x = torch.from_numpy(LOGITS.copy()).requires_grad_()
    loss = LOSSES[text](x, torch.from_numpy(TARGETS), torch.from_numpy(LABELS))
    (g,) = torch.autograd.grad(loss, x)
    np.testing.assert_allclose(found["g"], g.numpy(), rtol=1e-5, atol=1e-6)


def test_of_a_parameter() -> None:
    text = "input x: f32[N, 2]\nparam w: f32[3, 2] = ones()\noutput g = grad(sum(linear(x, w)), w)"
    loaded = load(model(text))
    found = interpret(loaded.graph, {"x": X}, frontend.initialise(loaded.parameters, 0))
    np.testing.assert_allclose(found["g"], np.tile(X.sum(0), (3, 1)))


def test_steps_of_gradient_descent() -> None:
    found = compute(
        "z = x\nfor step in range(3) {\n    z = z - 0.25 * grad(sum(z * z), z)\n}\noutput z", x=X
    )
    np.testing.assert_allclose(found["z"], X / 8)


def test_through_blocks_and_layers() -> None:
    body = "input x: f32[N, 2]\ny = x -> a: Twice -> b: Twice\noutput g = grad(sum(y * y), x)"
    loaded = load(
        model(body, "block Twice(x: f32[N, 2]) {\n    return x -> fc: Linear(2) -> Tanh\n}")
    )
    arrays = frontend.initialise(loaded.parameters, 0)
    x = torch.from_numpy(X).requires_grad_()
    y = x
    for block in "ab":
        weight, bias = (torch.from_numpy(arrays[f"{block}.fc.{n}"]) for n in ("weight", "bias"))
        y = torch.nn.functional.linear(y, weight, bias).tanh()
    (g,) = torch.autograd.grad((y * y).sum(), x)
    found = interpret(loaded.graph, {"x": X}, arrays)["g"]
    np.testing.assert_allclose(found, g.numpy(), rtol=1e-5, atol=1e-6)
    kinds = {s.kind for n in loaded.graph.nodes for s in n.scope}
    assert kinds >= {"Twice", "Linear", "Gradient"}


def test_an_op_without_a_gradient_is_shown_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(*_: object) -> NoReturn:
        raise OpError("sine has no gradient", code="E0811")

    monkeypatch.setattr(Sine, "pullback", nothing)
    with pytest.raises(DiagnosticError) as caught:
        load(model("input x: f32[N]\ny = sin(x)\noutput g = grad(sum(y), x)"))
    (found,) = caught.value.diagnostics
    assert found.code == "E0811"
    assert found.primary is not None
    lines = [label.span.line for label in (found.primary, *found.secondary)]
    assert lines[:2] == [5, 4]
