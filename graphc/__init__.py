"""graphc: a visual dataflow graph compiler.

>>> import graphc
>>> model = graphc.load("lenet.nn", classes=10)        # parse, elaborate, check every shape
>>> module = model.compile(weights="lenet.safetensors")  # optimise, generate code, link
>>> module.save("lenet")                                 # a folder that runs without graphc
>>> logits = graphc.open("lenet")(image=x)["logits"]     # needs NumPy only

Names are imported on first use, so that opening a compiled module loads neither the compiler nor its libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphc import driver as driver
    from graphc.artifact import Module, ModuleError, open
    from graphc.diagnostics import Diagnostic, DiagnosticError
    from graphc.model import Model, grad, load
    from graphc.train.trainer import Trainer

__version__ = "0.1.0"

_HOME = {
    "Diagnostic": "graphc.diagnostics",
    "DiagnosticError": "graphc.diagnostics",
    "Model": "graphc.model",
    "Module": "graphc.artifact",
    "ModuleError": "graphc.artifact",
    "Trainer": "graphc.train.trainer",
    "grad": "graphc.model",
    "load": "graphc.model",
    "open": "graphc.artifact",
}

__all__ = [
    "Diagnostic",
    "DiagnosticError",
    "Model",
    "Module",
    "ModuleError",
    "Trainer",
    "__version__",
    "grad",
    "load",
    "open",
]


_LATE = ("driver",)
"""Modules that `import graphc` is enough for: what only reads models does not load the compiler."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return importlib.import_module(f"graphc.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
