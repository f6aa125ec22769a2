"""Colour, noise and blur against NumPy, colorsys and PyTorch, image by image."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.frontend.augmented import GREY, IMAGES, Array, N, augmented, between, uniform
from tests.frontend.helpers import codes, compute, model

LUMA = np.array([0.2989, 0.587, 0.114])


def grey(image: Array) -> Array:
    """The luminance of an image [3, H, W]."""
    return np.einsum("c,chw->hw", LUMA, image.astype(np.float64))


def test_brightness_and_contrast_and_saturation() -> None:
    for number, (name, low, high) in enumerate(
        (("brightness", 0.6, 1.4), ("contrast", 0.0, 2.5), ("saturation", 0.7, 1.2))
    ):
        argument = "0.4" if number == 0 else f"({low}, {high})"
        found = augmented(f"color_jitter({name}={argument})")
        for n, factor in enumerate(between(uniform(4)[number], low, high)):
            x = IMAGES[n].astype(np.float64)
            other = [0.0, grey(x).mean(), grey(x)][number]
            expected = np.clip(factor * x + (1 - factor) * other, 0, 1)
            np.testing.assert_allclose(found[n], expected, atol=1e-5)


def test_hue() -> None:
    found = augmented("color_jitter(hue=0.3)")
    for n, turn in enumerate(between(uniform(4)[3], -0.3, 0.3)):
        for y, x in ((0, 0), (5, 7), (10, 13), (3, 2)):
            h, s, v = colorsys.rgb_to_hsv(*IMAGES[n, :, y, x].tolist())
            np.testing.assert_allclose(
                found[n, :, y, x], colorsys.hsv_to_rgb((h + turn) % 1, s, v), atol=1e-5
            )


def test_hue_of_grey_and_of_ends() -> None:
    """What has no hue keeps its value; pure colours go around the circle."""
    colours = np.array(
        [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]
    )
    image = colours.T.reshape(1, 3, 1, 7).astype(np.float32)
    found = augmented("color_jitter(hue=(0.3333333, 0.3333333))", image)[0, :, 0].T
    expected = [*colours[:3], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_all_in_order() -> None:
    """Together they are one after another, each with its own numbers."""
    both = augmented("color_jitter(0.4, 0.3)")
    bright = np.clip(between(uniform(4)[0], 0.6, 1.4)[:, None, None, None] * IMAGES, 0, 1)
    means = np.stack([np.full((1, 1, 1), grey(x).mean()) for x in bright])
    factor = between(uniform(4)[1], 0.7, 1.3)[:, None, None, None]
    expected = np.clip(factor * bright + (1 - factor) * means, 0, 1)
    np.testing.assert_allclose(both, expected, atol=1e-5)
    np.testing.assert_array_equal(augmented("color_jitter(0)"), IMAGES)
    np.testing.assert_array_equal(augmented("color_jitter(saturation=0.9, hue=0.4)", GREY), GREY)


def test_grayscale() -> None:
    luma = np.stack([grey(x) for x in IMAGES])[:, None]
    found = compute("output a = grayscale(image)\noutput b = grayscale(image, 3)", image=IMAGES)
    np.testing.assert_allclose(found["a"], luma, atol=1e-6)
    np.testing.assert_allclose(found["b"], np.repeat(luma, 3, 1), atol=1e-6)
    chosen = (uniform(1)[0] < np.float32(0.5))[:, None, None, None]
    assert 0 < chosen.sum() < N
    np.testing.assert_allclose(
        augmented("random_grayscale(0.5)"), np.where(chosen, luma, IMAGES), atol=1e-6
    )


def test_noise() -> None:
    flat = np.full((4, 3, 40, 40), 0.5, np.float32)
    found = augmented("gaussian_noise(0.1, 0.05)", flat)
    assert abs(found.mean() - 0.6) < 5 * 0.05 / np.sqrt(flat.size)
    assert abs(found.std() - 0.05) < 0.002
    wild = augmented("gaussian_noise(0.0, 3.0)", flat)
    assert (wild.min(), wild.max()) == (0, 1)
    assert augmented("gaussian_noise(0.0, 3.0, false)", flat).max() > 3


@pytest.mark.parametrize("size", [(3, 3), (5, 1), (1, 7)])
def test_blur(size: tuple[int, int]) -> None:
    found = augmented(f"gaussian_blur({size}, (0.4, 1.7))")
    for n, sigma in enumerate(between(uniform(1)[0], 0.4, 1.7)):
        kernels = []
        for k in size:
            x = np.arange(k) - k // 2
            pdf = np.exp(-0.5 * (x / sigma) ** 2)
            kernels.append(pdf / pdf.sum())
        kernel = torch.from_numpy(np.outer(*kernels))[None, None]
        padding = (size[1] // 2, size[1] // 2, size[0] // 2, size[0] // 2)
        image = functional.pad(torch.from_numpy(IMAGES[n]).double()[:, None], padding, "reflect")
        expected = functional.conv2d(image, kernel)[:, 0]
        np.testing.assert_allclose(found[n], expected, atol=1e-5)


def test_normalize() -> None:
    calls = "output a = normalize(image, 0.5, 0.25)\noutput b = normalize(image, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))"
    found = compute(calls, image=IMAGES)
    np.testing.assert_allclose(found["a"], (IMAGES - 0.5) / 0.25, atol=1e-6)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in ((0.1, 0.2, 0.3), (1, 2, 3)))
    np.testing.assert_allclose(found["b"], (IMAGES - mean) / std, atol=1e-6)


def test_what_is_refused() -> None:
    for call in (
        "color_jitter(image, -1, key=rng)",
        "color_jitter(image, hue=0.6, key=rng)",
        "color_jitter(image, contrast=(2.0, 1.0), key=rng)",
        "grayscale(image, 2)",
        "random_grayscale(image, 2.0, key=rng)",
        "gaussian_noise(image, sigma=-1, key=rng)",
        "gaussian_blur(image, 4, key=rng)",
        "gaussian_blur(image, 3, (0.0, 1.0), key=rng)",
        "normalize(image, (0.5, 0.5), 1)",
        "normalize(image, 0.5, 0)",
        "color_jitter(concat([image, image], dim=1), 0.1, key=rng)",
    ):
        text = model(f"input image: f32[N, 3, 9, 9]\ninput rng: i64[2]\noutput y = {call}")
        assert len([c for c in codes(text) if c != "E0303"]) == 1, call
