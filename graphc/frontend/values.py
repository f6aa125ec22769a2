"""What a name in a `.nn` file can stand for while the graph is built.

Numbers, strings, booleans, `none`, lists and tuples are Python's own; a dimension that is not known yet is an
`ir.dim.Dim`; a dtype is an `ir.dtype.DType`. Everything else is one of the classes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphc.frontend.initialisers import Initializer
from graphc.frontend.mixed import Mixed
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Scope
from graphc.ir.graph import Value as GraphValue
from graphc.ir.types import TensorType
from graphc.source import Span
from graphc.syntax import ast

if TYPE_CHECKING:
    from graphc.frontend.layers.base import Layer, LayerClass
    from graphc.frontend.modules import Module
    from graphc.frontend.signature import Function


@dataclass(frozen=True)
class Tensor:
    """A value of the graph with its type."""

    value: GraphValue
    type: TensorType


@dataclass(frozen=True)
class MixedLabels(Tensor):
    """Labels of which each image has two; where one is wanted, it is the larger."""

    mixed: Mixed


@dataclass(frozen=True)
class Scanned:
    """A name after a scan: what its steps emitted under it, and what was carried out of the last one."""

    name: str
    stacked: Tensor | None
    last: Tensor | None


@dataclass(frozen=True)
class Undecided:
    """A name after a cond whose branches give it values of which a run cannot choose one. Using it is the error."""

    node: ast.Cond
    yes: Any
    no: Any


class Poison:
    """The value of something that failed. Whatever uses it stays silent, so that one mistake is one error."""

    def __repr__(self) -> str:
        return "<poison>"


POISON = Poison()


@dataclass(frozen=True)
class Argument:
    """An evaluated argument and where it stands; `name` is set for a keyword argument."""

    value: Any
    span: Span
    name: ast.Name | None = None


@dataclass(frozen=True)
class BlockDef:
    """A `block` (or a `model`, which can be imported but not applied) and the file it belongs to."""

    node: ast.Block | ast.Model
    module: Module

    @property
    def name(self) -> str:
        """The name it was declared with."""
        return self.node.name.id


@dataclass(frozen=True)
class Spec:
    """A layer or block with arguments, not yet part of the model: `Conv2d(64, 3)`. Each use makes a new layer.

    For a built-in layer the arguments are checked already: `layer` is the layer they make, `options` go with its
    application, `bound` says where each argument stands.
    """

    callee: LayerClass | BlockDef
    arguments: tuple[Argument, ...]
    span: Span
    layer: Layer | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    bound: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True)
class Bound:
    """A function with arguments but without its first: `softmax(dim=-1)` as a stage or passed to a block."""

    function: Function
    arguments: tuple[Argument, ...]
    span: Span


@dataclass
class Shared:
    """`shared name: Layer(...)`: one layer with one set of parameters, made at its first use.

    `owner` is the outermost shared layer it is part of: its parameters are made by the first use of that one.
    """

    name: str
    path: str
    layer: Applicable
    span: Span
    scope: tuple[Scope, ...] = ()
    owner: Shared | None = None


@dataclass(frozen=True)
class Method:
    """`emb.attend`: another way to apply a shared layer."""

    shared: Shared
    name: str
    arguments: tuple[Argument, ...] = ()
    span: Span | None = None


@dataclass(frozen=True)
class SubChainValue:
    """A bracketed chain with the names it can see: only as a stage or as what `shared` names."""

    node: ast.SubChain
    scope: Any


Applicable = Any
"""Whatever can stand as a stage: LayerClass, BlockDef, Spec, Bound, Shared, Method, SubChainValue, Function."""


def describe(value: Any) -> str:
    """What kind of thing a value is, for messages: "the tensor f32[N, 64]", "the number 3", "a list"."""
    if isinstance(value, Tensor):
        return f"a tensor {value.type}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, (int, float)):
        return f"the number {shown(value)}"
    if isinstance(value, str):
        return f"the string {shown(value)}"
    if isinstance(value, Dim):
        return f"the named dim {value}"
    if isinstance(value, (list, tuple, range)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, DType):
        return f"the dtype {value}"
    if isinstance(value, Scanned):
        return f"the scanned `{value.name}`"
    if isinstance(value, BlockDef):
        return f"the {'model' if isinstance(value.node, ast.Model) else 'block'} {value.name}"
    if isinstance(value, Spec):
        return f"the layer {value.callee.name}(...)"
    if isinstance(value, Bound):
        return f"the function {value.function.name}(...) without its input"
    if isinstance(value, Method):
        return f"the shared layer {value.shared.name}"
    if isinstance(value, Shared):
        return f"the shared layer {value.name}"
    if isinstance(value, Initializer):
        return f"the initialiser {value}"
    if isinstance(value, SubChainValue):
        return "a bracketed chain"
    return f"the {value.kind} {value.name}" if hasattr(value, "kind") else type(value).__name__


def shown(value: Any) -> str:
    """A value as `.nn` text, for messages and interpolation into messages."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, str):
        return f'"{value[:40]}..."' if len(value) > 43 else f'"{value}"'
    if isinstance(value, (list, tuple)):
        shown_items = [shown(v) for v in value[:8]] + (["..."] if len(value) > 8 else [])
        body = ", ".join(shown_items)
        return f"[{body}]" if isinstance(value, list) else f"({body})"
    if isinstance(value, Tensor):
        return str(value.type)
    return str(value)


def tensors_in(value: Any) -> Iterable[Tensor]:
    """The tensors in a value, through tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def is_poisoned(value: Any) -> bool:
    """True for poison and for a tuple or list that holds some."""
    if isinstance(value, (tuple, list)):
        return any(is_poisoned(v) for v in value)
    return isinstance(value, Poison)
