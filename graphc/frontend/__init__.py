"""AST to graph: imports, names, blocks, layers, shapes; parameters and their initial values; checkpoints."""

from __future__ import annotations

from graphc.frontend.elaborate import Elaborated, ElaborationError, load
from graphc.frontend.functions import FUNCTIONS
from graphc.frontend.layers import LAYERS
from graphc.frontend.limits import Limits
from graphc.frontend.parameters import initialise
from graphc.frontend.stages import LayerUse
from graphc.frontend.store import Mode, ParameterInfo
from graphc.frontend.training import LOSS, RNG, Augmentation, Training
from graphc.frontend.weights import Weights, check_weights, match_weights

__all__ = [
    "FUNCTIONS",
    "LAYERS",
    "LOSS",
    "RNG",
    "Augmentation",
    "Elaborated",
    "ElaborationError",
    "LayerUse",
    "Limits",
    "Mode",
    "ParameterInfo",
    "Training",
    "Weights",
    "check_weights",
    "initialise",
    "load",
    "match_weights",
]
