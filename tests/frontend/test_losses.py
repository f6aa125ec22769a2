"""Every loss and its gradients against PyTorch: the same line of text is evaluated by both.

All lines are outputs of one model with an open batch size, interpreted in f64; one of each loss is compiled in f32.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from graphc import frontend
from graphc.frontend import FUNCTIONS
from graphc.ir.graph import Graph
from graphc.passes import pipeline
from graphc.reference import interpret
from graphc.source import Source
from tests.frontend.helpers import codes, compute, model
from tests.lowering.compiled import compile_graph

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(0)
N, C = 6, 5


def normal(*shape: int) -> Array:
    return np.round(RNG.normal(size=shape) * 16) / 16  # with ties


FLOATS: dict[str, Array] = {
    "x": normal(N, C),
    "y": np.where(RNG.random((N, C)) < 0.2, 0.25, normal(N, C)),
    "z": normal(N, C),
    "large": RNG.choice([-1e4, -300.0, -40.0, 0.0, 40.0, 300.0, 1e4], size=(N, C)),
    "p": np.concatenate([RNG.random((N - 1, C)), [[0.0, 1.0, 0.5, 0.0, 1.0]]]),
    "q": np.concatenate([[[0.0, 1.0, 0.5, 1.0, 0.0]], RNG.random((N - 1, C))]),
    "w": RNG.random(C) + 0.1,
    "v": RNG.random((N, C)) + 0.1,
    "one": normal(C),
    "image": normal(N, C, 3, 2),
    "soft": RNG.dirichlet(np.ones(C), (N, 3, 2)).transpose(0, 3, 1, 2),
    "sign": RNG.choice([-1.0, 1.0], size=N),
    "signs": RNG.choice([-1.0, 1.0], size=(N, C)),
}
INTS: dict[str, Array] = {
    "label": np.array([0, 4, -100, 2, 2, 1]),
    "clean": np.array([0, 4, 3, 2, 2, 1]),
    "dense": RNG.integers(0, C, (N, 3, 2)),
    "single": np.array(3),
}
ACTIVE = ("x", "y", "z", "large", "p", "q", "w", "v", "one", "image", "soft")

LINES = """
cross_entropy(x, label)
cross_entropy(x, label, reduction="sum")
cross_entropy(x, label, reduction="none")
cross_entropy(x, clean, ignore_index=2)
cross_entropy(x, label, label_smoothing=0.1)
cross_entropy(x, label, w)
cross_entropy(x, clean, weight=w, ignore_index=2, reduction="sum", label_smoothing=0.3)
cross_entropy(x, label, weight=w, reduction="none", label_smoothing=0.3)
cross_entropy(x, clean, weight=w, label_smoothing=0.3)
cross_entropy(large, label)
cross_entropy(large, label, label_smoothing=0.1, reduction="none")
cross_entropy(one, single)
cross_entropy(image, dense)
cross_entropy(image, dense, w, ignore_index=1, reduction="none", label_smoothing=0.2)
cross_entropy(x, p)
cross_entropy(x, p, w, reduction="none", label_smoothing=0.2)
cross_entropy(image, soft)
cross_entropy(image, soft, weight=w, label_smoothing=0.1)
cross_entropy(one, w)
nll_loss(x, label)
nll_loss(x, label, w)
nll_loss(x, clean, w, ignore_index=2, reduction="sum")
nll_loss(x, label, reduction="none")
nll_loss(image, dense, weight=w)
nll_loss(one, single)
mse_loss(x, y)
mse_loss(x, y, reduction="none")
mse_loss(x, y, reduction="sum", weight=v)
mse_loss(x, y, weight=v)
l1_loss(x, y)
l1_loss(x, x + 0 * y)
l1_loss(x, y, reduction="mean", weight=v)
smooth_l1_loss(x, y)
smooth_l1_loss(x, y, beta=0.25)
smooth_l1_loss(x, y, reduction="sum", beta=0.0)
smooth_l1_loss(large, y, reduction="none")
huber_loss(x, y)
huber_loss(x, y, reduction="sum", delta=0.25)
huber_loss(x, y, delta=0.5, weight=v)
kl_div(x, p)
kl_div(x, p, reduction="batchmean")
kl_div(x, p, reduction="none")
kl_div(x, y, reduction="sum", log_target=true)
binary_cross_entropy(p, q)
binary_cross_entropy(p, q, reduction="sum")
binary_cross_entropy(p, q, weight=w, reduction="none")
binary_cross_entropy_with_logits(x, p)
binary_cross_entropy_with_logits(x, p, v, reduction="mean")
binary_cross_entropy_with_logits(x, p, weight=w, reduction="sum", pos_weight=v)
binary_cross_entropy_with_logits(x, p, reduction="none", pos_weight=w)
binary_cross_entropy_with_logits(large, p)
sigmoid_focal_loss(x, p)
sigmoid_focal_loss(x, p, alpha=-1.0, gamma=1.5, reduction="mean")
sigmoid_focal_loss(x, p, alpha=0.6, gamma=0.0, reduction="sum")
sigmoid_focal_loss(large, p, gamma=3.0, reduction="sum")
multi_margin_loss(x, clean)
multi_margin_loss(x, clean, p=2, margin=0.5)
multi_margin_loss(x, clean, weight=w, reduction="none")
multi_margin_loss(one, single, reduction="sum")
hinge_embedding_loss(x, signs)
hinge_embedding_loss(x, signs, margin=0.25, reduction="sum")
margin_ranking_loss(x, y, signs)
margin_ranking_loss(x, y, signs, margin=0.25, reduction="none")
triplet_margin_loss(x, y, z)
triplet_margin_loss(x, y, z, margin=0.5, p=1.0, reduction="none")
triplet_margin_loss(x, y, z, p=3.0, eps=0.01, swap=true, reduction="sum")
triplet_margin_loss(x, y, z, margin=2.0, swap=true)
triplet_margin_loss(x, x, z, eps=0.0, margin=9.0)
cosine_embedding_loss(x, y, sign)
cosine_embedding_loss(x, y, sign, margin=0.3, reduction="none")
""".strip().split("\n")


def sigmoid_focal_loss(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
) -> torch.Tensor:
    """The paper's formula, as torchvision has it."""
    p = torch.sigmoid(inputs)
    ce = functional.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    loss = ce * (1 - (p * targets + (1 - p) * (1 - targets))) ** gamma
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]


KNOWN = {**vars(functional), "sigmoid_focal_loss": sigmoid_focal_loss, "true": True}


FAST = [
    line
    for i, line in enumerate(LINES)
    if "large" in line or line.split("(")[0] != LINES[i - 1].split("(")[0]
]
"""The lines that are compiled too: one of each loss, and extreme logits."""


def used(line: str) -> list[str]:
    """Inputs of a line that have a gradient; PyTorch has none for most weights."""
    name, arguments = line.replace("p=", "").split("(", 1)
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in arguments).split())
    weighted = name.startswith(("cross_entropy", "nll_loss", "multi_margin", "binary"))
    return [name for name in ACTIVE if name in words - ({"w", "v"} if weighted else set())]


def expected(line: str) -> dict[str, Array]:
    """The loss, and the gradients of its sum, by PyTorch in f64."""
    tensors = {k: torch.tensor(x) for k, x in {**FLOATS, **INTS}.items()}
    active = {k: tensors[k].requires_grad_() for k in used(line)}
    with warnings.catch_warnings():  # about kl_div's mean
        warnings.simplefilter("ignore")
        loss = eval(line, KNOWN, tensors)
    grads = torch.autograd.grad(loss.sum(), list(active.values()))
    found = {"loss": loss.detach().numpy()}
    return found | {k: g.numpy() for k, g in zip(active, grads, strict=True)}


NARROW = {k: x.astype(np.float32) for k, x in FLOATS.items()}


def graph_of(dtype: str, lines: list[str]) -> Graph:
    """Lines and their gradients as outputs: `line3_x` is the gradient of the third of LINES by x."""
    body = []
    for name, x in {**FLOATS, **INTS}.items():
        dims = ", ".join("N" if d == N else str(d) for d in x.shape)
        body.append(f"input {name}: {dtype if name in FLOATS else 'i64'}[{dims}]")
    for line in lines:
        label = f"line{LINES.index(line)}"
        body.append(f"output {label}_loss = {line}")
        body += [f"output {label}_{k} = grad(sum({label}_loss), {k})" for k in used(line)]
    return frontend.load(Source("losses.nn", model("\n".join(body)))).graph


@pytest.fixture(scope="module")
def exact() -> dict[str, Array]:
    return interpret(graph_of("f64", LINES), {**FLOATS, **INTS}, {})


@pytest.fixture(scope="module")
def compiled() -> dict[str, Array]:
    module = compile_graph(graph_of("f32", FAST).substitute_dims({"N": N}), {})
    return module(**NARROW, **INTS)


def comparable(line: str, name: str) -> Array | slice:
    """Where PyTorch's gradient is finite: that by a target is not, at a probability or target of 0 or 1."""
    if name == "q" or (name == "p" and line.startswith("kl_div")):
        kept: Array = (FLOATS["p"] > 0) & (FLOATS["p"] < 1)
        return kept
    return slice(None)


@pytest.mark.parametrize("line", LINES)
def test_loss_and_gradients(line: str, exact: dict[str, Array]) -> None:
    for name, want in expected(line).items():
        found, kept = exact[f"line{LINES.index(line)}_{name}"], comparable(line, name)
        assert found.shape == want.shape and np.isfinite(found).all()
        if want.ndim:
            found, want = found[kept], want[kept]
        np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-12)  # theirs holds 1e-12 in f32


@pytest.mark.parametrize("line", FAST)
def test_compiled_in_f32(line: str, compiled: dict[str, Array]) -> None:
    for name, want in expected(line).items():
        found, kept = compiled[f"line{LINES.index(line)}_{name}"], comparable(line, name)
        assert np.isfinite(found).all()
        if want.ndim:
            found, want = found[kept], want[kept]
        scale = np.abs(want).max(initial=1e-3)
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=2e-6 * scale)


def test_compiled_for_any_batch_size() -> None:
    module = compile_graph(graph_of("f32", LINES[:1]), {})
    for few in (N, 3, 1):
        cut = {k: x[:few] if x.shape[:1] == (N,) else x for k, x in {**NARROW, **INTS}.items()}
        x, label = torch.tensor(cut["x"], requires_grad=True), torch.tensor(cut["label"])
        loss = functional.cross_entropy(x, label)
        found = module(**cut)
        assert np.allclose(found["line0_loss"], loss.item(), rtol=1e-6)
        (grad,) = torch.autograd.grad(loss, x)
        np.testing.assert_allclose(found["line0_x"], grad.numpy(), atol=1e-6)


def test_every_loss_is_here() -> None:
    losses = {n for n, f in FUNCTIONS.items() if f.group == "Losses"}
    assert losses - {"ctc_loss"} == {line.split("(")[0] for line in LINES}


def test_the_gradient_of_cross_entropy_is_two_elementwise_kernels() -> None:
    """Nothing of the size of the logits is kept between the passes: softmax minus target, in one map."""
    text = model(
        "input x: f32[64, 1000]\ninput t: i64[64]\noutput g = grad(cross_entropy(x, t), x)"
    )
    fused, _ = pipeline.run(frontend.load(Source("loss.nn", text)).graph)
    large = [n for n in fused.nodes if n.types[0].size == 64000 and n.op.name == "fusion"]
    assert [n.op.kind for n in large] == ["map"]


def test_half_precision_means_do_not_overflow() -> None:
    x = np.full((400, 300), 30.0, np.float32)
    out = compute("h = astype(x, f16)\noutput loss = mse_loss(h, h * 0.0)", x=x)["loss"]
    assert out.dtype == np.float16 and out == 900


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("mse_loss(x, x[:, 0])", "E0202"),
        ("mse_loss(x, x, weight=x[0])", "E0202"),
        ('mse_loss(x, x, reduction="avg")', "E0405"),
        ("huber_loss(x, x, delta=0)", "E0405"),
        ("smooth_l1_loss(x, x, beta=-1)", "E0405"),
        ("cross_entropy(x, i)", "E0202"),
        ("cross_entropy(x, x[:1])", "E0202"),
        ("cross_entropy(x, x > 0)", "E0206"),
        ("cross_entropy(sum(x), i)", "E0205"),
        ("cross_entropy(x, argmax(x, dim=1), x[0, :2])", "E0214"),
        ("cross_entropy(x, argmax(x, dim=1), label_smoothing=1.5)", "E0405"),
        ("multi_margin_loss(x, argmax(x, dim=1), p=3)", "E0405"),
        ("triplet_margin_loss(x, x, x, margin=0.0)", "E0405"),
        ("triplet_margin_loss(x, x, x, p=-1.0)", "E0405"),
        ("cosine_embedding_loss(x, x, x)", "E0202"),
        ('kl_div(sum(x), sum(x), reduction="batchmean")', "E0205"),
        ("binary_cross_entropy(x, i)", "E0202"),
        ("cross_entropy(x, argmax(x, dim=1), label_smooth=0.1)", "E0401"),
    ],
)
def test_refused(text: str, code: str) -> None:
    body = (
        f"input x: f32[2, 3]\ninput i: i64[4]\noutput y = {text}\noutput z = x[0, 0]\noutput j = i"
    )
    assert codes(model(body)) == [code]


def test_a_class_that_does_not_exist_is_a_fault() -> None:
    x = np.zeros((2, 3), np.float32)
    for text in ("cross_entropy(x, i)", "nll_loss(x, i)", "multi_margin_loss(x, i)"):
        with pytest.raises(IndexError, match=r"3 is not in 0\.\.2"):
            compute(f"output y = {text}", x=x, i=np.array([1, 3]))
