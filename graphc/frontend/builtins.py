"""Every name that a `.nn` file knows without an import."""

from __future__ import annotations

import math
from typing import Any

from graphc.frontend.functions import FUNCTIONS
from graphc.frontend.layers import LAYERS
from graphc.ir.dtype import DType
from graphc.optim import OPTIMIZERS, SCHEDULES

CONSTANTS: dict[str, Any] = {
    "pi": math.pi,
    "inf": math.inf,
    **{d.value: d for d in DType if d is not DType.BOOL},
}
"""Numbers with a name, and the dtypes as values (`astype(x, f16)`)."""

BUILTINS: dict[str, Any] = {**LAYERS, **FUNCTIONS, **CONSTANTS}
"""Layers, functions, initialisers and constants, by name."""

TRAINING = frozenset((*OPTIMIZERS, *SCHEDULES))
"""Names that mean something inside `train { ... }` only."""
