"""Parameter groups: other arguments of the optimizer for some parameters, chosen by label pattern.

ParamGroup("backbone", {"lr": 1e-4})        # everything below the block `backbone`
ParamGroup("*.bias", {"weight_decay": 0.0})
NO_DECAY                                     # biases and the weights of normalisations
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.diagnostics import nearest
from graphc.ir.types import TensorType
from graphc.optim.base import ArgumentError, Optimizer


def matches(pattern: str, path: str) -> bool:
    """True when a label pattern means a parameter: it fits the parameter's path or that of a block around it.

    `*` stands for any characters, dots too: `conv1` and `bn*` mean `conv1.weight` and `bn2.bias`, but not
    `layer1.conv1.weight`, which `layer1` and `*.conv1` mean.
    """
    text = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(rf"{text}(\..*)?", path) is not None


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that `pattern` means (see `matches`) get these arguments instead of the optimizer's own.

    With `max_rank` only those with at most so many dimensions are meant.
    """

    pattern: str
    overrides: Mapping[str, Any]
    max_rank: int | None = None

    def holds(self, path: str, type: TensorType) -> bool:
        """True for a parameter of the group."""
        fits = self.max_rank is None or type.rank <= self.max_rank
        return fits and matches(self.pattern, path)


NO_DECAY = ParamGroup("*", {"weight_decay": 0.0}, max_rank=1)
"""No weight decay for what has at most one dimension: biases, and the weights of normalisations."""


def optimizer_of(
    optimizer: Optimizer, groups: Sequence[ParamGroup], path: str, type: TensorType
) -> Optimizer:
    """The optimizer of one parameter: with the overrides of the first group it belongs to.

    Raises ArgumentError for an override that the optimizer has no argument for, or that has a wrong value.
    """
    for group in groups:
        if group.holds(path, type):
            return overridden(optimizer, group.overrides)
    return optimizer


def overridden(optimizer: Optimizer, overrides: Mapping[str, Any]) -> Optimizer:
    """The optimizer with other arguments. Raises ArgumentError for one it does not have."""
    known = [f.name for f in dataclasses.fields(optimizer)]
    for argument in overrides:
        if argument not in known:
            near = nearest(argument, known)
            hint = f"; did you mean `{near}`?" if near else ""
            raise ArgumentError(argument, f"is no argument of {optimizer.name}{hint}")
    return dataclasses.replace(optimizer, **overrides)
