"""Erasing and mixing against NumPy, image by image; mixed labels in losses and metrics; augmentation compiled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from graphc.frontend.functions.mix import beta_quantiles
from graphc.reference import interpret
from tests.frontend.augmented import IMAGES, KEY, Array, N, augmented, uniform
from tests.frontend.helpers import codes, load, model
from tests.frontend.test_warp import boxes
from tests.lowering.compiled import RUNNABLE, compare, compile_graph

H, W = IMAGES.shape[2:]


def test_erase() -> None:
    found = augmented("erase(0.6, value=0.25)")
    u = uniform(23)
    chosen = u[22] < np.float32(0.6)
    assert 0 < chosen.sum() < N
    for n, box in enumerate(boxes(u, (0.02, 0.33), (0.3, 3.3), (H - 1, W - 1))):
        expected = IMAGES[n].copy()
        if box is not None and chosen[n]:
            y, x, h, w = box
            expected[:, y : y + h, x : x + w] = 0.25
        np.testing.assert_array_equal(found[n], expected)


def test_erase_with_noise_and_where_nothing_fits() -> None:
    noisy = augmented('erase(1.0, (0.5, 0.5), (1.0, 1.0), "random")')
    new = noisy[noisy != IMAGES]
    assert 0.4 < new.size / IMAGES.size < 0.6
    assert abs(new.mean()) < 0.2
    assert abs(new.std() - 1) < 0.1
    np.testing.assert_array_equal(augmented("erase(1.0, (1.0, 1.0))"), IMAGES)


def test_cutout() -> None:
    found = augmented("cutout(5, 0.5)")
    u, v = uniform(2)
    ys, xs = (u * H).astype(int), (v * W).astype(int)
    for n, (y, x) in enumerate(zip(ys, xs, strict=True)):
        expected = IMAGES[n].copy()
        expected[:, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = 0.5
        np.testing.assert_array_equal(found[n], expected)


# ---- Beta -----------------------------------------------------------------------------------------


def test_beta_quantiles_where_they_are_known() -> None:
    u = np.linspace(0, 1, 1025)
    np.testing.assert_allclose(beta_quantiles(1.0), u, atol=1e-7)
    np.testing.assert_allclose(beta_quantiles(0.5), np.sin(np.pi * u / 2) ** 2, atol=1e-6)
    x = np.array(beta_quantiles(2.0))
    np.testing.assert_allclose(3 * x**2 - 2 * x**3, u, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.4, 4.0])
def test_beta_quantiles_of_numpys_numbers(alpha: float) -> None:
    numbers = np.random.default_rng(0).beta(alpha, alpha, 200_000)
    u = np.arange(1, 1024) / 1024
    at = np.searchsorted(np.sort(numbers), np.array(beta_quantiles(alpha))[1:-1]) / numbers.size
    assert np.abs(at - u).max() < 5 * 0.5 / np.sqrt(numbers.size)


# ---- Labels ---------------------------------------------------------------------------------------

LABELS = np.arange(N) % 4
SOFT = np.random.default_rng(3).dirichlet(np.ones(4), N).astype(np.float32)


def shares(u: Array, alpha: float) -> Array:
    return np.interp(u, np.linspace(0, 1, 1025), beta_quantiles(alpha))


def step(augment: str, loss: str, label: str, values: Array) -> dict[str, Array]:
    """A training step whose model adds up the pixels; the loss and two metrics."""
    text = model(
        f"input image: f32[N, 3, {H}, {W}]\nh = sum(image, dim=(2, 3))\n"
        "output logits = concat([h, h[:, :1] - 1], dim=1)"
    )
    text += f"""train M {{
    input label: {label}
    loss {loss}
    metric own = label * 1
    metric x = image
    optimizer SGD(lr=0.1)
    augment image -> {augment}
}}"""
    graph = load(text, mode="train").graph
    return interpret(graph, {"image": IMAGES, "label": values, "rng": KEY}, {})


def scores(image: Array) -> torch.Tensor:
    h = torch.from_numpy(image).sum((2, 3))
    return torch.cat([h, h[:, :1] - 1], 1)


def one_hot(labels: Array) -> Array:
    return np.eye(4)[labels]


def test_mixup() -> None:
    found = step(
        "mixup(label, 0.4)", "cross_entropy(logits, label, label_smoothing=0.1)", "i64[N]", LABELS
    )
    share = shares(uniform(1)[0], 0.4)
    wide = share[:, None, None, None]
    mixed = wide * IMAGES + (1 - wide) * np.roll(IMAGES, 1, 0)
    np.testing.assert_allclose(found["x"], mixed, atol=1e-6)
    other = np.roll(LABELS, 1)
    target = share[:, None] * one_hot(LABELS) + (1 - share[:, None]) * one_hot(other)
    expected = functional.cross_entropy(
        scores(found["x"]).double(), torch.from_numpy(target), label_smoothing=0.1
    )
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    np.testing.assert_array_equal(found["own"], np.where(share >= 0.5, LABELS, other))


def test_cutmix() -> None:
    found = step("cutmix(label, 1.0)", "cross_entropy(logits, label)", "i64[N]", LABELS)
    u = uniform(3)
    part = np.sqrt(1 - shares(u[0], 1.0)) / 2
    kept = []
    for n in range(N):
        y, x = (int(u[1 + axis][n] * size) for axis, size in enumerate((H, W)))
        h, w = int(part[n] * H), int(part[n] * W)
        rows, columns = slice(max(0, y - h), y + h), slice(max(0, x - w), x + w)
        expected = IMAGES[n].copy()
        expected[:, rows, columns] = IMAGES[n - 1][:, rows, columns]
        np.testing.assert_array_equal(found["x"][n], expected)
        hole = np.zeros((H, W))
        hole[rows, columns] = 1
        kept.append(1 - hole.mean())
    share = np.array(kept)[:, None]
    target = share * one_hot(LABELS) + (1 - share) * one_hot(np.roll(LABELS, 1))
    expected = functional.cross_entropy(scores(found["x"]).double(), torch.from_numpy(target))
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


def test_labels_that_are_numbers_are_mixed_themselves() -> None:
    found = step("mixup(label, 1.0)", "cross_entropy(logits, label)", "f32[N, 4]", SOFT)
    share = shares(uniform(1)[0], 1.0)[:, None]
    np.testing.assert_allclose(
        found["own"], share * SOFT + (1 - share) * np.roll(SOFT, 1, 0), atol=1e-6
    )


def test_inputs_may_be_anything() -> None:
    text = model("input x: f32[N, 4]\noutput logits = x") + (
        "train M {\ninput label: i64[N]\nloss cross_entropy(logits, label)\noptimizer SGD(lr=0.1)\n"
        "augment x -> mixup(label, 0.2)\n}"
    )
    load(text, mode="train")


def test_what_is_refused() -> None:
    def train(
        augment: str, loss: str = "cross_entropy(logits, label)", label: str = "i64[N]"
    ) -> list[str]:
        text = model("input image: f32[N, 3, 4, 5]\noutput logits = image -> Flatten -> Linear(4)")
        text += f"train M {{\ninput label: {label}\nloss {loss}\noptimizer SGD(lr=0.1)\naugment image -> {augment}\n}}"
        return codes(text, mode="train")

    assert train("mixup(label, 0.2)") == []
    assert train("mixup(label, 0.2)", "nll_loss(logits, label)") == ["E0404"]
    for bad in (
        train("mixup(label, 0.0)"),
        train("mixup(label)", label="i64[N, 2]", loss="mean(logits)"),
        train("cutmix(label)", label="f32[3]", loss="mean(logits)"),
        train("erase(2.0)"),
        train("erase(scale=(0.5, 0.1))"),
        train("erase(ratio=(0.0, 1.0))"),
        train('erase(value="noise")'),
        train("cutout(0)"),
    ):
        assert len([c for c in bad if c != "E0303"]) >= 1


# ---- Compiled -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", RUNNABLE)
def test_compiled(target: str) -> None:
    """The kernels that augmentation makes equal the interpreter, also where two stages are one of them."""
    calls = (
        'random_crop(image, 6, padding=2, padding_mode="reflect", key=rng)',
        'affine(image, 20, (0.1, 0.2), (0.8, 1.2), 10, "bilinear", 0.5, key=rng)',
        "rotate(random_crop(image, 6, padding=1, key=rng), 30, key=rng)",
        "random_resized_crop(image, 5, key=rng)",
        "color_jitter(image, 0.4, 0.4, 0.4, 0.2, key=rng)",
        "gaussian_blur(horizontal_flip(image, key=rng), 3, key=rng)",
        "erase(image, key=rng)",
        "cutmix(image, label, key=rng)[0]",
    )
    outputs = "\n".join(f"output y{i} = {call}" for i, call in enumerate(calls))
    head = "input image: f32[5, 3, 6, 8]\ninput label: f32[5]\ninput rng: i64[2]"
    graph = load(model(f"{head}\n{outputs}")).graph
    module = compile_graph(graph, {}, target)
    image = IMAGES[:5, :, :6, :8].copy()
    compare(module, graph, {"image": image, "label": np.ones(5, np.float32), "rng": KEY}, {}, 1e-5)


def test_a_batch_of_any_size() -> None:
    text = "input image: f32[N, 1, 5, 6]\ninput label: f32[N]\ninput rng: i64[2]\n"
    text += "output y = mixup(random_crop(image, 5, padding=1, key=rng), label, key=rng)[0]"
    graph = load(model(text)).graph
    module = compile_graph(graph, {})
    for n in (1, 2, 7):
        image, label = IMAGES[:n, :1, :5, :6].copy(), np.ones(n, np.float32)
        compare(module, graph, {"image": image, "label": label, "rng": KEY}, {}, 1e-5)
