"""Running an augmentation of the language, and the numbers that it draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ops import RandomBits
from tests.frontend.helpers import compute

Array = np.ndarray[Any, np.dtype[Any]]
KEY = np.array([77, 3], np.int64)
N = 12
IMAGES = np.random.default_rng(0).random((N, 3, 11, 14)).astype(np.float32)
GREY = IMAGES[:, :1]


def augmented(call: str, image: Array = IMAGES, **inputs: Array) -> Array:
    """`call` of the language, applied to `image`; its key is the first one."""
    text = call.replace("(", "(image, ", 1)
    comma = "" if call.endswith("()") else ", "
    text = f"{text[:-1].removesuffix(', ')}{comma or ', '}key=rng)"
    return compute(f"output y = {text}", image=image, rng=KEY, **inputs)["y"]


def uniform(count: int) -> list[Array]:
    """The numbers of [0, 1) that an augmentation draws, so many for each image: columns, f32."""
    bits = RandomBits(0, (N, count)).evaluate(KEY)[0].view(np.uint32)
    return list(((bits & 0xFFFFFF) / np.float32(2**24)).T)


def between(u: Array, low: float, high: float) -> Array:
    """Uniform numbers moved to [low, high), f64."""
    return low + (high - low) * u.astype(np.float64)


def mostly_equal(found: Array, expected: Array, part: float = 0.003) -> None:
    """Equal but for a few elements, which lie between two pixels."""
    assert found.shape == expected.shape
    assert (np.abs(found - expected) > 1e-4).mean() <= part
