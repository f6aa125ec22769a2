"""Elementwise ops of two or three operands. Shapes are equal: `functional.py` broadcasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dtype import DType
from graphc.ir.op import Array, Emitter, Expr, OpError, Read
from graphc.ir.types import TensorType
from graphc.ops.elementwise import Arithmetic, Elementwise
from graphc.ops.errors import check_kind, check_same_dtype


class Binary(Elementwise):
    """Base of ops that are one of the emitter's binary functions, named by `function`."""

    arity: ClassVar[int | None] = 2
    function: ClassVar[str]

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """The emitter's function."""
        return e.binary(self.function, args[0], args[1])


def _to_the_winner(
    e: Arithmetic, dtype: DType, cotangent: Expr, a: Expr, b: Expr
) -> tuple[Expr, Expr]:
    """The cotangents of a and b in max(a, b), or of b and a in min(a, b); NaN wins (PyTorch)."""
    shared = e.select(
        e.compare("eq", a, b), e.binary("mul", cotangent, e.constant(0.5, dtype)), cotangent
    )
    zero = e.constant(0.0, dtype)
    return (
        e.select(e.compare("lt", a, b), zero, shared),
        e.select(e.compare("lt", b, a), zero, shared),
    )


@dataclass(frozen=True)
class Add(Binary):
    """a + b; integers wrap around."""

    name: ClassVar[str] = "add"
    function: ClassVar[str] = "add"
    commutative: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g to both."""
        return cotangent, cotangent


@dataclass(frozen=True)
class Subtract(Binary):
    """a - b; integers wrap around."""

    name: ClassVar[str] = "subtract"
    function: ClassVar[str] = "sub"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g and -g."""
        return cotangent, e.unary("neg", cotangent)


@dataclass(frozen=True)
class Multiply(Binary):
    """a * b; integers wrap around."""

    name: ClassVar[str] = "multiply"
    function: ClassVar[str] = "mul"
    commutative: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g b and g a."""
        a, b = args
        return e.binary("mul", cotangent, b), e.binary("mul", cotangent, a)


@dataclass(frozen=True)
class Divide(Binary):
    """a / b as IEEE 754 has it. Integers are converted by the caller or use `FloorDivide`."""

    name: ClassVar[str] = "divide"
    function: ClassVar[str] = "div"
    kind: ClassVar[str] = "float"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g / b and -g (a / b) / b."""
        share = e.binary("div", cotangent, args[1])
        return share, e.unary("neg", e.binary("mul", share, result))


@dataclass(frozen=True)
class Power(Binary):
    """a ** b: NaN for a negative base and a fractional exponent, 1 for exponent 0."""

    name: ClassVar[str] = "power"
    function: ClassVar[str] = "pow"
    kind: ClassVar[str] = "float"
    expensive: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g b a^(b-1) and g a^b log(a), each 0 where a is 0 and its limit does not exist (PyTorch)."""
        a, b = args
        zero, one = e.constant(0.0, dtype), e.constant(1.0, dtype)
        origin = e.compare(
            "eq", a, zero
        )  # b a^(b-1) at 0^0, and a^b log(a) at 0^b, would be 0 * inf
        flat = e.binary("and", origin, e.compare("eq", b, zero))
        slope = e.binary("mul", b, e.binary("pow", e.select(flat, one, a), e.binary("sub", b, one)))
        grows = e.binary("and", origin, e.compare("ge", b, zero))
        rate = e.binary("mul", result, e.unary("log", e.select(grows, one, a)))
        return e.binary("mul", cotangent, slope), e.binary("mul", cotangent, rate)


@dataclass(frozen=True)
class Maximum(Binary):
    """The larger one; NaN if either is NaN."""

    name: ClassVar[str] = "maximum"
    function: ClassVar[str] = "max"
    commutative: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g to the larger one, half to each where they are equal (PyTorch)."""
        return _to_the_winner(e, dtype, cotangent, *args)


@dataclass(frozen=True)
class Minimum(Binary):
    """The smaller one; NaN if either is NaN."""

    name: ClassVar[str] = "minimum"
    function: ClassVar[str] = "min"
    commutative: ClassVar[bool] = True

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g to the smaller one, half to each where they are equal (PyTorch)."""
        return _to_the_winner(e, dtype, cotangent, *args[::-1])


@dataclass(frozen=True)
class And(Binary):
    """Logical and of bool, bitwise and of integers."""

    name: ClassVar[str] = "and"
    function: ClassVar[str] = "and"
    kind: ClassVar[str] = "logical"
    commutative: ClassVar[bool] = True


@dataclass(frozen=True)
class Or(Binary):
    """Logical or of bool, bitwise or of integers."""

    name: ClassVar[str] = "or"
    function: ClassVar[str] = "or"
    kind: ClassVar[str] = "logical"
    commutative: ClassVar[bool] = True


@dataclass(frozen=True)
class Xor(Binary):
    """Logical exclusive or of bool, bitwise exclusive or of integers."""

    name: ClassVar[str] = "xor"
    function: ClassVar[str] = "xor"
    kind: ClassVar[str] = "logical"
    commutative: ClassVar[bool] = True


class _Division(Binary):
    """Division with Python's rounding, total on integers: no divisor traps the processor."""

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """Integer divisors 0 and -1 are answered beside the division (min // -1 overflows)."""
        a, b = args
        if dtype.is_float:
            return e.binary(self.function, a, b)
        zero, one = e.constant(0, dtype), e.constant(1, dtype)
        by_zero = e.compare("eq", b, zero)
        whole = self.function == "floordiv"
        if dtype is DType.U8:
            result = e.binary(self.function, a, e.select(by_zero, one, b))
        else:
            by_minus_one = e.compare("eq", b, e.constant(-1, dtype))
            safe = e.select(e.binary("or", by_zero, by_minus_one), one, b)
            quotient = e.binary(self.function, a, safe)
            result = e.select(by_minus_one, e.unary("neg", a), quotient) if whole else quotient
        return e.select(by_zero, zero, result)


@dataclass(frozen=True)
class FloorDivide(_Division):
    """a // b rounded down, as in Python and NumPy. An integer divided by 0 gives 0."""

    name: ClassVar[str] = "floor_divide"
    function: ClassVar[str] = "floordiv"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """None: constant between its steps."""
        return None, None


@dataclass(frozen=True)
class Remainder(_Division):
    """a % b with the sign of b, as in Python and NumPy. An integer modulo 0 gives 0."""

    name: ClassVar[str] = "remainder"
    function: ClassVar[str] = "mod"

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g and -g floor(a / b)."""
        whole = e.binary("floordiv", *args)
        return cotangent, e.unary("neg", e.binary("mul", cotangent, whole))


@dataclass(frozen=True)
class Compare(Elementwise):
    """`a direction b` as bool, direction being eq, ne, lt, le, gt or ge. NaN is unequal to everything."""

    name: ClassVar[str] = "compare"
    arity: ClassVar[int | None] = 2
    kind: ClassVar[str] = "any"
    direction: str

    def check_dtypes(self, operands: Sequence[TensorType]) -> None:
        """Raises OpError E0206 for different element types, E0207 for an unknown direction."""
        if self.direction not in ("eq", "ne", "lt", "le", "gt", "ge"):
            raise OpError(f"compare has no direction {self.direction!r}", code="E0207")
        super().check_dtypes(operands)

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """The emitter's comparison."""
        return e.compare(self.direction, args[0], args[1])

    def result_dtype(self, operand: DType) -> DType:
        """bool."""
        return DType.BOOL


@dataclass(frozen=True)
class Select(Elementwise):
    """`on_true` where the bool `pred` holds, else `on_false`; operands (pred, on_true, on_false)."""

    name: ClassVar[str] = "select"
    arity: ClassVar[int | None] = 3

    def check_dtypes(self, operands: Sequence[TensorType]) -> None:
        """Raises OpError E0206 unless pred is bool and the branches have one element type."""
        check_kind(self.name, operands[0], "bool", 0)
        check_same_dtype(self.name, operands, first=1)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The branches' type. Raises OpError E0202 or E0206."""
        super().infer(*operands)
        return (operands[1],)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The chosen elements, bit for bit."""
        return (np.where(*operands),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The chosen element, bit for bit."""
        return e.select(read(0, index), read(1, index), read(2, index))

    def formula(self, e: Arithmetic, dtype: DType, *args: Expr) -> Expr:
        """The emitter's selection."""
        return e.select(*args)

    def pullback(
        self, e: Arithmetic, dtype: DType, cotangent: Expr, result: Expr, *args: Expr
    ) -> tuple[Expr | None, ...]:
        """g where it was chosen, 0 elsewhere."""
        zero = e.constant(0.0, dtype)
        return None, e.select(args[0], cotangent, zero), e.select(args[0], zero, cotangent)
