"""The emitter's scalar functions as CUDA C: NumPy's meaning, precise library functions, no fast math.

Half precision takes part in conversions only: its values are float32 expressions that half precision can hold. Integers
narrower than 32 bits are computed in int32 and cut off again, as C would promote them without.
"""

from __future__ import annotations

from graphc.ir.dtype import DType
from graphc.lowering.cuda.emit import Expr, cast, computed, const, dtype_of, pure, select

_FLOATS = ("float32", "float64")
_NARROW = ("int8", "int16", "uint8")
_LIBRARY = {
    "exp": "exp",
    "expm1": "expm1",
    "log": "log",
    "log1p": "log1p",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "tanh": "tanh",
    "erf": "erf",
    "sin": "sin",
    "cos": "cos",
    "floor": "floor",
    "ceil": "ceil",
    "round": "rint",
    "abs": "fabs",
}


def convert(value: Expr, dtype: DType) -> Expr:
    """Floats truncate toward zero to integers and round to even to floats; bool is `!= 0`."""
    import tvm.tirx as tx

    target = computed(dtype)
    source = dtype_of(value)
    if target == "bool":
        return value if source == "bool" else tx.NE(value, const(0, source))
    if source == "bool":
        value, source = cast(value, "int32"), "int32"
    if dtype in (DType.F16, DType.BF16):
        return pure(f"graphc_round_{dtype}", "float32", cast(value, "float32"))
    if source in _FLOATS and target in _NARROW:
        value = cast(value, "int32")
    return cast(value, target)


def unary(name: str, value: Expr) -> Expr:
    """One of `Emitter.unary`'s functions."""
    import tvm.tirx as tx

    dtype = dtype_of(value)
    if name == "not":
        if dtype == "bool":
            return tx.EQ(cast(value, "int32"), const(0, "int32"))
        return value ^ const(255 if dtype == "uint8" else -1, dtype)
    if name == "isnan":
        return pure("graphc_isnan", "bool", value)
    if name == "neg":
        if dtype in _NARROW:
            return cast(const(0, "int32") - cast(value, "int32"), dtype)
        return const(-0.0 if dtype in _FLOATS else 0, dtype) - value
    if name == "sign":
        return pure("graphc_sign", dtype, value)
    if name == "sigmoid":
        return pure("graphc_sigmoid", dtype, value)
    if name == "abs" and dtype not in _FLOATS:
        if dtype == "uint8":
            return value
        return select(value < const(0, dtype), unary("neg", value), value)
    return pure(_LIBRARY[name] + ("f" if dtype == "float32" else ""), dtype, value)


def binary(name: str, a: Expr, b: Expr) -> Expr:
    """One of `Emitter.binary`'s functions."""
    dtype = dtype_of(a)
    if name in ("and", "or", "xor"):
        return _logical(name, a, b)
    if name in ("max", "min"):
        return pure(f"graphc_{name}", dtype, a, b)
    if name in ("floordiv", "mod"):
        kind = "float" if dtype in _FLOATS else "int"
        return pure(f"graphc_{name}_{kind}", dtype, a, b)
    if dtype in _NARROW:
        return cast(binary(name, cast(a, "int32"), cast(b, "int32")), dtype)
    if name == "add":
        return a + b
    if name == "sub":
        return a - b
    if name == "mul":
        return a * b
    if name == "div":
        from tvm.script.ir_builder import tirx as t

        return t.Div(a, b)
    if name == "pow":
        return _power(a, b)
    raise ValueError(f"no binary function is called {name!r}")


def _power(a: Expr, b: Expr) -> Expr:
    """As NumPy and PyTorch do, an exponent of 0.5 is `sqrt`, where C's `pow` differs at minus infinity."""
    dtype = dtype_of(a)
    exponent = getattr(b, "value", None)
    if exponent == 0.5:
        return unary("sqrt", a)
    if exponent == 2.0:
        return a * a
    return pure("powf" if dtype == "float32" else "pow", dtype, a, b)


def _logical(name: str, a: Expr, b: Expr) -> Expr:
    import tvm.tirx as tx

    if dtype_of(a) != "bool":
        return {"and": a & b, "or": a | b, "xor": a ^ b}[name]
    if name == "and":
        return tx.And(a, b)
    if name == "or":
        return tx.Or(a, b)
    return tx.NE(cast(a, "int32"), cast(b, "int32"))


def compare(name: str, a: Expr, b: Expr) -> Expr:
    """One of `Emitter.compare`'s relations: false for NaN, but for `ne`."""
    import tvm.tirx as tx

    if dtype_of(a) == "bool":
        a, b = cast(a, "int32"), cast(b, "int32")
    if name == "eq":
        return tx.EQ(a, b)
    if name == "ne":
        return tx.NE(a, b)
    return {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[name]
