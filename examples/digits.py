"""Real handwritten digits: scikit-learn's bundled 1,797 scans (UCI Optical Recognition of Handwritten Digits)."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits


def digits(size: int = 28) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, training labels, held-out images, held-out labels.

    Images are f32 [n, 1, size, size] in 0..1, enlarged from 8x8 by bilinear interpolation and centred like MNIST
    (a margin of one seventh). Every fifth digit is held out, so both parts hold all writers and classes.
    """
    scans, labels = load_digits(return_X_y=True)
    inner = size - 2 * (size // 7)
    images = np.zeros((len(scans), 1, size, size), np.float32)
    margin = (size - inner) // 2
    pictures = scans.reshape(-1, 8, 8).astype(np.float32) / 16
    images[:, 0, margin : margin + inner, margin : margin + inner] = enlarge(pictures, inner)
    held_out = np.arange(len(scans)) % 5 == 0
    labels = labels.astype(np.int64)
    return images[~held_out], labels[~held_out], images[held_out], labels[held_out]


def enlarge(pictures: np.ndarray, size: int) -> np.ndarray:
    """Bilinear interpolation of [n, h, w] to [n, size, size], with half-pixel centres."""
    for axis in (1, 2):
        old = pictures.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        low = np.minimum(at.astype(np.int64), old - 2)
        share = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        below, above = np.take(pictures, low, axis), np.take(pictures, low + 1, axis)
        pictures = below * (1 - share) + above * share
    return pictures
