"""Training a compiled step: data, metrics, checkpoints, logs, and the loop that calls the step.

>>> from graphc.train import Trainer, fit
>>> trainer = Trainer(graphc.load("lenet.nn"))
>>> run = fit(trainer, "digits.npz", epochs=10, batch=64, val=0.1, out="lenet")
>>> module = trainer.model.compile(run.weights)

Names are imported on first use: the compiler is loaded when a `Trainer` is made, not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphc.train.data import open_data, split
    from graphc.train.epochs import Run
    from graphc.train.errors import CheckpointError, DataError, DivergedError, TrainError
    from graphc.train.evaluation import evaluate
    from graphc.train.history import History
    from graphc.train.loop import fit
    from graphc.train.ports import Port
    from graphc.train.stopping import EarlyStopping
    from graphc.train.trainer import Trainer
    from graphc.train.transfer import starting_weights

_HOME = {
    "CheckpointError": "errors",
    "DataError": "errors",
    "DivergedError": "errors",
    "EarlyStopping": "stopping",
    "History": "history",
    "Port": "ports",
    "Run": "epochs",
    "TrainError": "errors",
    "Trainer": "trainer",
    "evaluate": "evaluation",
    "fit": "loop",
    "open_data": "data",
    "split": "data",
    "starting_weights": "transfer",
}

__all__ = [
    "CheckpointError",
    "DataError",
    "DivergedError",
    "EarlyStopping",
    "History",
    "Port",
    "Run",
    "TrainError",
    "Trainer",
    "evaluate",
    "fit",
    "open_data",
    "split",
    "starting_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graphc.train' has no attribute {name!r}")
    return getattr(importlib.import_module(f"graphc.train.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
