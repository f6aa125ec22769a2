"""Random functions and dropout: numbers from the generator's bits, statistics, gradients, compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from graphc.autodiff import gradients
from graphc.frontend import draws
from graphc.frontend.keys import RandomKey
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ops import Input, RandomBits, arith
from graphc.passes import pipeline
from graphc.reference import interpret
from tests.frontend.helpers import codes, compute, load, model
from tests.lowering.compiled import RUNNABLE, compare, compile_graph

Array = np.ndarray[Any, np.dtype[Any]]
KEY = np.array([2026, 11], np.int64)
N = 20_000


def words(stream: int, *shape: int) -> Array:
    """The generator's words, unsigned."""
    return RandomBits(stream, shape).evaluate(KEY)[0].view(np.uint32)


def drawn(body: str) -> Array:
    """`y` of a model that has `rng`."""
    return compute(f"{body}\noutput y", rng=KEY)["y"]


def test_uniform_numbers_are_the_words_low_bits() -> None:
    found = drawn("y = random_uniform((4, 25), key=rng)")
    assert found.dtype == np.float32
    assert np.array_equal(found, (words(0, 4, 25) & 0xFFFFFF) / np.float32(2**24))
    wide = drawn('y = random_uniform(9, dtype="f64", key=rng)')
    high, low = (w.astype(np.uint64) for w in words(0, 2, 9))
    expected = ((high & (2**26 - 1)) * 2**27 + (low & (2**27 - 1))) / 2.0**53
    assert np.array_equal(wide, expected)
    assert drawn('y = random_uniform(999, dtype="f16", key=rng)').max() < 1
    assert drawn('y = random_uniform(999, dtype="bf16", key=rng)').max() < 1


def test_normal_numbers_are_box_and_mullers() -> None:
    u, v = (words(0, 2, 3, 8) & 0xFFFFFF) / 2.0**24
    expected = np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * math.pi * v)
    found = drawn("y = random_normal((3, 8), 1.0, 2.0, key=rng)")
    np.testing.assert_allclose(found, 1 + 2 * expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16"])
def test_moments(dtype: str) -> None:
    """Within 5 standard deviations of the mean over so many numbers."""
    u = drawn(f'y = random_uniform({N}, dtype="{dtype}", key=rng)').astype(np.float64)
    z = drawn(f'y = random_normal({N}, dtype="{dtype}", key=rng)').astype(np.float64)
    grain = {"bf16": 2**-9}.get(dtype, 0)
    for moment, expected, spread in (
        (u, 0.5 - grain, math.sqrt(1 / 12)),
        (z, 0, 1),
        (z**2, 1, math.sqrt(2)),
        (z**3, 0, math.sqrt(15)),
        (z**4, 3, math.sqrt(96)),
    ):
        assert abs(moment.mean() - expected) < 5 * spread / math.sqrt(N)


def test_integers_and_masks() -> None:
    x = drawn(f"y = random_integers({N}, -3, 4, key=rng)")
    counts = np.bincount(x + 3, minlength=7)
    assert len(counts) == 7
    assert np.abs(counts - N / 7).max() < 5 * math.sqrt(N / 7)
    mask = drawn(f"y = bernoulli({N}, 0.3, key=rng)")
    assert np.array_equal(mask, words(0, N).view(np.int32) < round(0.3 * 2**32) - 2**31)
    assert abs(mask.mean() - 0.3) < 5 * math.sqrt(0.21 / N)
    assert not drawn("y = bernoulli(100, 0.0, key=rng)").any()


def test_permutations() -> None:
    found = drawn("y = random_permutation(50, key=rng)")
    assert np.array_equal(found, words(0, 50).view(np.int32).argsort(kind="stable").argsort())


def test_every_use_has_its_own_numbers() -> None:
    found = drawn("y = stack([random_uniform(4, key=rng), random_uniform(4, key=rng)])")
    assert (found[0] != found[1]).all()


def test_what_is_refused() -> None:
    for text in (
        "random_uniform(3)",
        "random_uniform(3, key=x)",
        'random_normal(3, dtype="i64", key=rng)',
        "random_integers(3, 2, 2, key=rng)",
        "bernoulli(3, 1.5, key=rng)",
        "random_uniform([-1], key=rng)",
        "x -> Dropout(-0.1)",
    ):
        found = codes(model(f"input x: f32[3]\ninput rng: i64[2]\noutput y = {text}"))
        assert len([c for c in found if c != "E0303"]) == 1, text


def test_an_evaluation_draws_the_same_numbers_every_time() -> None:
    text = model("input x: f32[4]\noutput y = x -> Dropout(0.5)") + (
        "train M {\nloss mean(y + random_normal(4))\noptimizer SGD(lr=0.1)\n}"
    )
    graph = load(text, mode="evaluate").graph
    x = np.ones(4, np.float32)
    found = interpret(graph, {"x": x}, {})
    np.testing.assert_array_equal(found["y"], x)
    assert found["loss"] != 1


# ---- Dropout --------------------------------------------------------------------------------------


def trained(chain: str, x: Array) -> tuple[Array, Array]:
    """A layer's result in training mode, and the gradient of its weighted sum, by the interpreter."""
    shape = ", ".join(map(str, x.shape))
    text = model(f"input x: f32[{shape}]\noutput y = x -> {chain}") + (
        f"train M {{\ninput w: f32[{shape}]\nloss sum(y * w)\nmetric z = y\nmetric g = grad(sum(y * w), x)\n"
        "optimizer SGD(lr=0.1)\n}"
    )
    graph = load(text, mode="train").graph
    found = interpret(graph, {"x": x, "w": x + 2, "rng": KEY}, {})
    assert np.array_equal(found["rng"], KEY + np.array([0, 1]))
    return found["z"], found["g"]


def keep(p: float, *shape: int) -> Array:
    return words(0, *shape).view(np.int32) < round((1 - p) * 2**32) - 2**31


X = np.random.default_rng(0).normal(size=(6, 5, 4, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("chain", "x", "mask"),
    [
        ("Dropout(0.3)", X, X.shape),
        ("Dropout1d(0.3)", X[..., 0], (6, 5, 1)),
        ("Dropout2d(0.3)", X, (6, 5, 1, 1)),
        ("Dropout3d(0.3)", X[..., None], (6, 5, 1, 1, 1)),
    ],
)
def test_dropout_scales_what_it_keeps(chain: str, x: Array, mask: tuple[int, ...]) -> None:
    y, g = trained(chain, x)
    factor = np.where(keep(0.3, *mask), 1 / 0.7, 0)
    np.testing.assert_allclose(y, x * factor, rtol=1e-6)
    np.testing.assert_allclose(g, (x + 2) * factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("chain", "mask"), [("AlphaDropout(0.2)", X.shape), ("FeatureAlphaDropout(0.2)", (6, 5, 1, 1))]
)
def test_alpha_dropout_keeps_mean_and_variance(chain: str, mask: tuple[int, ...]) -> None:
    """PyTorch's arithmetic on the same mask, and the statistics it is made for."""
    y, g = trained(chain, X)
    alpha = 1.7580993408473766
    a = 1 / math.sqrt((alpha**2 * 0.2 + 1) * 0.8)
    noise = np.broadcast_to(keep(0.2, *mask), X.shape).astype(np.float64)
    np.testing.assert_allclose(
        y, X * (noise * a) + (noise - 1) * alpha * a + alpha * a * 0.2, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(g, (X + 2) * noise * a, rtol=1e-5)
    big = np.random.default_rng(1).normal(size=(N,)).astype(np.float32)
    wide, _ = trained("AlphaDropout(0.2)", big)
    assert abs(wide.mean() - big.mean()) < 0.05
    assert abs(wide.std() - 1) < 0.05


def test_dropout_of_none_and_of_all() -> None:
    for p, factor in ((0.0, 1), (1.0, 0)):
        for layer in ("Dropout", "AlphaDropout"):
            b = GraphBuilder("g")
            x, key = b(Input("x", DType.F32, (3,))), b(Input("key", DType.I64, (2,)))
            drop = draws.dropout if layer == "Dropout" else draws.alpha_dropout
            graph = b.build([("y", drop(b, x, p, RandomKey(key, 0)))])
            one = np.ones(3, np.float32)
            assert np.array_equal(interpret(graph, {"x": one, "key": KEY}, {})["y"], one * factor)


def test_attention_drops_weights() -> None:
    """Against PyTorch's arithmetic on the same mask."""
    x = np.random.default_rng(2).normal(size=(2, 5, 8)).astype(np.float32)
    text = model(
        "input x: f32[2, 5, 8]\noutput y = x -> a: MultiheadAttention(2, 0.4, batch_first=true)"
    )
    text += "train M {\nloss sum(y)\nmetric z = y\noptimizer SGD(lr=0.1)\n}"
    twin = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    state = {f"a.{k}": v.numpy() for k, v in twin.state_dict().items()}
    found = interpret(load(text, mode="train").graph, {"x": x, "rng": KEY}, state)["z"]
    with torch.no_grad():
        projected = torch.from_numpy(x) @ twin.in_proj_weight.T + twin.in_proj_bias
        q, k, v = (t.reshape(2, 5, 2, 4).transpose(1, 2) for t in projected.chunk(3, -1))
        weights = (q @ k.transpose(2, 3) / 2).softmax(-1)
        weights = weights * torch.from_numpy(keep(0.4, 2, 2, 5, 5) / 0.6).float()
        expected = twin.out_proj((weights @ v).transpose(1, 2).reshape(2, 5, 8))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", RUNNABLE)
def test_compiled(target: str) -> None:
    """Forward and backward use one mask, whatever the kernels and threads; all draws as the interpreter has them."""
    b = GraphBuilder("g")
    x, state = b(Input("x", DType.F32, (7, 33))), b(Input("rng", DType.I64, (2,)))
    y = draws.dropout(b, arith.multiply(b, x, x), 0.3, RandomKey(state, 0))
    (g,) = gradients(b, arith.sum(b, arith.multiply(b, y, y)), [x])
    z = draws.normal(b, RandomKey(state, 1), (5, 27))
    order = draws.permutation(b, RandomKey(state, 2), 33)
    whole = draws.integers(b, RandomKey(state, 3), (33,), 0, 10)
    graph = b.build([("y", y), ("g", g), ("z", z), ("order", order), ("whole", whole)])
    inputs = {"x": np.random.default_rng(0).normal(size=(7, 33)).astype(np.float32), "rng": KEY}
    module = compile_graph(graph, {}, target)
    compare(module, graph, inputs, {}, 1e-5)
    found = module(**inputs)
    assert np.array_equal(found["g"] != 0, found["y"] != 0)


def test_the_backward_pass_makes_its_mask_again() -> None:
    """No kernel stores a mask or numbers for another; what is read across elements is stored once."""
    b = GraphBuilder("g")
    x, state = b(Input("x", DType.F32, (64, 512))), b(Input("rng", DType.I64, (2,)))
    y = draws.dropout(b, arith.multiply(b, x, x), 0.5, RandomKey(state, 0))
    y = draws.dropout(b, y, 0.5, RandomKey(state, 1), (64, 1))
    (g,) = gradients(b, arith.sum(b, arith.multiply(b, y, y)), [x])
    fused, _ = pipeline.run(b.build([("y", y), ("g", g)]))
    kernels = [n for n in fused.nodes if n.op.name == "fusion"]
    small = [t for n in kernels for t in n.types if t.dtype is not DType.F32]
    assert [t.shape for t in small] == [(64, 1)]
