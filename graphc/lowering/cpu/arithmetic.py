"""The emitter's scalar functions over TIR expressions of any element type and number of lanes.

Operands may differ in lanes, one being a scalar; the scalar is repeated. Results have NumPy's
meaning: NaN propagates through `max` and `min`, integer `floordiv` and `mod` follow the sign of the
divisor, integers wrap around. float16 takes part in `cast` and `select` only, ops
convert to float32 first; bfloat16 values are float32 expressions with 16 zero bits. uint8 is
computed in int32, for TVM's simplifier takes unsigned differences for an error.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.dtype import DType
from graphc.lowering.cpu import vmath
from graphc.lowering.cpu.emit import (
    Expr,
    as_named,
    bind,
    cast,
    const,
    dtype_of,
    is_named,
    lanes_of,
    select,
    splat,
    stored,
)

_FLOATS = ("float32", "float64")


def tir_name(dtype: DType) -> str:
    """TVM's name of the type that expressions of an element type have: bfloat16 is widened."""
    return "float32" if dtype is DType.BF16 else str(dtype.numpy)


def same_lanes(*values: Expr) -> tuple[Expr, ...]:
    """The values with the scalars among them repeated to the lanes of the others."""
    lanes = max(lanes_of(v) for v in values)
    return tuple(splat(v, lanes) for v in values)


def named(value: Expr) -> Expr:
    """`bind` for every type: vectors of booleans wait as bytes, which LLVM turns back into masks."""
    if dtype_of(value) != "bool" or lanes_of(value) == 1 or is_named(value):
        return bind(value)
    return as_named(nonzero(bind(cast(value, "uint8"))))


def nonzero(value: Expr) -> Expr:
    """`value != 0`, lane by lane; true for NaN."""
    return _unequal(value, const(0, dtype_of(value), lanes_of(value)))


def _unequal(a: Expr, b: Expr) -> Expr:
    """`a != b`. TVM's own comparison of floats is false for NaN."""
    import tvm.tirx as tx

    differ = tx.NE(a, b)
    if dtype_of(a) in _FLOATS:
        return tx.Or(differ, tx.Or(vmath.is_nan(a), vmath.is_nan(b)))
    return differ


def as_int(value: Expr) -> Expr:
    """A boolean as int32 1 or 0."""
    lanes = lanes_of(value)
    return select(value, const(1, "int32", lanes), const(0, "int32", lanes))


def literal(value: Expr) -> float | int | None:
    """The number an expression consists of, in every lane, or None."""
    value = getattr(value, "value", value) if type(value).__name__ == "Broadcast" else value
    if type(value).__name__ in ("FloatImm", "IntImm"):
        number: float | int = value.value
        return number
    return None


def convert(value: Expr, dtype: DType) -> Expr:
    """Conversion: floats truncate toward zero to integers, round to even to floats; bool is `!= 0`.

    To bfloat16 it is `bfloat.rounded`, which knows the target.
    """
    source, target = dtype_of(value), tir_name(dtype)
    if source == target:
        return value
    if target == "bool":
        return nonzero(cast(value, "float32") if source == "float16" else value)
    if source == "bool":
        value, source = as_int(value), "int32"
    if "float16" in (source, target) and "float32" not in (source, target):
        value = cast(value, "float32")
    return cast(value, target)


def unary(name: str, value: Expr) -> Expr:
    """One of `Emitter.unary`'s functions."""
    dtype, lanes = dtype_of(value), lanes_of(value)
    if name == "not":
        return _not(value)
    if name == "neg" and dtype == "uint8":
        return cast(unary(name, cast(value, "int32")), dtype)
    if name == "neg":
        return const(-0.0 if dtype in _FLOATS else 0, dtype, lanes) - value
    if name == "isnan":
        return vmath.is_nan(value)
    if name == "abs" and dtype not in _FLOATS:
        zero = const(0, dtype, lanes)
        return value if dtype == "uint8" else select(value < zero, zero - value, value)
    if name == "sign":
        zero, one = const(0, dtype, lanes), const(1, dtype, lanes)
        below = select(
            compare("lt", value, zero), const(-1 if dtype != "uint8" else 0, dtype, lanes), value
        )
        return select(compare("gt", value, zero), one, below)
    return _FUNCTIONS[name](value)


_FUNCTIONS: dict[str, Callable[[Expr], Expr]] = {
    "abs": vmath.absolute,
    "exp": vmath.exp,
    "expm1": vmath.expm1,
    "log": vmath.log,
    "log1p": vmath.log1p,
    "sqrt": vmath.sqrt,
    "rsqrt": vmath.rsqrt,
    "tanh": vmath.tanh,
    "sigmoid": vmath.sigmoid,
    "erf": vmath.erf,
    "sin": vmath.sin,
    "cos": vmath.cos,
    "floor": vmath.floor,
    "ceil": vmath.ceil,
    "round": vmath.round_even,
}


def _not(value: Expr) -> Expr:
    if dtype_of(value) == "bool":
        import tvm.tirx as tx

        # Not `tx.Not`: TVM turns `not a < b` into `a >= b`, which is another thing for NaN.
        return tx.EQ(as_int(value), const(0, "int32", lanes_of(value)))
    return value ^ const(
        255 if dtype_of(value) == "uint8" else -1, dtype_of(value), lanes_of(value)
    )


def binary(name: str, a: Expr, b: Expr) -> Expr:
    """One of `Emitter.binary`'s functions."""
    a, b = same_lanes(a, b)
    if name in ("and", "or", "xor"):
        return _logical(name, a, b)
    if dtype_of(a) == "uint8":
        return cast(binary(name, cast(a, "int32"), cast(b, "int32")), "uint8")
    if name == "add":
        return a + b
    if name == "sub":
        return a - b
    if name == "mul":
        return a * b
    if name == "div":
        from tvm.script.ir_builder import tirx as t

        return t.Div(a, b)
    if name in ("max", "min"):
        return _extreme(name, a, b)
    if name == "pow":
        exponent = literal(b)
        return vmath.power(a, b) if exponent is None else vmath.power_constant(a, exponent)
    if name not in ("floordiv", "mod"):
        raise ValueError(f"no binary function is called {name!r}")
    quotient, remainder = (_float_divmod if dtype_of(a) in _FLOATS else _int_divmod)(a, b)
    return quotient if name == "floordiv" else remainder


def _logical(name: str, a: Expr, b: Expr) -> Expr:
    import tvm.tirx as tx

    if dtype_of(a) != "bool":
        return {"and": a & b, "or": a | b, "xor": a ^ b}[name]
    if name == "and":
        return tx.And(a, b)
    if name == "or":
        return tx.Or(a, b)
    return tx.NE(as_int(a), as_int(b))


def _extreme(name: str, a: Expr, b: Expr) -> Expr:
    for x, limit in ((a, b), (b, a)):
        number = literal(limit)
        if number is not None and number == number:
            # `limit > x ? limit : x` is one instruction, and x where x is NaN.
            x = bind(x)
            return select(limit > x if name == "max" else limit < x, limit, x)
    return vmath.maximum(a, b) if name == "max" else vmath.minimum(a, b)


def _int_divmod(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Quotient rounded down, and the remainder with the divisor's sign; b is not 0 or -1."""
    from tvm.script.ir_builder import tirx as t

    a, b = bind(a), stored(b)
    dtype, lanes = dtype_of(a), lanes_of(a)
    zero, one = const(0, dtype, lanes), const(1, dtype, lanes)
    quotient = bind(t.truncdiv(a, b))
    rest = bind(a - quotient * b)
    import tvm.tirx as tx

    off = named(tx.And(tx.NE(rest, zero), (rest ^ b) < zero))
    return select(off, quotient - one, quotient), select(off, rest + b, rest)


def _float_divmod(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """NumPy's floored division of floats, in float64: exact while the quotient is below 2^29 (2^52)."""
    import tvm.tirx as tx

    dtype, lanes = dtype_of(a), lanes_of(a)
    x, y = bind(cast(a, "float64")), bind(cast(b, "float64"))
    zero, one = const(0.0, "float64", lanes), const(1.0, "float64", lanes)
    infinite = named(tx.EQ(vmath.absolute(y), const(float("inf"), "float64", lanes)))
    safe = bind(select(infinite, one, y))
    whole = bind(vmath.truncate(binary("div", x, safe)))
    rest = bind(x - whole * safe)
    # A finite number divided by an infinite one is 0 times it, and itself is what is left.
    finite = vmath.absolute(x) < const(float("inf"), "float64", lanes)
    rest = bind(select(tx.And(infinite, finite), x, rest))
    whole = bind(select(infinite, zero * x, whole))
    off = named(tx.And(tx.NE(rest, zero), _logical("xor", rest < zero, y < zero)))
    quotient = select(off, whole - one, whole)
    remainder = select(off, rest + y, select(tx.EQ(rest, zero), zero * y, rest))
    # NumPy: what has no remainder (an infinite dividend) has no quotient either.
    quotient = select(vmath.is_nan(rest), rest, quotient)
    by_zero = tx.EQ(y, zero)
    quotient = select(by_zero, binary("div", x, y), quotient)
    remainder = select(by_zero, const(float("nan"), "float64", lanes), remainder)
    return cast(quotient, dtype), cast(remainder, dtype)


def compare(name: str, a: Expr, b: Expr) -> Expr:
    """One of `Emitter.compare`'s relations."""
    import tvm.tirx as tx

    a, b = same_lanes(a, b)
    if dtype_of(a) == "bool":
        a, b = as_int(a), as_int(b)
    if dtype_of(a) == "uint8":
        a, b = cast(a, "int32"), cast(b, "int32")
    if name == "eq":
        return tx.EQ(a, b)
    if name == "ne":
        return _unequal(a, b)
    return {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[name]


def choose(condition: Expr, a: Expr, b: Expr) -> Expr:
    """`a` where the condition holds, else `b`."""
    condition, a, b = same_lanes(condition, a, b)
    return select(condition, a, b)
