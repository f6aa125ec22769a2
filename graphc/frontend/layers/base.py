"""What a layer is: a frozen dataclass whose fields are the arguments and whose `apply` emits ops.

Argument names, order, defaults, parameter names, shapes and initial values are those of `torch.nn`; sizes that
follow from the input (`in_features`, `in_channels`) are inferred and may be given by keyword as a check.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

from graphc.frontend.keys import RandomKey
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Signature
from graphc.ir.dim import DimLike, Shape, names_of
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.types import TensorType


class LayerContext(Protocol):
    """What a layer sees while it is applied."""

    b: GraphBuilder
    what: str  # "Linear `fc1`", for messages

    def parameter(
        self,
        name: str,
        shape: Shape,
        init: str,
        *,
        dtype: DType = DType.F32,
        trainable: bool = True,
    ) -> Value:
        """The layer's parameter of that name; made at the first use, the same one ever after."""

    @property
    def training(self) -> bool:
        """Whether this is a training step, and the layer not frozen: dropout drops, statistics are the batch's."""

    def random_key(self) -> RandomKey:
        """A name for random numbers that nothing else in the step has."""

    def update(self, name: str, value: Value) -> None:
        """Gives a buffer of the layer its next value, in a training step."""


@dataclass(frozen=True)
class Layer:
    """Base of all layers.

    `apply(cx, x, ..., *, option)` takes the inputs that a chain feeds, then options given by keyword with the
    layer's arguments (`attn_mask=mask`). Both kinds of arguments raise RejectError where they do not fit.
    """

    methods: ClassVar[tuple[str, ...]] = ()

    def apply(self, cx: LayerContext, *args: Any, **kwargs: Any) -> Any:
        """Emits the layer's ops and returns its result or results."""
        raise TypeError(f"{type(self).__name__} cannot be applied")


def checked(description: str = "") -> Any:
    """A keyword-only argument that is inferred, and compared with what is inferred when given."""
    return field(default=None, kw_only=True, metadata={"doc": description})


@dataclass(frozen=True)
class LayerClass:
    """A layer by name: `Conv2d`, with its signature and documentation by introspection."""

    name: str
    cls: type[Layer]
    group: str

    kind = "layer"

    @cached_property
    def signature(self) -> Signature:
        """The arguments of the layer."""
        return Signature.of(self.cls.__init__, skip=1)

    @cached_property
    def options(self) -> Signature:
        """Keyword arguments of the application, given together with the layer's own."""
        return Signature(tuple(p for p in self.applications["apply"].parameters if p.keyword_only))

    @cached_property
    def applications(self) -> Mapping[str, Signature]:
        """The inputs and options of `apply` and of the other methods."""
        names = ("apply", *self.cls.methods)
        return {n: Signature.of(getattr(self.cls, n), skip=2) for n in names}

    @cached_property
    def accepted(self) -> Signature:
        """Everything a call of the layer may hold: its own arguments, then the options."""
        own = self.signature
        names = own.by_name
        extra = tuple(p for p in self.options.parameters if p.name not in names)
        return Signature((*own.parameters, *extra), own.variadic)

    @property
    def doc(self) -> str:
        """The documentation of the layer, with that of the private base which it shares with its kin."""
        texts = [self.cls.__doc__ or ""]
        texts += [c.__doc__ or "" for c in self.cls.__mro__[1:] if c.__name__.startswith("_")]
        return "\n\n".join(inspect.cleandoc(text) for text in texts)

    @property
    def summary(self) -> str:
        """The first line of `doc`."""
        return self.doc.split("\n", 1)[0]


def layer_classes(group: str, *classes: type[Layer]) -> dict[str, LayerClass]:
    """A table of layers under their class names."""
    for cls in classes:
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"{cls.__name__} is not a dataclass")
    return {cls.__name__: LayerClass(cls.__name__, cls, group) for cls in classes}


def type_of(cx: LayerContext, x: Value) -> TensorType:
    """The type of a value."""
    return cx.b.type_of(x)


def need_rank(cx: LayerContext, x: Value, rank: int, pattern: str) -> TensorType:
    """The type of an input that must have `rank` dimensions. Raises RejectError (E0205)."""
    found = type_of(cx, x)
    if found.rank != rank:
        raise RejectError(
            f"{cx.what} needs {rank} dimensions, [{pattern}], and gets {found}",
            code="E0205",
            operand=0,
        )
    return found


def need_float(cx: LayerContext, x: Value) -> TensorType:
    """The type of an input that must be floating point. Raises RejectError (E0206)."""
    found = type_of(cx, x)
    if not found.dtype.is_float:
        raise RejectError(
            f"{cx.what} needs a floating-point tensor and gets {found}",
            code="E0206",
            operand=0,
            help='convert it first, `astype(x, "f32")`; indices go through `Embedding`',
        )
    return found


def fixed(cx: LayerContext, size: DimLike, role: str) -> int:
    """A dimension that a parameter's shape depends on. Raises RejectError (E0216) for a named dim."""
    if isinstance(size, int):
        return size
    names = names_of(size)
    raise RejectError(
        f"{cx.what} needs a fixed number of {role}, and `{size}` is only known at run time",
        code="E0216",
        operand=0,
        help="write the number in the input's shape, or fix it with "
        + " ".join(f"`--dim {n}=...`" for n in names),
    )


def agree(cx: LayerContext, declared: int | None, actual: int, role: str, pattern: str) -> None:
    """Compares an optional declaration with what is inferred. Raises RejectError (E0204).

    `role` is "channels", which are dimension 1, or "features", the last one.
    """
    if declared is not None and declared != actual:
        raise RejectError(
            f"{cx.what} was declared for {declared} input {role} but gets {actual}",
            code="E0204",
            operand=0,
            label=f"expects {pattern.format(declared)}",
            wanted=declared,
            axis=1 if role == "channels" else -1,
        )


def positive(cx: LayerContext, **values: int) -> None:
    """Raises RejectError (E0405) for an argument that is not at least 1."""
    for name, value in values.items():
        if value < 1:
            raise RejectError(
                f"`{name}` of {cx.what} has to be at least 1 and is {value}", argument=name
            )


def uniform_bound(fan_in: int) -> str:
    """PyTorch's initial bias: uniform in ±1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
    return f"uniform(low={-bound!r}, high={bound!r})"


KAIMING = f"kaiming_uniform(a={math.sqrt(5)!r})"
"""PyTorch's initial weight of linear and convolution layers."""

ZEROS, ONES = "zeros()", "ones()"
