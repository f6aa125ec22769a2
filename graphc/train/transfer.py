"""Weights to begin with: another model's, as far as they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc.artifact.safetensors_io import read_safetensors
from graphc.model import Model
from graphc.optim.groups import matches
from graphc.train.errors import TrainError

Array = np.ndarray[Any, np.dtype[Any]]


def starting_weights(
    model: Model, file: str | Path, fresh: Sequence[str] = (), seed: int = 0
) -> dict[str, Array]:
    """Arrays for every parameter: those of a file, and new ones for parameters that a pattern of `fresh` means.

    What the file has under such paths is left alone: a last layer for another number of classes, say. Patterns are
    those of `freeze` in a train block: `fc`, `layer4`, `*.bias`.

    Raises TrainError for a pattern that means no parameter, DiagnosticError when the rest does not fit the model,
    SafetensorsError when the file cannot be read.
    """
    begun = model.initialise(seed)
    for pattern in fresh:
        if not any(matches(pattern, path) for path in begun):
            raise TrainError(f"`{pattern}` fits no parameter of {model.name}")

    def is_fresh(path: str) -> bool:
        return any(matches(pattern, path) for pattern in fresh)

    stored = read_safetensors(file)
    kept = {path: stored[path] for path in stored if not is_fresh(path)}
    return model.weights({**kept, **{path: a for path, a in begun.items() if is_fresh(path)}})
