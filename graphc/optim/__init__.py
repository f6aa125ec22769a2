"""Optimizers and learning-rate schedules, which write the ops of one update into the graph of a training step."""

from __future__ import annotations

from graphc.optim.adam import Adam, AdamW, NAdam, RAdam
from graphc.optim.base import ArgumentError, Optimizer, Result, Schedule, Slot, Update
from graphc.optim.groups import NO_DECAY, ParamGroup, matches
from graphc.optim.lamb import Lamb
from graphc.optim.lion import Lion
from graphc.optim.rmsprop import Adadelta, Adagrad, RMSprop
from graphc.optim.rule import MICRO, STEP, Applied, Rule
from graphc.optim.schedules import (
    Chain,
    ConstantFactor,
    Cosine,
    CosineRestarts,
    Exponential,
    Fixed,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Step,
    Warmup,
)
from graphc.optim.sgd import SGD
from graphc.optim.transform import (
    accumulated,
    averaged,
    chosen,
    clip_grad_norm,
    clip_grad_value,
    grad_norm,
)

__all__ = [
    "MICRO",
    "NO_DECAY",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "STEP",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Applied",
    "ArgumentError",
    "Chain",
    "ConstantFactor",
    "Cosine",
    "CosineRestarts",
    "Exponential",
    "Fixed",
    "Lamb",
    "Linear",
    "Lion",
    "MultiStep",
    "NAdam",
    "OneCycle",
    "Optimizer",
    "ParamGroup",
    "Polynomial",
    "RAdam",
    "RMSprop",
    "Result",
    "Rule",
    "Schedule",
    "Slot",
    "Step",
    "Update",
    "Warmup",
    "accumulated",
    "averaged",
    "chosen",
    "clip_grad_norm",
    "clip_grad_value",
    "grad_norm",
    "matches",
]

_OPTIMIZERS: tuple[type[Optimizer], ...] = (
    SGD,
    Adam,
    AdamW,
    NAdam,
    RAdam,
    RMSprop,
    Adagrad,
    Adadelta,
    Lion,
    Lamb,
)
_SCHEDULES: tuple[type[Schedule], ...] = (
    ConstantFactor,
    Step,
    MultiStep,
    Exponential,
    Cosine,
    CosineRestarts,
    Linear,
    Polynomial,
    OneCycle,
    Warmup,
)

OPTIMIZERS: dict[str, type[Optimizer]] = {c.name: c for c in _OPTIMIZERS}
"""Every optimizer by the name a train block knows it by."""

SCHEDULES: dict[str, type[Schedule]] = {c.name: c for c in _SCHEDULES}
"""Every schedule by the name a train block knows it by; `a -> b` there is a `Chain`."""
