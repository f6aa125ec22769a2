"""Elementary functions on vectors of any number of lanes, in plain arithmetic: no libm calls.

LLVM turns a vector ``exp`` or ``tanh`` into one library call per lane, an order of magnitude slower
than these polynomials. Every function takes and returns float32 or float64 expressions; float32
results are within about 4 ulp (2.5e-7 relative) of the exact value, float64 ones within 1e-15 unless
said otherwise. NaN in gives NaN out, and infinities, overflow and denormals behave as in NumPy.
Other dtypes raise :class:`TypeError`.

The file is long because a function is mostly its coefficients.

Sources: argument reductions and float32 polynomials after S. Moshier's Cephes; ``log`` in float64
after FreeBSD's msun (``e_log.c``); float32 ``tanh`` and ``erf`` are Eigen's rational functions;
float64 ``erf`` is a Chebyshev fit made with 50 digits, on Shepherd and Laframboise's variable (1981).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphc.lowering.cpu.emit import Expr, bind, cast, const, dtype_of, lanes_of, select

__all__ = [
    "absolute",
    "ceil",
    "cos",
    "erf",
    "exp",
    "exp2_nonpositive",
    "expm1",
    "floor",
    "is_nan",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "power",
    "power_constant",
    "relu",
    "round_even",
    "rsqrt",
    "sigmoid",
    "sin",
    "softplus",
    "sqrt",
    "tanh",
    "truncate",
]

_BITS = {"float32": 32, "float64": 64}
_MANTISSA = {"float32": 23, "float64": 52}
_BIAS = {"float32": 127, "float64": 1023}


def _constants(x: Expr, name: str) -> Callable[[float], Expr]:
    """A maker of constants with the type of ``x``, after checking that type."""
    dtype, lanes = dtype_of(x), lanes_of(x)
    if dtype not in _BITS:
        raise TypeError(f"{name} is defined for float32 and float64, not {dtype}")
    return lambda value: const(value, dtype, lanes)


def _intrinsic(name: str, *arguments: Expr) -> Expr:
    """An LLVM intrinsic overloaded on the type of its first argument."""
    from tvm.script.ir_builder import tirx as t

    x = arguments[0]
    lanes, dtype = lanes_of(x), dtype_of(x)
    suffix = f"f{_BITS[dtype]}" if lanes == 1 else f"v{lanes}f{_BITS[dtype]}"
    return t.call_llvm_pure_intrin(_typed(dtype, lanes), f"llvm.{name}.{suffix}", *arguments)


def _typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _reinterpret(x: Expr, dtype: str) -> Expr:
    from tvm.script.ir_builder import tirx as t

    return t.reinterpret(_typed(dtype, lanes_of(x)), x)


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    """The polynomial in ``x`` with ``coefficients`` from the highest power down."""
    c = _constants(x, "a polynomial")
    result = c(coefficients[0])
    for value in coefficients[1:]:
        result = result * x + c(value)
    return bind(result)


# ------------------------------------------------------------------- exact, one instruction or two


def is_nan(x: Expr) -> Expr:
    """Whether ``x`` is not a number, as a boolean vector.

    TVM folds ``x != x`` to false, for floats too; only its own ``isnan`` survives the simplifier.
    """
    from tvm.script.ir_builder import tirx as t

    return t.isnan(x)


def absolute(x: Expr) -> Expr:
    """``|x|`` of a float: the sign bit cleared."""
    _constants(x, "abs")
    return _intrinsic("fabs", x)


def floor(x: Expr) -> Expr:
    """The largest integer not above ``x``."""
    _constants(x, "floor")
    return _intrinsic("floor", x)


def ceil(x: Expr) -> Expr:
    """The smallest integer not below ``x``."""
    _constants(x, "ceil")
    return _intrinsic("ceil", x)


def truncate(x: Expr) -> Expr:
    """``x`` without its fraction."""
    _constants(x, "trunc")
    return _intrinsic("trunc", x)


def round_even(x: Expr) -> Expr:
    """The nearest integer, ties to even, as NumPy's ``round``."""
    _constants(x, "round")
    return _intrinsic("roundeven", x)


def sqrt(x: Expr) -> Expr:
    """The correctly rounded square root; NaN below zero."""
    _constants(x, "sqrt")
    return _intrinsic("sqrt", x)


def rsqrt(x: Expr) -> Expr:
    """``1 / sqrt(x)`` by division, not by the approximate instruction."""
    return _constants(x, "rsqrt")(1.0) / sqrt(x)


def maximum(a: Expr, b: Expr) -> Expr:
    """The larger of two values of any dtype; for floats NaN if either is, as ``np.maximum``."""
    if dtype_of(a) not in _BITS:
        return select(a > b, a, b)
    a, b = bind(a), bind(b)
    # `a > b ? a : b` is one instruction and already gives b's NaN.
    return select(is_nan(a), a, select(a > b, a, b))


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller of two values of any dtype; for floats NaN if either is, as ``np.minimum``."""
    if dtype_of(a) not in _BITS:
        return select(a < b, a, b)
    a, b = bind(a), bind(b)
    return select(is_nan(a), a, select(a < b, a, b))


def relu(x: Expr) -> Expr:
    """``max(x, 0)`` of any numeric dtype; NaN stays NaN."""
    x = bind(x)
    zero = const(0, dtype_of(x), lanes_of(x))
    return select(zero > x, zero, x)


# -------------------------------------------------------------------------------------- exponentials

_LOG2E = 1.4426950408889634
# ln 2 in two parts: the first has trailing zeros, so that n times it is exact.
_LN2 = {
    "float32": (0.693359375, -2.12194440e-4),
    "float64": (6.93147180369123816490e-01, 1.90821492927058770002e-10),
}
# (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2, highest power first.
_EXP = {
    "float32": (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    ),
    "float64": tuple(1 / math.factorial(k) for k in range(13, 1, -1)),
}


def _scale(n: Expr, dtype: str, shift: int = 0) -> Expr:
    """``2**(n + shift)`` for an integer-valued float ``n`` within the normal exponents, through the bits."""
    lanes = lanes_of(n)
    integer = f"int{_BITS[dtype]}"
    exponent = cast(n, integer) + const(_BIAS[dtype] + shift, integer, lanes)
    return _reinterpret(exponent << const(_MANTISSA[dtype], integer, lanes), dtype)


def _reduce_exp(x: Expr) -> tuple[Expr, Expr, Expr]:
    """``(n, r, e^r - 1)`` with ``x = n ln 2 + r`` and ``|r| <= ln(2) / 2``."""
    dtype = dtype_of(x)
    c = _constants(x, "exp")
    n = bind(round_even(x * c(_LOG2E)))
    high, low = _LN2[dtype]
    r = bind(x - n * c(high) - n * c(low))
    return n, r, bind(_horner(r, _EXP[dtype]) * (r * r) + r)


_EXP_RANGE = {"float32": (89.0, -104.0), "float64": (710.0, -746.0)}
"""Above, ``e**x`` is infinity, and below 0."""


def exp(x: Expr) -> Expr:
    """``e**x``; infinity above 88.72 (709.78 in float64), denormal and then zero far below."""
    c = _constants(x, "exp")
    dtype = dtype_of(x)
    top, bottom = _EXP_RANGE[dtype]
    x = bind(x)
    # What is zero is not computed: a product that underflows takes a hundred times as long as one that does not,
    # and of masked scores there are many.
    zero = x < c(bottom)
    clamped = bind(select(zero, c(0.0), select(x > c(top), c(top), x)))
    n, _, p = _reduce_exp(clamped)
    # 2^n in two factors: either alone stays within the normal exponents.
    half = bind(floor(n * c(0.5)))
    result = bind((p + c(1.0)) * _scale(half, dtype) * _scale(n - half, dtype))
    return bind(select(zero, c(0.0), result))


def _exp_nonpositive(x: Expr) -> Expr:
    """``e**x`` of at most 0, with the same results as `exp` and a fifth less to do."""
    c = _constants(x, "exp")
    dtype = dtype_of(x)
    x = bind(x)
    zero = x < c(_EXP_RANGE[dtype][1])
    n, _, p = _reduce_exp(bind(select(zero, c(0.0), x)))
    # 2^n may be denormal, 2^(n + shift) is not.
    shift = {"float32": 64, "float64": 512}[dtype]
    scale = _scale(n, dtype, shift)
    return bind(select(zero, c(0.0), (p + c(1.0)) * scale * c(2.0**-shift)))


# Cephes exp2f: (2^r - 1) / r for |r| <= 1/2.
_EXP2 = (
    1.535336188319500e-4,
    1.339887440266574e-3,
    9.618437357674640e-3,
    5.550332471162809e-2,
    2.402264791363012e-1,
    6.931472028550421e-1,
)


def exp2_nonpositive(x: Expr) -> Expr:
    """``2**x`` of a float32 of at most 0, as a softmax needs it: zero where it would be denormal."""
    c = _constants(x, "exp2")
    lanes = lanes_of(x)
    x = bind(x)
    least = c(-126.0)
    clamped = bind(select(x < least, least, x))
    n = bind(round_even(clamped))
    power = bind(_horner(bind(clamped - n), _EXP2) * (clamped - n) + c(1.0))
    # 2^n is added to the exponent: the power is between 0.7 and 1.5, and the sum normal.
    shifted = cast(n, "int32") << const(_MANTISSA["float32"], "int32", lanes)
    result = _reinterpret(_reinterpret(power, "int32") + shifted, "float32")
    return bind(select(x < least, c(0.0), result))


def expm1(x: Expr) -> Expr:
    """``e**x - 1`` without cancellation near zero."""
    c = _constants(x, "expm1")
    dtype = dtype_of(x)
    top, bottom = (89.0, -18.0) if dtype == "float32" else (710.0, -40.0)
    x = bind(x)
    clamped = bind(select(x > c(top), c(top), x))
    clamped = bind(select(clamped < c(bottom), c(bottom), clamped))
    n, _, p = _reduce_exp(clamped)
    # Half of everything, doubled at the end: 2^n itself may overflow where the result does not.
    half = bind(_scale(n - c(1.0), dtype))
    result = bind((p * half + (half - c(0.5))) * c(2.0))
    return select(x == c(0.0), x, result)


def sigmoid(x: Expr) -> Expr:
    """``1 / (1 + e**-x)``, exact to the last digits in both tails."""
    c = _constants(x, "sigmoid")
    x = bind(x)
    e = _exp_nonpositive(c(0.0) - absolute(x))
    return select(x < c(0.0), e, c(1.0)) / (c(1.0) + e)


def softplus(x: Expr) -> Expr:
    """``log(1 + e**x)`` as ``max(x, 0) + log1p(e**-|x|)``, which never overflows."""
    c = _constants(x, "softplus")
    x = bind(x)
    return relu(x) + log1p(_exp_nonpositive(c(0.0) - absolute(x)))


# Eigen's generic_fast_tanh_float: odd numerator, even denominator, in x^2.
_TANH_P = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def tanh(x: Expr) -> Expr:
    """The hyperbolic tangent."""
    c = _constants(x, "tanh")
    x = bind(x)
    if dtype_of(x) == "float64":
        a = bind(absolute(x))
        t = expm1(select(a > c(20.0), c(40.0), a + a))
        y = bind(t / (t + c(2.0)))
        return select(x < c(0.0), c(0.0) - y, y)
    bound = 7.90531110763549805
    v = bind(select(x > c(bound), c(bound), x))
    v = bind(select(v < c(-bound), c(-bound), v))
    z = bind(v * v)
    y = bind(v * _horner(z, _TANH_P) / _horner(z, _TANH_Q))
    # Exactly 1 where the function rounds to it: `1 + tanh(x)` must be 0, not a rounding error.
    y = bind(select(x > c(bound), c(1.0), y))
    y = bind(select(x < c(-bound), c(-1.0), y))
    return select(absolute(x) < c(4e-4), x, y)


# ---------------------------------------------------------------------------------------- logarithms

# Cephes logf: (log(1 + f) - f + f^2 / 2) / f^3.
_LOG_F32 = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
# msun e_log.c, Lg7 .. Lg1: (log(1 + f) - 2 s) / s^3 in s^2 with s = f / (2 + f).
_LOG_F64 = (
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
)


def log(x: Expr) -> Expr:
    """The natural logarithm; minus infinity at zero, NaN below."""
    c = _constants(x, "log")
    dtype, lanes = dtype_of(x), lanes_of(x)
    bits, mantissa = _BITS[dtype], _MANTISSA[dtype]
    integer = f"int{bits}"

    def i(value: int) -> Expr:
        return const(value, integer, lanes)

    x = bind(x)
    # Denormals are scaled into the normal numbers first.
    tiny = x < c(2.0 ** (2 - _BIAS[dtype]))
    v = bind(select(tiny, x * c(2.0 ** (mantissa + 2)), x))
    # v = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)): shift the boundary, split, shift back.
    raw = _reinterpret(v, integer)
    root = 0x3F3504F3 if dtype == "float32" else 0x3FE6A09E667F3BCD
    shifted = bind(raw - i(root))
    e = cast(shifted >> i(mantissa), dtype)
    e = bind(e - select(tiny, c(float(mantissa + 2)), c(0.0)))
    fraction = (shifted & i((1 << mantissa) - 1)) + i(root)
    f = bind(_reinterpret(fraction, dtype) - c(1.0))
    high, low = _LN2[dtype]
    if dtype == "float32":
        z = bind(f * f)
        y = f * z * _horner(f, _LOG_F32) + e * c(low) - z * c(0.5)
        result = f + y + e * c(high)
    else:
        s = bind(f / (f + c(2.0)))
        z = bind(s * s)
        half = bind(f * f * c(0.5))
        remainder = s * (half + z * _horner(z, _LOG_F64)) + e * c(low)
        result = e * c(high) - ((half - remainder) - f)
    result = select(x == c(math.inf), x, bind(result))
    result = select(x == c(0.0), c(-math.inf), result)
    # Also NaN itself: no comparison with it holds.
    return bind(select(x >= c(0.0), result, c(math.nan)))


def log1p(x: Expr) -> Expr:
    """``log(1 + x)`` without losing a small ``x``."""
    c = _constants(x, "log1p")
    x = bind(x)
    u = bind(x + c(1.0))
    # What the addition rounded away, to first order.
    lost = bind(x - (u - c(1.0)))
    correct = bind(lost / u)
    return bind(log(u) + select(absolute(correct) < c(1.0), correct, c(0.0)))


# ----------------------------------------------------------------------------------------------- erf

_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374052778905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
# erf(x) / x in x^2, |x| <= 0.75.
_ERF_SMALL = (
    -1.2711547089821422e-07,
    1.6044523839624666e-06,
    -1.489862284147446e-05,
    0.00012054266028326731,
    -0.0008548300832069432,
    0.005223977232952475,
    -0.02686617061128781,
    0.11283791670806737,
    -0.3761263890318123,
    1.1283791670955126,
)
# (1 + 2x) exp(x^2) erfc(x) for 0.75 <= x <= 6 in u = ((x - 3.75) / (x + 3.75) - mid) / half.
_ERFC_LARGE = (
    6.404270222082381e-13,
    -2.8869491186522333e-11,
    5.105900018549656e-12,
    1.2819946139006354e-09,
    -3.3187501958372955e-09,
    -4.540643269802893e-08,
    3.5146196334204453e-07,
    2.1105872594773965e-07,
    -1.976673402013375e-05,
    0.00017494467157545362,
    -0.000948888552439074,
    0.0037010109203774533,
    -0.010667491276023369,
    0.021290911197462386,
    -0.01874294163967779,
    -0.05579140585776538,
    1.267098493623131,
)
_ERFC_MID, _ERFC_HALF = -0.21794871794871795, 0.44871794871794873


def erf(x: Expr) -> Expr:
    """The error function."""
    c = _constants(x, "erf")
    x = bind(x)
    if dtype_of(x) == "float32":
        v = bind(select(x > c(4.0), c(4.0), x))
        v = bind(select(v < c(-4.0), c(-4.0), v))
        z = bind(v * v)
        return bind(v * (_horner(z, _ERF_P) / _horner(z, _ERF_Q)))
    a = bind(absolute(x))
    a = bind(select(a > c(6.0), c(6.0), a))
    z = bind(a * a)
    small = bind(a * _horner(z, _ERF_SMALL))
    u = ((a - c(3.75)) / (a + c(3.75)) - c(_ERFC_MID)) * c(1 / _ERFC_HALF)
    tail = _exp_nonpositive(c(0.0) - z) * _horner(bind(u), _ERFC_LARGE) / (a + a + c(1.0))
    y = bind(select(a < c(0.75), small, c(1.0) - tail))
    return select(x < c(0.0), c(0.0) - y, y)


# -------------------------------------------------------------------------------------- sine, cosine

# pi/2 in three parts (msun e_rem_pio2.c): the first two have 33 bits each.
_PIO2 = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
_SIN = {
    "float32": (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1),
    "float64": (
        1.58969099521155010221e-10,
        -2.50507602534068634195e-08,
        2.75573137070700676789e-06,
        -1.98412698298579493134e-04,
        8.33333333332248946124e-03,
        -1.66666666666666324348e-01,
    ),
}
_COS = {
    "float32": (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2),
    "float64": (
        -1.13596475577881948265e-11,
        2.08757232129817482790e-09,
        -2.75573143513906633035e-07,
        2.48015872894767294178e-05,
        -1.38888888888741095749e-03,
        4.16666666666666019037e-02,
    ),
}


def _sine(x: Expr, quarter: int, name: str) -> Expr:
    """``sin(x + quarter * pi / 2)``."""
    _constants(x, name)
    dtype = dtype_of(x)
    # Reduced in float64 for either type: a float32 argument loses nothing up to 2^30.
    wide = bind(cast(x, "float64"))
    w = _constants(wide, name)
    n = bind(round_even(wide * w(2 / math.pi)))
    r = wide
    for part in _PIO2:
        r = r - n * w(part)
    turn = bind(n + w(float(quarter)))
    quadrant = bind(turn - w(4.0) * floor(turn * w(0.25)))
    q, v = bind(cast(quadrant, dtype)), bind(cast(bind(r), dtype))
    c = _constants(v, name)
    z = bind(v * v)
    sine = bind(v + v * z * _horner(z, _SIN[dtype]))
    cosine = bind(c(1.0) - z * c(0.5) + z * z * _horner(z, _COS[dtype]))
    odd = (q == c(1.0)) | (q == c(3.0))
    y = bind(select(odd, cosine, sine))
    return bind(select(q >= c(2.0), c(0.0) - y, y))


def sin(x: Expr) -> Expr:
    """The sine; accurate for ``|x|`` up to 2**30, NaN at infinity."""
    return _sine(x, 0, "sin")


def cos(x: Expr) -> Expr:
    """The cosine; accurate for ``|x|`` up to 2**30, NaN at infinity."""
    return _sine(x, 1, "cos")


# ----------------------------------------------------------------------------------------------- pow


def power(x: Expr, y: Expr) -> Expr:
    """``x ** y`` with the sign and limit rules of C's ``pow``.

    float32 goes through float64 and is right to the last digit; float64 is ``exp(y log|x|)``, whose
    relative error grows with ``|y log x|`` to about 1e-13.
    """
    _constants(x, "pow")
    if dtype_of(x) == "float32":
        return bind(cast(power(cast(x, "float64"), cast(y, "float64")), "float32"))
    c = _constants(x, "pow")
    x, y = bind(x), bind(y)
    a = bind(absolute(x))
    size = bind(exp(y * log(a)))
    # log is 0 there, and 0 times an infinite or NaN exponent would be NaN.
    size = bind(select(a == c(1.0), c(1.0), size))
    integral = bind(floor(y)) == y
    half = bind(y * c(0.5))
    odd = integral & (floor(half) != half)
    # A product, not a difference: the opposite of 0 must be -0.
    signed = bind(select(odd, size * c(-1.0), size))
    undefined = bind(select(a == c(math.inf), size, c(math.nan)))
    negative = bind(select(integral, signed, undefined))
    result = bind(select(x < c(0.0), negative, size))
    # -0.0 is below zero here, as its reciprocal tells.
    below = c(1.0) / x < c(0.0)
    zero = bind(select(below, signed, size))
    result = bind(select(x == c(0.0), zero, result))
    # A NaN base stays NaN (log says so); anything to the power 0, and 1 to any power, is 1.
    result = bind(select(is_nan(x), x, result))
    return bind(select((y == c(0.0)) | (x == c(1.0)), c(1.0), result))


def power_constant(x: Expr, exponent: float) -> Expr:
    """``x ** exponent`` for a constant: products for integers up to 64 in size, roots for halves.

    As NumPy and PyTorch do, 0.5 is ``sqrt``: minus infinity gives NaN, where C's ``pow`` has infinity.
    """
    c = _constants(x, "pow")
    x = bind(x)
    if exponent == 0.5:
        return sqrt(x)
    if exponent == -0.5:
        return rsqrt(x)
    if float(exponent).is_integer() and abs(exponent) <= 64:
        result = None
        square, rest = x, int(abs(exponent))
        while rest:
            if rest & 1:
                result = square if result is None else bind(result * square)
            rest >>= 1
            if rest:
                square = bind(square * square)
        if result is None:
            return c(1.0)
        return c(1.0) / result if exponent < 0 else result
    return power(x, c(float(exponent)))
