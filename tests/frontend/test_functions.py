"""Functions against NumPy and PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from graphc.frontend import FUNCTIONS
from tests.frontend.helpers import codes, compute, model

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4)).astype(np.float32)
Y = RNG.normal(size=(2, 3, 4)).astype(np.float32)
Z = RNG.normal(size=(4, 5)).astype(np.float32)
I = RNG.integers(0, 3, (2, 2))
B = X > 0
IMAGE = RNG.normal(size=(2, 4, 6, 5)).astype(np.float32)
T = torch.from_numpy
x, y, z, image = T(X), T(Y), T(Z), T(IMAGE)
INPUTS = {"x": X, "y": Y, "z": Z, "i": I, "b": B, "image": IMAGE}

CASES: dict[str, Any] = {
    "exp(x)": np.exp(X),
    "expm1(x)": np.expm1(X),
    "log(exp(x))": X,
    "log1p(abs(x))": np.log1p(np.abs(X)),
    "sqrt(square(x))": np.abs(X),
    "rsqrt(x * x + 1)": 1 / np.sqrt(X * X + 1),
    "sin(x) + cos(x)": np.sin(X) + np.cos(X),
    "erf(x)": torch.erf(x),
    "floor(x) + ceil(x) + round(x)": np.floor(X) + np.ceil(X) + np.rint(X),
    "sign(x) + neg(x)": np.sign(X) - X,
    "pow(abs(x), 1.5)": np.abs(X) ** 1.5,
    "maximum(x, y) + minimum(x, 0)": np.maximum(X, Y) + np.minimum(X, 0),
    "clamp(x, -0.5, 0.5) + clamp(x, max=0.1)": np.clip(X, -0.5, 0.5) + np.minimum(X, 0.1),
    "where(x > y, x, y)": np.maximum(X, Y),
    "where(b, 1, 0)": B.astype(np.float32),
    "where(isnan(x / 0 - x / 0), 1.0, 2.0)": np.ones_like(X),
    "logical_or(logical_and(b, logical_not(b)), logical_xor(b, b))": np.zeros_like(B),
    'astype(x * 3, "i64")': (X * 3).astype(np.int64),
    "astype(b, f32)": B.astype(np.float32),
    "sum(x)": X.sum(),
    "sum(x, dim=1)": X.sum(1),
    "sum(x, (0, -1), keepdim=true)": X.sum((0, 2), keepdims=True),
    "sum(b)": B.sum(),
    "prod(x, dim=2)": X.prod(2),
    "mean(x, dim=-1, keepdim=true)": X.mean(-1, keepdims=True),
    "mean(b)": B.mean(),
    "var(x, dim=1)": x.var(1),
    "std(x, correction=0)": X.std(),
    "max(x, dim=1) + min(x, dim=1)": X.max(1) + X.min(1),
    "any(b, dim=2)": B.any(2),
    "all(b, dim=2)": B.all(2),
    "argmax(x, dim=1)": X.argmax(1),
    "argmin(x, dim=1, keepdim=true)": X.argmin(1)[:, None],
    "argmax(x)": X.argmax(),
    "logsumexp(x, dim=1)": torch.logsumexp(x, 1),
    "logsumexp(x, dim=-1, keepdim=true)": torch.logsumexp(x, -1, True),
    "norm(x, dim=2)": np.linalg.norm(X, axis=2),
    "reshape(x, (3, -1))": X.reshape(3, 8),
    "reshape(x, x.shape)": X,
    "flatten(x, 1)": X.reshape(2, 12),
    "permute(x, (2, 0, -2))": X.transpose(2, 0, 1),
    "transpose(x)": X.transpose(0, 2, 1),
    "transpose(x, 0, 1)": X.transpose(1, 0, 2),
    "squeeze(unsqueeze(x, -1), 3)": X,
    "squeeze(x[:1, :1])": X[0, 0],
    "expand(x[:, :1], (2, 3, -1))": np.broadcast_to(X[:, :1], X.shape),
    "concat([x, y, x], dim=-1)": np.concatenate((X, Y, X), -1),
    "stack((x, y), dim=1)": np.stack((X, Y), 1),
    "split(x, 3, dim=2)[1]": X[..., 3:],
    "split(x, [1, 3], dim=2)[1]": X[..., 1:],
    "chunk(x, 2, dim=2)[1]": X[..., 2:],
    "random_uniform((2, 3), 1.5, 1.5, key=i[0])": np.full((2, 3), 1.5, np.float32),
    "random_normal(3, 2.5, 0.0, key=i[0])": np.full(3, 2.5, np.float32),
    "random_integers((2, 3), 5, 6, key=i[0])": np.full((2, 3), 5),
    "bernoulli(3, 1.0, key=i[0])": np.ones(3, bool),
    "sort(random_permutation(7, key=i[0]))": np.arange(7),
    "flip(x, 1) + flip(x, (0, 2))": X[:, ::-1] + X[::-1, :, ::-1],
    "roll(x, 1, dim=2) + roll(x, -5, dim=1)": np.roll(X, 1, 2) + np.roll(X, -5, 1),
    "repeat(x, (2, 1, 1, 3))": np.tile(X, (2, 1, 1, 3)),
    "pad(x, (1, 2, -1, 1), 0.5)": functional.pad(x, (1, 2, -1, 1), value=0.5),
    "take(x, i, dim=1)": np.take(X, I, 1),
    "gather(x[:, :, 0], 1, i)": np.take_along_axis(X[:, :, 0], I, 1),
    "argsort(x, dim=1, descending=true)": np.argsort(-X, 1),
    "sort(x)": np.sort(X),
    "pixel_shuffle(image, 2)": functional.pixel_shuffle(image, 2),
    "zeros((2, 2)) + ones([2, 2]) + full((2, 2), 3)": np.full((2, 2), 4.0),
    "zeros_like(x) + ones_like(x)": np.ones_like(X),
    "arange(5)": np.arange(5),
    "arange(1, 10, 3)": np.arange(1, 10, 3),
    "arange(10, 0, -3)": np.arange(10, 0, -3),
    "arange(0.0, 1.0, 0.3)": np.arange(0, 1, 0.3),
    'arange(3, dtype="f32")': np.arange(3.0),
    "linspace(0, 1, 5)": np.linspace(0, 1, 5),
    "eye(3)": np.eye(3),
    "causal_mask(3)": np.tril(np.ones((3, 3), bool)),
    "causal_mask(2, 4)": np.tril(np.ones((2, 4), bool), 2),
    "tril(x) + triu(x, 1)": X,
    "tril(z, -1)": np.tril(Z, -1),
    "tensor([[1, 2], [3, 4.5]])": np.array([[1, 2], [3, 4.5]]),
    "tensor([1, 2]) + tensor([3, 4])": np.array([4, 6]),
    "grad(sum(x * x * x), x)": 3 * X * X,
    "grad(sum(grad(sum(x * x * x), x) ** 2), x)": 36 * X * X * X,
    "grad(sum(x * stop_gradient(x)), x) + grad(sum(x), z)[0, 0]": X,
    "matmul(x, z)": X @ Z,
    "x @ z": X @ Z,
    'einsum("bij,bkj->bik", x, y)': np.einsum("bij,bkj->bik", X, Y),
    "linear(x, transpose(z), ones(5))": X @ Z + 1,
    "relu(x) + relu6(x * 9)": functional.relu(x) + functional.relu6(x * 9),
    "leaky_relu(x, 0.3)": functional.leaky_relu(x, 0.3),
    "elu(x, 0.5) + selu(x)": functional.elu(x, 0.5) + functional.selu(x),
    'gelu(x) + gelu(x, approximate="tanh")': functional.gelu(x)
    + functional.gelu(x, approximate="tanh"),
    "silu(x) + sigmoid(x) + tanh(x)": functional.silu(x) + x.sigmoid() + x.tanh(),
    "softplus(x, 2) + hardswish(x)": functional.softplus(x, 2) + functional.hardswish(x),
    "hardsigmoid(x) + hardtanh(x, -0.5) + mish(x)": functional.hardsigmoid(x)
    + functional.hardtanh(x, -0.5)
    + functional.mish(x),
    "softmax(x, dim=1) + log_softmax(x, -1)": x.softmax(1) + x.log_softmax(-1),
    "layer_norm(x) + layer_norm(x, (3, 4))": functional.layer_norm(x, (4,))
    + functional.layer_norm(x, (3, 4)),
    "rms_norm(x, eps=0.01)": functional.rms_norm(x, (4,), eps=0.01),
    'interpolate(image, scale_factor=2, mode="bilinear")': functional.interpolate(
        image, scale_factor=2, mode="bilinear"
    ),
    "interpolate(image, size=(3, 9))": functional.interpolate(image, size=(3, 9)),
    "embedding(i, z)": Z[I],
    "scaled_dot_product_attention(image, image, image, is_causal=true)": (
        functional.scaled_dot_product_attention(image, image, image, is_causal=True)
    ),
    "scaled_dot_product_attention(x, y, y, causal_mask(3), scale=0.3)": (
        functional.scaled_dot_product_attention(x, y, y, torch.ones(3, 3).tril().bool(), scale=0.3)
    ),
}


@pytest.mark.parametrize("text", CASES)
def test_function(text: str) -> None:
    used = {k: v for k, v in INPUTS.items() if k in _words(text)}
    anchor = {} if used else {"x": X}
    unused = "" if used else "output anchor = x\n"
    out = compute(f"{unused}output result = {text}", **used, **anchor)["result"]
    want = np.asarray(CASES[text])
    assert out.shape == want.shape
    if out.dtype.kind == "f":
        assert np.allclose(out, want, atol=1e-4, equal_nan=True)
    else:
        assert np.array_equal(out, want)


def _words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


PLAIN: dict[str, Any] = {
    "sqrt(16) + exp(0) + log(1)": 5.0,
    "floor(2.7) + ceil(2.1) + round(2.5) + abs(-3) + sign(-2)": 9,
    "max(2, 3) + min([4, 5]) + max([1, 2, 3]) + sum([1, 2]) + prod([2, 3])": 19,
    'len([1, 2]) + len("abc") + int(2.9) + float(1)': 8.0,
    "shape(x, 1) + rank(x) + numel(x)": 3 + 3 + 24,
    "reversed([1, 2])[0] + zip([1], [5])[0][1] + [7, 8, 9][1:][0]": 15,
    "2 ** 10 % 1000 // 5 - 7 / 2": 0.5,
    "pi * inf": math.inf,
    "(3 if is_integer(2.0) else 4) + [1, 2, 3][-1]": 6,
    'len("{1 + 1}-{x.shape}-{str(true)}")': len("2-(2, 3, 4)-true"),
    "([1] + [2] * 3)[3] + (1, 2)[0]": 3,
}


@pytest.mark.parametrize("text", PLAIN)
def test_plain_values(text: str) -> None:
    out = compute(f"output result = ones_like(x) * ({text})", x=X)["result"]
    assert np.allclose(out, np.full_like(X, PLAIN[text]))


REFUSED = [
    ("reshape(x, (7, -1))", "E0210"),
    ("reshape(x, (-1, -1))", "E0207"),
    ("permute(x, (0, 1))", "E0211"),
    ("squeeze(x, 1)", "E0210"),
    ("concat([], dim=0)", "E0405"),
    ("chunk(x, 3, dim=2)[0]", "E0213"),
    ("split(x, 0)[0]", "E0405"),
    ("arange(0, 5, 0)", "E0405"),
    ("arange(3) / 2", "E0206"),
    ("tensor([[1], [1, 2]])", "E0405"),
    ("x[0, 0, 0, 0]", "E0205"),
    ("x[::0]", "E0213"),
    ("x[1.5]", "E0213"),
    ("x[x > 0]", "E0206"),
    ('einsum("abc-ab", x)', "E0215"),
    ("x @ 3", "E0512"),
    ("[1] @ [2]", "E0512"),
    ("max(x, x)", "E0404"),
    ("softmax(x)", "E0402"),
    ("log(0) + x", "E0513"),
    ("int(inf) + x", "E0513"),
    ("2 ** 62 * 4 + x", "E0513"),
    ("9223372036854775807 + 1 + x", "E0513"),
    ("(-8) ** 0.5 + x", "E0513"),
    ("10.0 ** 400 + x", "E0513"),
    ("x + (1, 2)", "E0512"),
    ('x < "a"', "E0512"),
    ("not x", "E0516"),
    ("x and x", "E0516"),
    ("zip([1], [1, 2])[0]", "E0405"),
    ("range(1, 5, 0)[0] + x", "E0405"),
    ("pad(x, (1, 2, 3))", "E0405"),
    ("repeat(x, (1, 1))", "E0405"),
    ("linspace(0, 1, 0)", "E0405"),
    ("zeros((-1, 2))", "E0207"),
    ("interpolate(x, size=3)", "E0205"),
    ('interpolate(x, mode="cubic")', "E0405"),
    ("scaled_dot_product_attention(x, x, x[0])", "E0205"),
    ("layer_norm(x, 5)", "E0204"),
    ("tril(sum(x))", "E0205"),
    ("x.T", "E0302"),
    ("x(1)", "E0308"),
    ("Linear(3)(x)", "E0310"),
    ("uniform(2, 1)", "E0405"),
    ("str(x)", "E0404"),
]


@pytest.mark.parametrize(("text", "code"), REFUSED, ids=[t for t, _ in REFUSED])
def test_refused(text: str, code: str) -> None:
    found = codes(model(f"input x: f32[2, 3, 4]\noutput y = {text}\noutput anchor = x"))
    assert found == [code]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_documented(name: str) -> None:
    assert FUNCTIONS[name].summary.endswith((".", ":"))
    assert FUNCTIONS[name].group


def test_every_function_is_tested() -> None:
    seen = set().union(*map(_words, [*CASES, *PLAIN, *(t for t, _ in REFUSED)]))
    elsewhere = {
        n for n, f in FUNCTIONS.items() if f.group in ("Initialisers", "Losses", "Augmentation")
    }
    assert set(FUNCTIONS) - seen - elsewhere == {"enumerate", "range"} - seen
