"""Lion and LAMB by hand, in f64, after Algorithm 2 of their papers: PyTorch does not have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def lion(
    params: list[Array],
    grads: Sequence[Sequence[Array]],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
) -> list[Array]:
    """Chen et al. 2023."""
    params = [p.astype(np.float64) for p in params]
    m = [np.zeros_like(p) for p in params]
    for step in grads:
        for i, g in enumerate(step):
            c = betas[0] * m[i] + (1 - betas[0]) * g
            params[i] = params[i] - lr * (np.sign(c) + weight_decay * params[i])
            m[i] = betas[1] * m[i] + (1 - betas[1]) * g
    return params


def lamb(
    params: list[Array],
    grads: Sequence[Sequence[Array]],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 1e-2,
) -> list[Array]:
    """You et al. 2020, with the identity as phi."""
    params = [p.astype(np.float64) for p in params]
    m, v = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    for t, step in enumerate(grads, 1):
        for i, g in enumerate(step):
            m[i] = betas[0] * m[i] + (1 - betas[0]) * g
            v[i] = betas[1] * v[i] + (1 - betas[1]) * g.astype(np.float64) ** 2
            r = (m[i] / (1 - betas[0] ** t)) / (np.sqrt(v[i] / (1 - betas[1] ** t)) + eps)
            r = r + weight_decay * params[i]
            size, length = np.linalg.norm(params[i]), np.linalg.norm(r)
            trust = size / length if size > 0 and length > 0 else 1.0
            params[i] = params[i] - lr * trust * r
    return params
