"""The syntax tree: frozen dataclasses, one to one with the rules of ``grammar/nn.lark``.

Every node has a ``span``. Spans take no part in equality, hash or ``repr``, so that two texts
which differ only in layout have equal trees; use ``id(node)`` to key a table by *occurrence*.

Parentheses that only group leave no node. Sequences are tuples, identifiers are NFC-normalised,
and an identifier that a diagnostic may want to point at is a :class:`Name` with its own span.

One long file, because the nodes are one vocabulary that is read and searched as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from graphc.source import Span

UnaryOperator = Literal["-", "+", "not"]
BinaryOperator = Literal["+", "-", "*", "/", "//", "%", "**", "@"]
CompareOperator = Literal["==", "!=", "<", "<=", ">", ">="]
LogicalOperator = Literal["and", "or"]

DTYPES = ("f32", "f16", "bf16", "f64", "i8", "i16", "i32", "i64", "u8", "bool")
"""Element types a tensor type may name."""

KINDS = ("int", "float", "bool", "str", "list", "layer", "block")
"""Kinds of a parameter that is no tensor: known while the graph is built, free at run time.

``layer`` is anything that can stand as a stage of a chain; ``block`` is a layer or block that is
not yet applied to its arguments.
"""


@dataclass(frozen=True)
class Node:
    """Base of all nodes: something with a place in a file."""

    span: Span = field(compare=False, repr=False)


# ---------------------------------------------------------------------------------------------
# Expressions


@dataclass(frozen=True)
class Name(Node):
    """An identifier, used or declared."""

    id: str


@dataclass(frozen=True)
class Int(Node):
    """An integer literal, ``64`` or ``1_000``; at most 2**63 - 1."""

    value: int


@dataclass(frozen=True)
class Float(Node):
    """A floating-point literal, ``1e-5`` or ``0.5``."""

    value: float


@dataclass(frozen=True)
class Bool(Node):
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True)
class Nothing(Node):
    """``none``: the value that says an optional argument is absent."""


@dataclass(frozen=True)
class String(Node):
    """A string without interpolation; ``value`` has its escapes resolved."""

    value: str


@dataclass(frozen=True)
class Interpolation(Node):
    """A string with values in braces, ``"width {D}"``: text and expressions in order."""

    parts: tuple[str | Expr, ...]


@dataclass(frozen=True)
class Unary(Node):
    """``-x``, ``+x`` or ``not x``."""

    op: UnaryOperator
    operand: Expr


@dataclass(frozen=True)
class Binary(Node):
    """Arithmetic: ``left op right``."""

    op: BinaryOperator
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Compare(Node):
    """One comparison; comparisons do not chain."""

    op: CompareOperator
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Logical(Node):
    """``left and right`` or ``left or right``."""

    op: LogicalOperator
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Conditional(Node):
    """``then if test else orelse``."""

    test: Expr
    then: Expr
    orelse: Expr


@dataclass(frozen=True)
class Keyword(Node):
    """``name=value`` in a call."""

    name: Name
    value: Expr


@dataclass(frozen=True)
class Call(Node):
    """``callee(args, name=value)``: a layer, a block or a function with its arguments."""

    callee: Expr
    args: tuple[Expr, ...]
    keywords: tuple[Keyword, ...]


@dataclass(frozen=True)
class Attribute(Node):
    """``value.name``, such as ``h.last`` or ``emb.attend``."""

    value: Expr
    name: Name


@dataclass(frozen=True)
class Dots(Node):
    """``...`` in a shape or in a subscript: any number of dimensions."""


@dataclass(frozen=True)
class Slice(Node):
    """``start:stop:step`` in a subscript; each part may be absent."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True)
class Subscript(Node):
    """``value[items]``, such as ``x[:, 0]`` or ``x[..., ::2]``."""

    value: Expr
    items: tuple[Expr | Slice | Dots, ...]


@dataclass(frozen=True)
class List(Node):
    """``[a, b]``."""

    elements: tuple[Expr, ...]


@dataclass(frozen=True)
class Tuple(Node):
    """``(a, b)``; on the right of ``=`` and after ``return`` also without parentheses."""

    elements: tuple[Expr, ...]


@dataclass(frozen=True)
class Segment(Node):
    """One dotted segment of a label: text and interpolated expressions, ``layer{i + 1}``."""

    parts: tuple[str | Expr, ...]


@dataclass(frozen=True)
class Label(Node):
    """The place of a layer in the parameter tree, ``conv1`` or ``layer{i + 1}.{j}``."""

    segments: tuple[Segment, ...]

    @property
    def constant(self) -> str | None:
        """The label as text when nothing is interpolated, else None."""
        words: list[str] = []
        for segment in self.segments:
            texts = [part for part in segment.parts if isinstance(part, str)]
            if len(texts) != len(segment.parts):
                return None
            words.append("".join(texts))
        return ".".join(words)


@dataclass(frozen=True)
class SubChain(Node):
    """``[A -> B]`` as a stage: a chain without its input, one box in a diagram."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Stage(Node):
    """What stands after an arrow: ``target`` or ``label: target``.

    ``target`` is a :class:`Name` or dotted :class:`Attribute` (a layer without arguments, a
    function, a shared layer), a :class:`Call` of one of these, or a :class:`SubChain`.
    """

    label: Label | None
    target: StageTarget


@dataclass(frozen=True)
class Chain(Node):
    """``value -> stage -> stage``; binds weaker than every operator."""

    value: Expr
    stages: tuple[Stage, ...]


# ---------------------------------------------------------------------------------------------
# Types


@dataclass(frozen=True)
class Dim(Node):
    """One dimension of a shape: an integer, a name or arithmetic, with an upper bound or none."""

    size: Expr
    bound: Expr | None


@dataclass(frozen=True)
class TensorType(Node):
    """``f32[N, C, H, W]``; at most one of ``dims`` is :class:`Dots`."""

    dtype: str
    dims: tuple[Dim | Dots, ...]


@dataclass(frozen=True)
class KindType(Node):
    """A parameter kind that is no tensor, one of :data:`KINDS`."""

    kind: str


# ---------------------------------------------------------------------------------------------
# Statements


@dataclass(frozen=True)
class TupleTarget(Node):
    """``a, (b, c)`` on the left of ``=`` or after ``for``."""

    elements: tuple[Target, ...]


@dataclass(frozen=True)
class Body(Node):
    """Statements in braces."""

    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Input(Node):
    """``input name: type``."""

    name: Name
    type: TensorType


@dataclass(frozen=True)
class Output(Node):
    """``output a, b`` (``value`` is None) or ``output a = value``."""

    names: tuple[Name, ...]
    value: Expr | None


@dataclass(frozen=True)
class Assign(Node):
    """``target = value``."""

    target: Target
    value: Expr


@dataclass(frozen=True)
class Shared(Node):
    """``shared name: Layer(...)``: one layer with one set of weights, applied by name."""

    name: Name
    layer: StageTarget


@dataclass(frozen=True)
class Param(Node):
    """``param name: type = initializer``: a parameter of the enclosing block."""

    name: Name
    type: TensorType
    initializer: Expr


@dataclass(frozen=True)
class Branch(Node):
    """One ``if test { ... }`` of an :class:`If`."""

    test: Expr
    body: Body


@dataclass(frozen=True)
class If(Node):
    """``if ... else if ... else ...``: the branches in order, then the last ``else`` or None."""

    branches: tuple[Branch, ...]
    orelse: Body | None


@dataclass(frozen=True)
class For(Node):
    """``for target in iterable { ... }``, unrolled while the graph is built."""

    target: Target
    iterable: Expr
    body: Body


@dataclass(frozen=True)
class Assert(Node):
    """``assert test, "message {D}"``."""

    test: Expr
    message: String | Interpolation | None


@dataclass(frozen=True)
class Return(Node):
    """``return value``; several values are a :class:`Tuple`."""

    value: Expr


@dataclass(frozen=True)
class ScanInput(Node):
    """``name in sequence``: one step of ``sequence`` is ``name`` in the body."""

    name: Name
    sequence: Expr


@dataclass(frozen=True)
class Carry(Node):
    """``name = initial``: a value handed from one step of a scan to the next."""

    name: Name
    initial: Expr


@dataclass(frozen=True)
class Scan(Node):
    """``scan x_t in x with h = h0 { ... }``: the loop that exists at run time."""

    inputs: tuple[ScanInput, ...]
    carries: tuple[Carry, ...]
    reverse: bool
    body: Body


@dataclass(frozen=True)
class Emit(Node):
    """``emit a, b``: values of each step that the scan stacks."""

    names: tuple[Name, ...]


@dataclass(frozen=True)
class Cond(Node):
    """``cond test { ... } else { ... }``: the choice that is made at run time; `orelse` may be the next ``cond``."""

    test: Expr
    body: Body
    orelse: Body | Cond | None


@dataclass(frozen=True)
class Checkpoint(Node):
    """``checkpoint { ... }``: recompute the body in the backward pass instead of keeping it."""

    body: Body


@dataclass(frozen=True)
class Loss(Node):
    """``loss value``."""

    value: Expr


@dataclass(frozen=True)
class Metric(Node):
    """``metric name = value``."""

    name: Name
    value: Expr


@dataclass(frozen=True)
class Optimizer(Node):
    """``optimizer AdamW(lr=1e-3)``."""

    value: Expr


@dataclass(frozen=True)
class Schedule(Node):
    """``schedule warmup(200) -> cosine(total=4000)``: phases of the learning rate."""

    value: Expr


@dataclass(frozen=True)
class Augment(Node):
    """``augment image -> rotate(10)``: what happens to an input while training."""

    value: Expr


@dataclass(frozen=True)
class Pattern(Node):
    """A label pattern, ``bn*`` or ``encoder.*.attn``; ``*`` stands for any characters."""

    text: str


@dataclass(frozen=True)
class Freeze(Node):
    """``freeze conv1, bn*``: parameters that get no gradient."""

    patterns: tuple[Pattern, ...]


@dataclass(frozen=True)
class Batch(Node):
    """``batch 64``."""

    value: Expr


@dataclass(frozen=True)
class Epochs(Node):
    """``epochs 10``."""

    value: Expr


# ---------------------------------------------------------------------------------------------
# Definitions


@dataclass(frozen=True)
class Parameter(Node):
    """``name: type = default`` in the head of a model or block."""

    name: Name
    type: TensorType | KindType
    default: Expr | None


@dataclass(frozen=True)
class Model(Node):
    """``model Name(parameters) { ... }``."""

    name: Name
    parameters: tuple[Parameter, ...]
    body: Body


@dataclass(frozen=True)
class Block(Node):
    """``block Name(parameters) { ... return value }``."""

    name: Name
    parameters: tuple[Parameter, ...]
    body: Body


@dataclass(frozen=True)
class Train(Node):
    """``train Model { ... }``."""

    model: Name
    body: Body


@dataclass(frozen=True)
class LibraryPath(Node):
    """``nn.transformer`` in an import: a file of the library that ships with graphc."""

    parts: tuple[Name, ...]


@dataclass(frozen=True)
class ImportedName(Node):
    """``name`` or ``name as alias`` in an import."""

    name: Name
    alias: Name | None

    @property
    def bound(self) -> Name:
        """The name the importing file uses."""
        return self.alias or self.name


@dataclass(frozen=True)
class Import(Node):
    """``from "file.nn" import A`` (a :class:`String`) or ``from nn.x import A``."""

    module: String | LibraryPath
    names: tuple[ImportedName, ...]


@dataclass(frozen=True)
class File(Node):
    """A whole file: imports and definitions in the order written."""

    items: tuple[Item, ...]


StageTarget = Name | Attribute | Call | SubChain
Expr = (
    Name
    | Int
    | Float
    | Bool
    | Nothing
    | String
    | Interpolation
    | Unary
    | Binary
    | Compare
    | Logical
    | Conditional
    | Call
    | Attribute
    | Subscript
    | List
    | Tuple
    | Chain
)
Target = Name | TupleTarget
Statement = (
    Input
    | Output
    | Assign
    | Shared
    | Param
    | If
    | For
    | Assert
    | Return
    | Scan
    | Emit
    | Cond
    | Checkpoint
    | Loss
    | Metric
    | Optimizer
    | Schedule
    | Augment
    | Freeze
    | Batch
    | Epochs
)
Item = Import | Model | Block | Train
