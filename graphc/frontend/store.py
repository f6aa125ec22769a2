"""The parameters of a model: made at the first use of their layer, found again where a layer is shared."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from graphc.frontend.evaluate import Expressions
from graphc.frontend.initialisers import Initializer
from graphc.frontend.keys import RandomKey
from graphc.frontend.report import RejectError
from graphc.frontend.values import Shared, Tensor, describe
from graphc.ir.graph import Scope, Value
from graphc.ir.types import TensorType
from graphc.ops import Parameter
from graphc.source import Span

Mode = Literal["infer", "train", "evaluate"]
"""What a model is elaborated for: see `training.py`."""


@dataclass(frozen=True)
class ParameterInfo:
    """A parameter of the model: its path (the name in a checkpoint), type, initialiser and where it is declared.

    `trainable` is false for buffers such as running statistics.
    """

    path: str
    type: TensorType
    init: str
    trainable: bool
    scope: tuple[Scope, ...]
    span: Span


class Store(Expressions):
    """Holds the parameters: `declared` by path, with the shared layer they belong to; `parameter_count` elements.

    `updates` are the next values of buffers, by path: in a training step layers change them.
    """

    declared: dict[str, tuple[Tensor, ParameterInfo, Shared | None]]
    parameter_count: int
    mode: Mode
    updates: dict[str, Value]

    @abstractmethod
    def is_frozen(self, path: str) -> bool:
        """True for a parameter that the train block freezes."""

    @abstractmethod
    def random_key(self) -> RandomKey:
        """A name for random numbers that nothing else in the step has."""

    def parameter(
        self,
        path: str,
        type: TensorType,
        init: str,
        trainable: bool,
        scope: tuple[Scope, ...],
        shared: Shared | None,
        span: Span,
    ) -> Tensor:
        """The parameter at a path: made, or found where the layer is shared. Reports E0311, E0313, E0504."""
        if path in self.declared:
            tensor, info, owner = self.declared[path]
            if path in self.updates:  # a buffer of a layer that is used again in a training step
                tensor = Tensor(self.updates[path], info.type)
            if shared is None or owner is not shared:
                self.report.fail(
                    "E0311",
                    f"two layers have a parameter `{path}`",
                    span,
                    "makes it again",
                    related=[(info.span, "first made here")],
                    help="give one of them another label",
                )
            if info.type != type:
                self.report.fail(
                    "E0313",
                    f"the shared layer `{shared.name}` has `{path}` as {info.type}, and this use needs {type}",
                    span,
                    related=[(info.span, "first used here")],
                    help="layers that share weights need inputs of one size",
                )
            return tensor
        count = 1
        for size in type.shape:
            count *= size if isinstance(size, int) else 1
        self.parameter_count += count
        if self.parameter_count > self.limits.parameters:
            self.report.fail(
                "E0504", f"`{path}` {type} takes the parameters of this model beyond 2 ** 36", span
            )
        op = Parameter(path=path, dtype=type.dtype, shape=type.shape, init=init)
        with self.b.at(scope, span):
            tensor = Tensor(self.guard(span, lambda: self.b(op)), type)
        info = ParameterInfo(path, type, init, trainable, scope, span)
        self.declared[path] = (tensor, info, shared)
        return tensor


def initializer_text(value: Any, type: TensorType, what: str) -> str:
    """The initialiser a `param` was given, as text; a number is a constant. Raises RejectError (E0404, E0405)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = Initializer.of("constant", value=value)
    if not isinstance(value, Initializer):
        raise RejectError(
            f"{what} needs an initialiser, not {describe(value)}",
            code="E0404",
            help="for example `normal(std=0.02)`, `xavier_uniform()` or `zeros()`",
        )
    if value.needs_matrix and type.rank < 2:
        raise RejectError(
            f"{value.name} needs at least two dimensions, and {what} is {type}",
            code="E0405",
            help="`normal(std=0.02)` works for any shape",
        )
    return str(value)
