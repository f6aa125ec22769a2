"""The contract of an operation: one frozen dataclass per op, its fields are the attributes.

Everything the compiler knows about an op is asked from its class: the shape rule (`infer`), the
NumPy meaning (`evaluate`), the code-generation meaning (`compute`), the cost (`flops`), how it
falls apart into primitives (`decompose`), its derivative (`gradient`), and what fusion and layout
may do with it (`pattern` and the class facts after it). No pass names ops in a list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np

from graphc.ir.dim import Dim, DimLike, substitute
from graphc.ir.dtype import DType
from graphc.ir.types import TensorType
from graphc.source import Span

if TYPE_CHECKING:
    from graphc.ir.graph import Graph, GraphBuilder, Value
    from graphc.ir.pullback import Pullback

Array = np.ndarray[Any, np.dtype[Any]]
Expr = Any  # a scalar or vector expression of whatever Emitter is at work
OpT = TypeVar("OpT", bound="Op")


class OpError(Exception):
    """An op rejects its operands or attributes.

    `operand` is the slot at fault (None: the attributes), `code` a diagnostic code, `help` what to
    write instead; `span` the place of an op that is at fault and is not the one being built. The
    frontend turns it into a diagnostic at the user's line; built by hand, it reads as it stands.
    """

    def __init__(
        self,
        message: str,
        *,
        operand: int | None = None,
        code: str = "E0201",
        help: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.operand, self.code, self.help = message, operand, code, help
        self.span: Span | None = None


class Pattern(Enum):
    """How result elements depend on operand elements; what fusion and lowering decide by."""

    SOURCE = "source"  # no operands (random bits: a key): inputs, parameters, constants, iota
    ELEMENTWISE = "elementwise"  # out[i] = f(a[i], b[i], ...), all operands of the result's shape
    INDEX = "index"  # out[i] = one operand at a computed index, or a fill value: pad, concat, take
    REDUCE = "reduce"  # out[i] = a reduction over some axes of one operand
    WINDOW = "window"  # pooling: a reduction over a sliding window
    CONTRACT = "contract"  # dot_general, conv_general: the heavy roots
    OPAQUE = "opaque"  # sort and the like: a kernel of its own
    COMPOSITE = "composite"  # falls apart through `decompose`; kernels may know it whole
    REGION = "region"  # owns a body graph: fusion, scan, cond


class Emitter(Protocol):
    """Scalar arithmetic an op's `compute` is written in; lowering implements it over TIR.

    Index expressions are i64 expressions on which plain +, -, *, // (rounding down), % work, also
    with Python ints; `cast`, `compare`, `select` and `binary` take them like any other.
    """

    def constant(self, value: float | int | bool, dtype: DType) -> Expr:
        """A literal."""

    def dim(self, dim: DimLike) -> Expr:
        """A dimension as an index expression."""

    def cast(self, value: Expr, dtype: DType) -> Expr:
        """Conversion: float to integer truncates toward zero, to bool is `!= 0`."""

    def unary(self, name: str, value: Expr) -> Expr:
        """One operand.

        `name`: neg abs sign exp expm1 log log1p sqrt rsqrt tanh sigmoid erf sin cos floor ceil
        round not isnan.
        """

    def binary(self, name: str, a: Expr, b: Expr) -> Expr:
        """`name`: add sub mul div floordiv mod pow max min (NaN propagates) and or xor."""

    def compare(self, name: str, a: Expr, b: Expr) -> Expr:
        """`name`: eq ne lt le gt ge."""

    def select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        """`a` where the condition holds, else `b`; both are evaluated."""

    def guarded(self, condition: Expr, a: Callable[[], Expr], otherwise: Expr) -> Expr:
        """`a()` where the condition holds; never reads memory where it does not (padding)."""

    def reduce(
        self,
        kind: str,
        extents: Sequence[DimLike],
        body: Callable[[Sequence[Expr]], Expr],
        dtype: DType,
    ) -> Expr:
        """sum, prod, max, min, all or any of `body(k)` over the box of `extents`.

        An empty box gives the identity of the reduction.
        """

    def checked_index(self, value: Expr, limit: DimLike) -> Expr:
        """`value` if 0 <= value < limit; otherwise a fault is recorded and the index is clamped."""

    def random_bits(self, key: tuple[Expr, Expr], stream: DimLike, position: Expr) -> Expr:
        """Element `position` of a stream of random i32 that the two i64 of a key name: see `ops.random`."""


Read = Callable[[int, Sequence[Expr]], Expr]


@dataclasses.dataclass(frozen=True)
class Stacked:
    """An op that does many steps at once: see `Op.stacked`.

    The steps are axis `axis` of its result. With `spread`, operands that are the same at every step have to be repeated
    along a leading axis as well; otherwise they stay as they are.
    """

    op: Op
    axis: int = 0
    spread: bool = False


@dataclasses.dataclass(frozen=True)
class Op:
    """Base of all operations: frozen dataclasses with hashable fields that compare by value."""

    name: ClassVar[str] = ""
    pattern: ClassVar[Pattern]
    arity: ClassVar[int | None] = None  # None: variadic
    family: ClassVar[str] = "elementwise"  # the colour in a diagram
    commutative: ClassVar[bool] = False  # operands 0 and 1 may be swapped
    # Facts that passes and lowering ask for:
    expensive: ClassVar[bool] = False  # redoing it per use costs more than a load: exp, tanh, ...
    spatial: ClassVar[bool] = False  # has a `channels_last` attribute: conv, pooling, resize, ...
    spatial_operands: ClassVar[int] = (
        1  # of a spatial op: how many, from the first, have its layout
    )
    spatial_result: ClassVar[bool] = True  # and whether its result has it
    alias: ClassVar[bool] = False  # the operand's bytes under another shape: reshape
    checked: ClassVar[bool] = (
        False  # kernels check an index of it at run time (`Emitter.checked_index`)
    )
    strided_operands: ClassVar[int] = (
        0  # of a composite: so many, from the first, are read many times, through transposes only
    )

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """Result types. Raises OpError, naming both shapes, when the operands do not fit."""
        raise TypeError(f"{type(self).__name__} has no shape rule")

    def typed(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """`infer`, whose answer for the operand types asked about last is remembered: passes ask again and again."""
        last: tuple[Any, Any] | None = self.__dict__.get("_typed")
        if last is not None and last[0] == operands:
            result: tuple[TensorType, ...] = last[1]
            return result
        types = self.infer(*operands)
        self.__dict__["_typed"] = (operands, types)
        return types

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The meaning, in NumPy, on arrays; attributes hold no named dims (see `substitute`)."""
        raise TypeError(f"{type(self).__name__} has no NumPy meaning")

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The element at `index` of the only result, from `read(slot, index)` of the operands."""
        raise TypeError(f"{type(self).__name__} has no element-wise computation")

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """Arithmetic operations of one application: a multiply-add counts 2, moving data 0."""
        return 0

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...] | None:
        """The same results from simpler ops, or None for a primitive."""
        return None

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The operands' cotangents from the results', in graph ops; None where nothing flows back.

        Asked only where a float result depends on a float operand. A composite without a rule of its own goes through
        its decomposition. Raises OpError E0811 for an op that has no gradient.
        """
        parts = self.decompose(p.b, *p.operands)
        if parts is None:
            raise OpError(f"{self.name} has no gradient", code="E0811")
        return p.through(parts)

    def transposed(self, permutation: tuple[int, ...]) -> tuple[Op, tuple[int, ...]] | None:
        """Moves a transpose of every operand behind the op; None where that is impossible.

        `op(transpose(a, p), transpose(b, p)) == transpose(op2(a, b), q)` for the returned
        `(op2, q)`. Elementwise ops return themselves and `p`; reductions, pad, slice, reverse and
        concatenate remap their axes. Operands 1, 2, ... of composites and spatial ops (weights,
        statistics) stay as they are.
        """
        return None

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The op that does `length` applications at once; None where there is none.

        Operands flagged in `each` (at least one) are stacked along a new leading axis, the others are the same every
        time. `ranks` are those of the operands of one application. Loops hand their work to it.
        """
        return None

    @property
    def replicated(self) -> bool:
        """Cheaper to redo at each reader than to store: broadcasts, iota, literals of one value."""
        return False

    @property
    def placeable(self) -> bool:
        """A producer can store its result straight through this op: see `place`."""
        return False

    def place(self, index: Sequence[Expr]) -> tuple[Expr, ...]:
        """Where the operand's element at `index` lands in the result; only for `placeable` ops."""
        raise TypeError(f"{type(self).__name__} is not placeable")

    @property
    def regions(self) -> tuple[Graph, ...]:
        """Body graphs the op owns."""
        return ()

    def over_bodies(self, amounts: Sequence[DimLike]) -> DimLike:
        """What an application takes at most, say of arithmetic, from what one run of each body takes."""
        raise TypeError(f"{type(self).__name__} has no bodies")

    def attributes(self) -> dict[str, Any]:
        """Attribute names and values, in field order."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @cached_property
    def dim_names(self) -> frozenset[str]:
        """Named dims that attributes depend on; those of body graphs are their own."""
        return frozenset(_names(self.attributes().values()))

    def substitute(self: OpT, env: Mapping[str, DimLike]) -> OpT:
        """The op with named dims in its attributes replaced."""
        changes = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            new = _substitute(value, env)
            if new is not value:
                changes[field.name] = new
        return dataclasses.replace(self, **changes) if changes else self


def _names(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Dim):
            yield from value.names
        elif isinstance(value, tuple):
            yield from _names(value)


def _substitute(value: Any, env: Mapping[str, DimLike]) -> Any:
    if isinstance(value, Dim):
        return substitute(value, env)
    if isinstance(value, tuple) and any(isinstance(v, (Dim, tuple)) for v in value):
        return tuple(_substitute(v, env) for v in value)
    if hasattr(value, "substitute_dims"):  # a body graph
        return value.substitute_dims(env)
    return value
