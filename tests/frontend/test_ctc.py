"""CTC against PyTorch: repeated labels, empty targets, padded times, targets that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphc import frontend
from graphc.reference import interpret
from graphc.source import Source
from tests.frontend.helpers import codes, model
from tests.lowering.compiled import compile_graph

Array = np.ndarray[Any, np.dtype[Any]]
T, N, C, S = 12, 5, 6, 4
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(T, N, C)) * 3
LABELS = np.array([[1, 1, 2, 2], [3, 4, 5, 1], [5, 5, 5, -7], [2, 1, 0, 0], [4, 1, 9, 9]])
INPUT_LENGTHS = np.array([12, 4, 5, 1, 7])
TARGET_LENGTHS = np.array([4, 4, 3, 0, 2])
HEAD = """
    input logits: {dtype}[T, N, 6]
    input labels: i64[N, S]
    input steps: i64[N]
    input sizes: i64[N]
    loss = ctc_loss(log_softmax(logits, dim=2), labels, steps, sizes{options})
    output value = loss
    output g = grad(sum(loss), logits)
"""


def inputs(
    dtype: str = "f64", steps: Array = INPUT_LENGTHS, scale: float = 1.0
) -> dict[str, Array]:
    x = (LOGITS * scale).astype({"f64": np.float64, "f32": np.float32}[dtype])
    return {"logits": x, "labels": LABELS, "steps": steps, "sizes": TARGET_LENGTHS}


def expected(given: dict[str, Array], **options: Any) -> tuple[Array, Array]:
    """The loss and the gradient of its sum by the logits."""
    x = torch.tensor(given["logits"].astype(np.float64), requires_grad=True)
    labels = torch.tensor(np.clip(given["labels"], 0, C - 1))  # theirs reads the padding
    lengths = torch.tensor(given["steps"]), torch.tensor(given["sizes"])
    loss = torch.nn.functional.ctc_loss(x.log_softmax(2), labels, *lengths, **options)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach().numpy(), grad.numpy()


def graph(dtype: str = "f64", options: str = "", dims: dict[str, int] | None = None) -> Any:
    body = HEAD.format(dtype=dtype, options=options)
    return frontend.load(Source("ctc.nn", model(body)), dims=dims).graph


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        (', reduction="sum"', {"reduction": "sum"}),
        (', reduction="none"', {"reduction": "none"}),
        (", blank=3", {"blank": 3}),
        (", 0, zero_infinity=true", {"zero_infinity": True}),
    ],
)
def test_loss_and_gradient(text: str, options: dict[str, Any]) -> None:
    given = inputs()
    if options.get("blank"):
        given["labels"] = np.where(LABELS == 3, 0, LABELS)
    found = interpret(graph("f64", text), given, {})
    loss, grad = expected(given, **options)
    np.testing.assert_allclose(found["value"], loss, rtol=1e-12)
    np.testing.assert_allclose(found["g"], grad, rtol=1e-9, atol=1e-12)


def test_what_does_not_fit() -> None:
    """Three equal labels need five steps: infinite without them, nothing with `zero_infinity`."""
    given = inputs(steps=np.array([12, 4, 4, 1, 7]))
    one = interpret(graph("f64", ', reduction="none"'), given, {})
    assert np.isposinf(one["value"]).tolist() == [False, False, True, False, False]
    assert np.isfinite(one["g"]).all()
    text, options = ', reduction="none", zero_infinity=true', {"zero_infinity": True}
    found = interpret(graph("f64", text), given, {})
    loss, grad = expected(given, reduction="none", **options)
    np.testing.assert_allclose(found["value"], loss, rtol=1e-12)
    np.testing.assert_allclose(found["g"], grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_compiled(scale: float, module: Any) -> None:
    given = inputs("f32", scale=scale)
    found = module(**given)
    loss, grad = expected(given)
    np.testing.assert_allclose(found["value"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["g"], grad, atol=2e-6)


@pytest.fixture(scope="module")
def module() -> Any:
    return compile_graph(graph("f32", dims={"T": T, "N": N, "S": S}), {})


def test_lengths_may_be_fixed() -> None:
    head = "input x: f64[12, 5, 6]\ninput labels: i64[5, 4]\n"
    text = "ctc_loss(log_softmax(x, dim=2), labels, [12, 4, 5, 1, 7], (4, 4, 3, 0, 2))"
    made = frontend.load(Source("ctc.nn", model(f"{head}output value = {text}"))).graph
    found = interpret(made, {"x": LOGITS, "labels": LABELS}, {})
    np.testing.assert_allclose(found["value"], expected(inputs())[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ctc_loss(x[0], i, [4, 4], [1, 1])", "E0202"),
        ("ctc_loss(x, i[0], [4, 4], [1, 1])", "E0202"),
        ("ctc_loss(x, i * 0.5, [4, 4], [1, 1])", "E0206"),
        ("ctc_loss(x, i, [4, 4, 4], [1, 1])", "E0202"),
        ("ctc_loss(x, i, [4, 4], x[0, :, 0])", "E0202"),
        ("ctc_loss(x, i, [4, 4], [1, 1], blank=3)", "E0405"),
    ],
)
def test_refused(text: str, code: str) -> None:
    found = codes(
        model(
            f"input x: f32[4, 2, 3]\ninput i: i64[2, 2]\noutput y = {text}\noutput z = x\noutput j = i"
        )
    )
    assert found == [code]
