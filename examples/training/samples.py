"""Drawing digits from trained models, and laying them out as a picture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from data import mixed
from PIL import Image

from graphc.train import Trainer

COUNT = 64


def gan_samples(trainer: Trainer) -> np.ndarray:
    """64 digits that the generator makes of noise, [64, 64] in 0..1."""
    noise = np.random.default_rng(1).standard_normal((COUNT, 16)).astype(np.float32)
    real = np.zeros((COUNT, 64), np.float32)
    fake: np.ndarray = trainer.evaluate({"noise": noise, "real": real})["fake"]
    return fake


def diffusion_samples(trainer: Trainer, steps: int = 60) -> np.ndarray:
    """64 digits from pure noise, [64, 64] in 0..1: the deterministic way back (DDIM; Song, Meng & Ermon 2021)."""
    x = np.random.default_rng(1).standard_normal((COUNT, 64)).astype(np.float32)
    levels = np.linspace(0.98, 0.0, steps + 1, dtype=np.float32)
    for level, lower in pairwise(levels):
        given = {"noisy": x, "level": np.full(COUNT, level, np.float32), "truth": np.zeros_like(x)}
        noise = trainer.evaluate(given)["noise"]
        angle = level * (np.pi / 2)
        clean = ((x - np.sin(angle) * noise) / np.cos(angle)).clip(-1, 1)
        noise = (x - np.cos(angle) * clean) / np.sin(angle)
        x = mixed(clean, noise, float(lower))
    digits: np.ndarray = ((x + 1) / 2).clip(0, 1)
    return digits


def sheet(digits: np.ndarray, path: Path, columns: int = 16, scale: int = 5) -> None:
    """Writes 8x8 digits, [n, 64] in 0..1, as a sheet of pictures."""
    rows = -(-len(digits) // columns)
    canvas = np.full((rows * 10 + 2, columns * 10 + 2), 0.25, np.float32)
    for i, digit in enumerate(digits):
        top, left = i // columns * 10 + 2, i % columns * 10 + 2
        canvas[top : top + 8, left : left + 8] = digit.reshape(8, 8)
    image = Image.fromarray((canvas * 255).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)
