"""Data of the training examples: scikit-learn's bundled sets, the README of this repository, and made signals.

Every function returns what is trained on and what is held out, as arrays by the names of the `.nn` file's inputs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

sys.path.insert(0, str(Path(__file__).parents[1]))
from digits import enlarge

Arrays = dict[str, np.ndarray]


def halves(**columns: np.ndarray) -> tuple[Arrays, Arrays]:
    """Every fifth row is held out."""
    held_out = np.arange(len(next(iter(columns.values())))) % 5 == 0
    return {k: v[~held_out] for k, v in columns.items()}, {
        k: v[held_out] for k, v in columns.items()
    }


def scans() -> tuple[np.ndarray, np.ndarray]:
    """1,797 handwritten digits as f32 [n, 8, 8] in 0..1, and what they are."""
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8) / 16).astype(np.float32), labels.astype(np.int64)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """The digits at 16x16, f32 [n, 1, 16, 16]."""
    images, labels = scans()
    large = np.zeros((len(images), 1, 16, 16), np.float32)
    large[:, 0, 1:15, 1:15] = enlarge(images, 14)
    return large, labels


def digits_mlp() -> tuple[Arrays, Arrays]:
    """Digits and labels."""
    images, labels = scans()
    return halves(image=images, label=labels)


def digits_resnet() -> tuple[Arrays, Arrays]:
    """Digits at 16x16 and labels."""
    images, labels = pictures()
    return halves(image=images, label=labels)


def even_odd() -> tuple[Arrays, Arrays]:
    """Digits at 16x16, and 1 for odd ones."""
    images, labels = pictures()
    return halves(image=images, odd=(labels % 2).astype(np.float32))


def denoise() -> tuple[Arrays, Arrays]:
    """Digits at 16x16 as they are, twice; the held-out ones come in noise, as training makes them."""
    images, _ = pictures()
    train, held = halves(image=images, target=images)
    noise = np.random.default_rng(0).standard_normal(held["image"].shape).astype(np.float32)
    return train, {**held, "image": held["image"] + 0.3 * noise}


def standardised(x: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and deviation 1."""
    scaled: np.ndarray = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    return scaled


def breast_cancer() -> tuple[Arrays, Arrays]:
    """Measurements of 569 tumours, and 1 for benign ones."""
    x, y = load_breast_cancer(return_X_y=True)
    return halves(measurements=standardised(x), benign=y.astype(np.float32))


def diabetes() -> tuple[Arrays, Arrays]:
    """Measurements of 442 patients, and how far the disease went (standardised)."""
    x, y = load_diabetes(return_X_y=True)
    return halves(measurements=standardised(x), target=standardised(y))


def signal_lstm() -> tuple[Arrays, Arrays]:
    """Windows of 32 values of two waves with noise, and the value after each."""
    t = np.arange(2600)
    noise = np.random.default_rng(0).standard_normal(len(t)) * 0.05
    signal = (np.sin(t * 0.31) + 0.6 * np.sin(t * 0.127 + 1.0) + noise).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(signal, 33)
    train, held = windows[:2048], windows[2100:]
    return tuple(
        {"signal": np.ascontiguousarray(w[:, :32]), "target": w[:, 32].copy()}
        for w in (train, held)
    )  # type: ignore[return-value]


def char_transformer() -> tuple[Arrays, Arrays]:
    """Pieces of 64 characters of the README (ASCII), and the characters that follow each."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    codes = np.array(list(text.encode("ascii", "ignore")), np.int64)
    starts = np.arange(0, len(codes) - 65, 8)
    pieces = np.stack([codes[s : s + 65] for s in starts])
    held_out = (np.arange(len(starts)) // 24) % 10 == 9  # whole passages
    parts = []
    for rows in (pieces[~held_out], pieces[held_out]):
        parts.append({"text": rows[:, :64].copy(), "next": rows[:, 1:].copy()})
    return parts[0], parts[1]


class Noisy:
    """Batches for the diffusion model: digits mixed with new noise in every epoch, to levels drawn at random."""

    def __init__(self, batch: int = 64) -> None:
        images, _ = scans()
        self.digits = 2 * images.reshape(-1, 64) - 1
        self.batch, self.epoch = batch, 0

    def __iter__(self) -> Iterator[Arrays]:
        rng = np.random.default_rng(self.epoch)
        self.epoch += 1
        order = rng.permutation(len(self.digits))
        for start in range(0, len(order) - self.batch + 1, self.batch):
            clean = self.digits[order[start : start + self.batch]]
            level = rng.random(self.batch, np.float32)
            noise = rng.standard_normal(clean.shape).astype(np.float32)
            yield {"noisy": mixed(clean, noise, level[:, None]), "level": level, "truth": noise}


def mixed(clean: np.ndarray, noise: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    """Digits with noise: all of it at level 1, none at 0; the cosine schedule of Nichol & Dhariwal (2021)."""
    angle = np.asarray(level, np.float32) * (np.pi / 2)
    both: np.ndarray = (np.cos(angle) * clean + np.sin(angle) * noise).astype(np.float32)
    return both


class Noise:
    """Batches for the adversarial network: digits and new noise in every epoch."""

    def __init__(self, batch: int = 64) -> None:
        images, _ = scans()
        self.digits = images.reshape(-1, 64)
        self.batch, self.epoch = batch, 0

    def __iter__(self) -> Iterator[Arrays]:
        rng = np.random.default_rng(self.epoch)
        self.epoch += 1
        order = rng.permutation(len(self.digits))
        for start in range(0, len(order) - self.batch + 1, self.batch):
            real = self.digits[order[start : start + self.batch]]
            yield {"noise": rng.standard_normal((self.batch, 16)).astype(np.float32), "real": real}
