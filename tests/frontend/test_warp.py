"""Crops, flips and warps against NumPy, PyTorch's grid_sample and torchvision's definitions, image by image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.frontend.augmented import (
    GREY,
    IMAGES,
    Array,
    N,
    augmented,
    between,
    mostly_equal,
    uniform,
)
from tests.frontend.helpers import codes, compute, model

H, W = IMAGES.shape[2:]


@pytest.mark.parametrize(
    ("arguments", "size", "pads", "mode"),
    [
        ("(7, 9)", (7, 9), (0, 0, 0, 0), "constant"),
        ("11, padding=2", (11, 11), (2, 2, 2, 2), "constant"),
        ("(11, 14), padding=(1, 3)", (11, 14), (1, 3, 1, 3), "constant"),
        ("(11, 14), padding=(1, 2, 3, 4)", (11, 14), (1, 2, 3, 4), "constant"),
        ('(11, 14), 3, padding_mode="edge"', (11, 14), (3, 3, 3, 3), "edge"),
        ('(11, 14), 3, padding_mode="reflect"', (11, 14), (3, 3, 3, 3), "reflect"),
        ("16, pad_if_needed=true", (16, 16), (2, 5, 2, 5), "constant"),
    ],
)
def test_random_crop(
    arguments: str, size: tuple[int, int], pads: tuple[int, int, int, int], mode: str
) -> None:
    left, top, right, bottom = pads
    fill = {"constant_values": 0.25} if mode == "constant" else {}
    extra = ", fill=0.25" if mode == "constant" else ""
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (top, bottom), (left, right)), mode, **fill)
    u, v = uniform(2)
    ys = (u * (padded.shape[2] - size[0] + 1)).astype(int)
    xs = (v * (padded.shape[3] - size[1] + 1)).astype(int)
    expected = [
        image[:, y : y + size[0], x : x + size[1]]
        for image, y, x in zip(padded, ys, xs, strict=True)
    ]
    np.testing.assert_array_equal(augmented(f"random_crop({arguments}{extra})"), np.stack(expected))


def test_fill_may_differ_by_channel() -> None:
    image = np.full((N, 3, 4, 4), 9.0, np.float32)
    found = augmented("random_crop(4, padding=3, fill=(1.0, 2.0, 3.0))", image)
    for channel in range(3):
        assert set(np.unique(found[:, channel])) == {9.0, channel + 1.0}


def test_center_crop_and_resize() -> None:
    call = "output a = center_crop(image, (5, 7))\noutput b = center_crop(image, 16)\n"
    call += 'output c = resize(image, 22)\noutput d = resize(image, (6, 20), "nearest")'
    found = compute(call, image=IMAGES)
    np.testing.assert_array_equal(
        found["a"], IMAGES[:, :, 3:8, 4:11]
    )  # round(3.5) is 4, as in torchvision
    np.testing.assert_array_equal(found["b"], np.pad(IMAGES, ((0, 0), (0, 0), (2, 3), (1, 1))))
    image = torch.from_numpy(IMAGES)
    smooth = functional.interpolate(image, (22, 28), mode="bilinear")
    np.testing.assert_allclose(found["c"], smooth, atol=1e-5)
    np.testing.assert_allclose(found["d"], functional.interpolate(image, (6, 20)), atol=1e-6)


def test_flips() -> None:
    for name, axis in (("horizontal_flip", 3), ("vertical_flip", 2)):
        turn = (uniform(1)[0] < np.float32(0.4))[:, None, None, None]
        assert 0 < turn.sum() < N
        expected = np.where(turn, np.flip(IMAGES, axis), IMAGES)
        np.testing.assert_array_equal(augmented(f"{name}(0.4)"), expected)
        np.testing.assert_array_equal(augmented(f"{name}(1.0)"), np.flip(IMAGES, axis))


def warped(matrices: Array, mode: str, fill: float, image: Array = IMAGES) -> Array:
    """PyTorch's grid_sample under matrices [N, 2, 3] from places to places, counted from the centre; fill outside."""
    h, w = image.shape[2:]
    v, u = np.mgrid[:h, :w].astype(np.float64)
    places = np.stack([u - (w - 1) / 2, v - (h - 1) / 2, np.ones_like(u)], -1)
    grid = np.einsum("nij,hwj->nhwi", matrices, places)
    grid = (2 * (grid + (np.array([w, h]) - 1) / 2) + 1) / np.array([w, h]) - 1
    grid = torch.from_numpy(grid)
    x = torch.from_numpy(image).double()
    value = functional.grid_sample(x, grid, mode=mode, align_corners=False)
    inside = functional.grid_sample(torch.ones_like(x), grid, mode=mode, align_corners=False)
    return (value + (1 - inside) * fill).numpy()


def turned(degrees: Array) -> Array:
    """Rotation matrices [N, 2, 2], clockwise as the image is seen."""
    a = np.radians(degrees)
    return np.stack(
        [np.stack([np.cos(a), -np.sin(a)], -1), np.stack([np.sin(a), np.cos(a)], -1)], 1
    )


def back(forward: Array, shift: Array) -> Array:
    """The map from results to images: the inverse of turning and then moving."""
    inverse = np.linalg.inv(forward)
    return np.concatenate([inverse, -inverse @ shift[..., None]], -1)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("image", [IMAGES, GREY], ids=["rgb", "grey"])
def test_rotate(mode: str, image: Array) -> None:
    """Counter-clockwise, unlike `affine`."""
    matrices = back(turned(-between(uniform(1)[0], -20, 40)), np.zeros((N, 2)))
    found = augmented(f'rotate((-20, 40), "{mode}", fill=0.5)', image)
    mostly_equal(found, warped(matrices, mode, 0.5, image))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_affine(mode: str) -> None:
    """torchvision's `T R(angle) S(scale) SHy SHx`, inverted by NumPy."""
    u = uniform(6)
    shift = np.stack(
        [np.round(between(u[1], -0.2 * W, 0.2 * W)), np.round(between(u[2], -0.1 * H, 0.1 * H))], -1
    )
    x, y = np.tan(np.radians(between(u[4], -5, 25))), np.tan(np.radians(between(u[5], -10, 10)))
    one, zero = np.ones(N), np.zeros(N)
    shear_x = np.stack([np.stack([one, -x], -1), np.stack([zero, one], -1)], 1)
    shear_y = np.stack([np.stack([one, zero], -1), np.stack([-y, one], -1)], 1)
    forward = (
        between(u[3], 0.7, 1.4)[:, None, None] * turned(between(u[0], -30, 30)) @ shear_y @ shear_x
    )
    call = f'affine(30, (0.2, 0.1), (0.7, 1.4), (-5, 25, -10, 10), "{mode}")'
    mostly_equal(augmented(call), warped(back(forward, shift), mode, 0.0), 0.01)


def test_translate_moves_whole_pixels() -> None:
    found = augmented("translate((0.5, 0.3))")
    u = uniform(6)
    dx, dy = (np.round(between(v, -r, r)).astype(int) for v, r in ((u[1], 7), (u[2], 3.3)))
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (H, H), (W, W)))
    expected = [
        image[:, H - y : 2 * H - y, W - x : 2 * W - x]
        for image, x, y in zip(padded, dx, dy, strict=True)
    ]
    np.testing.assert_array_equal(found, np.stack(expected))


def boxes(
    u: list[Array], scale: tuple[float, float], ratio: tuple[float, float], most: tuple[int, int]
) -> list[tuple[int, int, int, int] | None]:
    """Top, left, height and width of each image's first attempt that fits; ratio is height over width."""
    area = scale[0] + (scale[1] - scale[0]) * np.stack(u[:10], 1).astype(np.float64)
    logs = np.log(ratio)
    aspect = np.exp(logs[0] + (logs[1] - logs[0]) * np.stack(u[10:20], 1).astype(np.float64))
    result: list[tuple[int, int, int, int] | None] = []
    for n in range(N):
        result.append(None)
        for a, r in zip(area[n] * H * W, aspect[n], strict=True):
            h, w = round(math.sqrt(a * r)), round(math.sqrt(a / r))
            if 0 < h <= most[0] and 0 < w <= most[1]:
                top = int(u[20][n] * (H - h + 1))
                result[-1] = top, int(u[21][n] * (W - w + 1)), h, w
                break
    return result


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (1.3, 1.5)], ids=["usual", "too_large"])
def test_random_resized_crop(mode: str, scale: tuple[float, float]) -> None:
    """Cut out, then PyTorch's interpolate; the middle where nothing fits."""
    found = augmented(f'random_resized_crop((8, 9), {scale}, interpolation="{mode}")')
    expected = []
    for image, box in zip(IMAGES, boxes(uniform(22), scale, (3 / 4, 4 / 3), (H, W)), strict=True):
        assert (box is None) == (scale[0] > 1)
        y, x, h, w = box or (0, 0, H, W)
        part = torch.from_numpy(image[None, :, y : y + h, x : x + w])
        expected.append(functional.interpolate(part, (8, 9), mode=mode)[0].numpy())
    mostly_equal(found, np.stack(expected), 0.01 if mode == "nearest" else 0.0)


def test_the_middle_keeps_the_ratio() -> None:
    wide = np.random.default_rng(1).random((2, 1, 4, 16)).astype(np.float32)
    found = augmented('random_resized_crop((4, 5), (3.0, 3.0), interpolation="nearest")', wide)
    np.testing.assert_array_equal(found, wide[:, :, :, 5:10])


@pytest.mark.parametrize("part", [0, 1])
def test_images_do_not_depend_on_the_batch(part: int) -> None:
    """The first images of a batch are augmented as they would be without the rest."""
    call = ["affine(30, (0.2, 0.1))", "random_resized_crop(8)"][part]
    np.testing.assert_array_equal(augmented(call)[:5], augmented(call, IMAGES[:5]))


def test_what_is_refused() -> None:
    for call in (
        "random_crop(image, 12, key=rng)",
        "random_crop(image, 0, key=rng)",
        "random_crop(image, 8, padding=-1, key=rng)",
        'random_crop(image, 8, padding=9, padding_mode="reflect", key=rng)',
        "random_crop(image, 12, padding=1, fill=(1.0, 2.0), key=rng)",
        "center_crop(image, 0)",
        "resize(image, (0, 3))",
        "horizontal_flip(image, 1.5, key=rng)",
        "rotate(image, -5, key=rng)",
        "rotate(image, (5, -5), key=rng)",
        "affine(image, 0, translate=(2.0, 0.0), key=rng)",
        "affine(image, 0, scale=(0.0, 1.0), key=rng)",
        "affine(image, 0, shear=90, key=rng)",
        "random_resized_crop(image, 4, (0.5, 0.1), key=rng)",
        "random_resized_crop(image, 4, ratio=(0.0, 1.0), key=rng)",
        "rotate(image[0], 5, key=rng)",
        "rotate(astype(image, i64), 5, key=rng)",
    ):
        text = model(f"input image: f32[N, 3, 9, 9]\ninput rng: i64[2]\noutput y = {call}")
        assert len([c for c in codes(text) if c != "E0303"]) == 1, call
    assert "E0216" in codes(
        model(
            "input image: f32[N, 3, H, 9]\ninput rng: i64[2]\noutput y = rotate(image, 5, key=rng)"
        )
    )
