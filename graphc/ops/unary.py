"""Elementwise ops of one operand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dtype import DType
from graphc.ir.graph import Value
from graphc.ir.op import Array, Emitter, Expr, Read
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops.elementwise import Arithmetic, Elementwise
from graphc.ops.numerics import ArrayEmitter


class Unary(Elementwise):
    """Base of ops that are one of the emitter's unary functions, named by `function`."""

    function: ClassVar[str]

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """The emitter's function."""
        return e.unary(self.function, args[0])


@dataclass(frozen=True)
class Negate(Unary):
    """-x; unsigned and the smallest signed integers wrap around."""

    name: ClassVar[str] = "negate"
    function: ClassVar[str] = "neg"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """-g."""
        return (e.unary("neg", cotangent),)


@dataclass(frozen=True)
class Abs(Unary):
    """|x|; the smallest signed integer stays itself."""

    name: ClassVar[str] = "abs"
    function: ClassVar[str] = "abs"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g sign(x); 0 at 0."""
        return (e.binary("mul", cotangent, e.unary("sign", args[0])),)


@dataclass(frozen=True)
class Exp(Unary):
    """e ** x."""

    name: ClassVar[str] = "exp"
    function: ClassVar[str] = "exp"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g exp(x)."""
        return (e.binary("mul", cotangent, result),)


@dataclass(frozen=True)
class Expm1(Unary):
    """e ** x - 1, accurate near 0."""

    name: ClassVar[str] = "expm1"
    function: ClassVar[str] = "expm1"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g (expm1(x) + 1)."""
        return (e.binary("mul", cotangent, e.binary("add", result, e.constant(1.0, dtype))),)


@dataclass(frozen=True)
class Log(Unary):
    """Natural logarithm; -inf at 0, NaN below."""

    name: ClassVar[str] = "log"
    function: ClassVar[str] = "log"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g / x."""
        return (e.binary("div", cotangent, args[0]),)


@dataclass(frozen=True)
class Log1p(Unary):
    """log(1 + x), accurate near 0."""

    name: ClassVar[str] = "log1p"
    function: ClassVar[str] = "log1p"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g / (x + 1)."""
        return (e.binary("div", cotangent, e.binary("add", args[0], e.constant(1.0, dtype))),)


@dataclass(frozen=True)
class Sqrt(Unary):
    """Square root; NaN below 0."""

    name: ClassVar[str] = "sqrt"
    function: ClassVar[str] = "sqrt"
    kind: ClassVar[str] = "float"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g / (2 sqrt(x))."""
        return (e.binary("div", cotangent, e.binary("add", result, result)),)


@dataclass(frozen=True)
class Rsqrt(Unary):
    """1 / sqrt(x)."""

    name: ClassVar[str] = "rsqrt"
    function: ClassVar[str] = "rsqrt"
    kind: ClassVar[str] = "float"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """-g / (2 x^(3/2))."""
        cube = e.binary("mul", result, e.binary("mul", result, result))
        return (e.binary("mul", cotangent, e.binary("mul", cube, e.constant(-0.5, dtype))),)


@dataclass(frozen=True)
class Tanh(Unary):
    """Hyperbolic tangent."""

    name: ClassVar[str] = "tanh"
    function: ClassVar[str] = "tanh"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g (1 - tanh(x)^2)."""
        rest = e.binary("sub", e.constant(1.0, dtype), e.binary("mul", result, result))
        return (e.binary("mul", cotangent, rest),)


@dataclass(frozen=True)
class Logistic(Unary):
    """The logistic sigmoid 1 / (1 + exp(-x)), without overflow."""

    name: ClassVar[str] = "logistic"
    function: ClassVar[str] = "sigmoid"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g s (1 - s)."""
        rest = e.binary("sub", e.constant(1.0, dtype), result)
        return (e.binary("mul", cotangent, e.binary("mul", result, rest)),)


@dataclass(frozen=True)
class Erf(Unary):
    """The error function 2/sqrt(pi) * integral of exp(-t^2) from 0 to x."""

    name: ClassVar[str] = "erf"
    function: ClassVar[str] = "erf"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g 2/sqrt(pi) exp(-x^2)."""
        bell = e.unary("exp", e.unary("neg", e.binary("mul", args[0], args[0])))
        factor = e.constant(2 / math.sqrt(math.pi), dtype)
        return (e.binary("mul", cotangent, e.binary("mul", bell, factor)),)


@dataclass(frozen=True)
class Sine(Unary):
    """Sine of x in radians."""

    name: ClassVar[str] = "sine"
    function: ClassVar[str] = "sin"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g cos(x)."""
        return (e.binary("mul", cotangent, e.unary("cos", args[0])),)


@dataclass(frozen=True)
class Cosine(Unary):
    """Cosine of x in radians."""

    name: ClassVar[str] = "cosine"
    function: ClassVar[str] = "cos"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """-g sin(x)."""
        return (e.unary("neg", e.binary("mul", cotangent, e.unary("sin", args[0]))),)


@dataclass(frozen=True)
class Floor(Unary):
    """The largest integer not above x."""

    name: ClassVar[str] = "floor"
    function: ClassVar[str] = "floor"
    kind: ClassVar[str] = "float"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """None: constant between its steps."""
        return (None,)


@dataclass(frozen=True)
class Ceil(Unary):
    """The smallest integer not below x."""

    name: ClassVar[str] = "ceil"
    function: ClassVar[str] = "ceil"
    kind: ClassVar[str] = "float"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """None: constant between its steps."""
        return (None,)


@dataclass(frozen=True)
class RoundNearestEven(Unary):
    """The nearest integer; ties go to the even one (torch.round)."""

    name: ClassVar[str] = "round_nearest_even"
    function: ClassVar[str] = "round"
    kind: ClassVar[str] = "float"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """None: constant between its steps."""
        return (None,)


@dataclass(frozen=True)
class Not(Unary):
    """Logical not of bool, bitwise not of integers."""

    name: ClassVar[str] = "not"
    function: ClassVar[str] = "not"
    kind: ClassVar[str] = "logical"


@dataclass(frozen=True)
class Sign(Elementwise):
    """-1, 0 or 1 as x is below, at or above 0; NaN stays NaN and a signed zero keeps its sign."""

    name: ClassVar[str] = "sign"

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """Two comparisons, so that x itself is the answer where neither holds."""
        (x,) = args
        zero, one = e.constant(0, dtype), e.constant(1, dtype)
        positive = e.select(e.compare("gt", x, zero), one, x)
        if dtype is DType.U8:
            return positive
        return e.select(e.compare("lt", x, zero), e.constant(-1, dtype), positive)

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """None: constant between its steps."""
        return (None,)


@dataclass(frozen=True)
class IsNan(Unary):
    """True where x is not a number."""

    name: ClassVar[str] = "is_nan"
    function: ClassVar[str] = "isnan"
    kind: ClassVar[str] = "float"

    def result_dtype(self, operand: DType) -> DType:
        """bool."""
        return DType.BOOL


@dataclass(frozen=True)
class Convert(Elementwise):
    """The same value in another element type.

    Floats become integers by truncation toward zero (the result is unspecified for NaN and out of range), integers
    wrap around, floats round to nearest even, and bool is `x != 0`.
    """

    name: ClassVar[str] = "convert"
    kind: ClassVar[str] = "any"
    dtype: DType

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """One cast."""
        return e.cast(args[0], self.dtype)

    def result_dtype(self, operand: DType) -> DType:
        """The attribute."""
        return self.dtype

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """One conversion: no detour over f32, which would round twice."""
        with np.errstate(all="ignore"):
            result: Array = ArrayEmitter().cast(operands[0], self.dtype)
        return (result.copy() if result is operands[0] else result,)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """One conversion: no detour over f32, which would round twice."""
        return e.cast(read(0, index), self.dtype)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent in the operand's element type."""
        source = p.b.type_of(p.operands[0]).dtype
        return (p.arithmetic(p.b.type_of(p.results[0]).shape).cast(p.cotangent, source),)


@dataclass(frozen=True)
class StopGradient(Elementwise):
    """x itself; nothing flows back through it."""

    name: ClassVar[str] = "stop_gradient"
    kind: ClassVar[str] = "any"

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """The operand."""
        return args[0]

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """None: that is what it is for."""
        return (None,)
