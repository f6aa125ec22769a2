"""Vector mathematics against float64 NumPy and SciPy, on grids with every special value."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from graphc.lowering.cpu import emit, vmath
from graphc.lowering.cpu.emit import Expr, kernel

from .harness import TARGETS, build, can_run, guarded, misaligned, target_id

TINY = {dtype: float(np.finfo(dtype).smallest_subnormal) for dtype in ("float32", "float64")}
LANES = (1, 4, 8, 16)


def grid(dtype: str, low: float = -1e4, high: float = 1e4) -> np.ndarray:
    """Special values, both signs of every magnitude, a dense range; a multiple of 16 elements."""
    info = np.finfo(dtype)
    special_values = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0]
    special_values += [info.max, info.min, info.tiny, -info.tiny, TINY[dtype], -TINY[dtype]]
    exponents = np.linspace(np.log10(float(info.tiny)) - 6, np.log10(float(info.max)), 600)
    with np.errstate(all="ignore"):
        sizes = (10.0**exponents).astype(dtype)
    rng = np.random.default_rng(7)
    values = np.concatenate(
        [
            np.array(special_values, dtype),
            sizes,
            -sizes,
            np.linspace(-12, 12, 1501, dtype=dtype),
            np.linspace(-110, 110, 801, dtype=dtype),
            rng.uniform(low, high, 600).astype(dtype),
            (1 + rng.normal(size=400) * 0.01).astype(dtype),
        ]
    )
    return np.resize(values, -(-values.size // 16) * 16)


def evaluate(
    function: Callable[..., Expr], arrays: list[np.ndarray], target: object, lanes: int
) -> np.ndarray | None:
    """`function` applied to `arrays` by a compiled loop of `lanes`-wide vectors."""
    dtype, size = str(arrays[0].dtype), arrays[0].size
    names = [f"x{i}" for i in range(len(arrays))]
    pointers = {**dict.fromkeys(names, dtype), "y": dtype}
    with kernel("apply", pointers, public=True) as k:
        views = [k.view(name, (size,)) for name in names]
        y = k.view("y", (size,))
        with emit.loop(size // lanes) as i:
            index = (i * lanes,)
            y.store(function(*(v.load(index, lanes) for v in views)), index)
    run = build(k, target)
    for forbidden in (b"expf", b"logf", b"powf", b"tanhf", b"erff", b"sinf", b"libm"):
        assert forbidden not in run.object
    if not run.runnable:
        return None
    out, intact = guarded((size,), dtype)
    run(*(misaligned(a) for a in arrays), out)
    assert intact()
    return out.copy()


def assert_close(got: np.ndarray, want: np.ndarray, rtol: float, floor: float) -> None:
    """Equal where not finite, else within `rtol`, or `floor` in absolute terms."""
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    near_overflow = np.isinf(got) != np.isinf(rounded)
    assert not near_overflow.any(), want[near_overflow]
    infinite = np.isinf(rounded)
    assert np.array_equal(got[infinite], rounded[infinite])
    finite = np.isfinite(rounded)
    error = np.abs(got[finite].astype("float64") - want[finite])
    bound = rtol * np.abs(want[finite]) + floor
    worst = int(np.argmax(error - bound))
    assert (error <= bound).all(), (got[finite][worst], want[finite][worst])


UNARY: dict[str, tuple[Callable[[Expr], Expr], Callable[[np.ndarray], np.ndarray], float]] = {
    "exp": (vmath.exp, np.exp, 2.5e-7),
    "expm1": (vmath.expm1, np.expm1, 2.5e-7),
    "log": (vmath.log, np.log, 2.5e-7),
    "log1p": (vmath.log1p, np.log1p, 2.5e-7),
    "tanh": (vmath.tanh, np.tanh, 5e-7),
    "sigmoid": (vmath.sigmoid, special.expit, 3e-7),
    "softplus": (vmath.softplus, lambda x: np.logaddexp(0, x), 3e-7),
    "erf": (vmath.erf, special.erf, 5e-7),
    "sqrt": (vmath.sqrt, np.sqrt, 6.1e-8),
    "rsqrt": (vmath.rsqrt, lambda x: 1 / np.sqrt(x), 1.3e-7),
    "floor": (vmath.floor, np.floor, 0.0),
    "ceil": (vmath.ceil, np.ceil, 0.0),
    "truncate": (vmath.truncate, np.trunc, 0.0),
    "round_even": (vmath.round_even, np.round, 0.0),
    "absolute": (vmath.absolute, np.abs, 0.0),
    "relu": (vmath.relu, lambda x: np.maximum(x, 0), 0.0),
    "square": (lambda x: vmath.power_constant(x, 2.0), lambda x: x**2, 6.1e-8),
    "cube": (lambda x: vmath.power_constant(x, 3.0), lambda x: x**3, 1.8e-7),
    "root": (lambda x: vmath.power_constant(x, 0.5), np.sqrt, 6.1e-8),
    "inverse_root": (lambda x: vmath.power_constant(x, -0.5), lambda x: 1 / np.sqrt(x), 1.3e-7),
    "inverse": (lambda x: vmath.power_constant(x, -1.0), lambda x: 1 / x, 6.1e-8),
    "zeroth": (lambda x: vmath.power_constant(x, 0.0), lambda x: np.ones_like(x), 0.0),
    "odd_power": (lambda x: vmath.power_constant(x, 1.7), lambda x: x**1.7, 1.3e-7),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str, dtype: str) -> None:
    function, meaning, rtol = UNARY[name]
    x = grid(dtype)
    got = evaluate(function, [x], TARGETS[1], 8)
    if got is None:
        return
    with np.errstate(all="ignore"):
        want = meaning(x.astype("float64"))
    rtol = rtol if dtype == "float32" else max(rtol * 4e-9, 2.3e-16 if rtol else 0.0)
    if name == "odd_power" and dtype == "float64":
        rtol = 2e-13
    assert_close(got, want, rtol, TINY[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_exponential_of_what_is_not_positive_is_the_same(dtype: str) -> None:
    """To the bit: denormal results and NaN included."""
    x = -np.abs(np.concatenate([grid(dtype), np.linspace(0, 800, 20001).astype(dtype)]))
    got = evaluate(vmath._exp_nonpositive, [x], TARGETS[1], 8)
    want = evaluate(vmath.exp, [x], TARGETS[1], 8)
    if got is not None and want is not None:
        assert np.array_equal(got, want, equal_nan=True)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_results_do_not_depend_on_lanes(target: object, lanes: int) -> None:
    x = np.resize(grid("float32"), 1024)
    for function in (vmath.exp, vmath.log1p, vmath.tanh, vmath.cos):
        got = evaluate(function, [x], target, lanes)
        if got is not None:
            reference = evaluate(function, [x], target, 2)
            assert np.array_equal(got, reference, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sine_and_cosine(name: str, dtype: str) -> None:
    x = grid(dtype, -1e6, 1e6)
    x = x[~np.isfinite(x) | (np.abs(x) < 2.0**30)]
    x = np.resize(x, x.size // 16 * 16)
    got = evaluate(getattr(vmath, name), [x], TARGETS[1], 8)
    if got is None:
        return
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x.astype("float64"))
    # Next to a multiple of pi only the absolute error is meaningful in float64.
    assert_close(got, want, 2.5e-7, 1e-12) if dtype == "float32" else assert_close(
        got, want, 1e-15, 1e-15
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_power(dtype: str) -> None:
    base = np.array(
        [0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3.3, -3.3, np.inf, -np.inf, np.nan, 1e30, 1e-30], dtype
    )
    exponent = np.array(
        [0, -0.0, 1, -1, 2, 3, -3, 0.5, 1 / 3, np.inf, -np.inf, np.nan, 40, -7.5, 1e10], dtype
    )
    x, y = (a.ravel() for a in np.meshgrid(base, exponent))
    x, y = (np.resize(a, 240) for a in (x, y))
    got = evaluate(vmath.power, [x, y], TARGETS[1], 8)
    if got is None:
        return
    with np.errstate(all="ignore"):
        want = np.power(x.astype("float64"), y.astype("float64"))
    assert_close(got, want, 1.2e-7 if dtype == "float32" else 1e-13, TINY[dtype])
    zeros = (want == 0) & ~np.isnan(want)
    assert np.array_equal(np.signbit(got[zeros]), np.signbit(want[zeros]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("name", ["maximum", "minimum"])
@pytest.mark.parametrize("lanes", LANES)
def test_maximum_and_minimum_keep_nan(name: str, dtype: str, lanes: int) -> None:
    values = [0, 1, -1, 5, -7] + ([np.nan, np.inf, -np.inf] if dtype != "int32" else [])
    x, y = (np.resize(a.ravel(), 64).astype(dtype) for a in np.meshgrid(values, values))
    got = evaluate(getattr(vmath, name), [x, y], TARGETS[1], lanes)
    if got is not None:
        assert np.array_equal(got, getattr(np, name)(x, y), equal_nan=dtype != "int32")


def test_wrong_dtype_is_refused() -> None:
    for function in (vmath.exp, vmath.sqrt, vmath.erf, vmath.sin):
        with (
            pytest.raises(TypeError, match="float32 and float64, not int32"),
            kernel("bad", {"x": "int32"}, public=True) as k,
        ):
            function(k.view("x", (4,)).load((0,), 4))


def test_targets_of_this_machine_are_named() -> None:
    assert any(can_run(t) for t in TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=target_id)
def test_powers_of_two_below_one(target: object) -> None:
    x = grid("float32")
    x = np.resize(x[~(x > 0)], x.size)
    got = evaluate(vmath.exp2_nonpositive, [x], target, 4)
    if got is not None:
        with np.errstate(all="ignore"):
            want = np.exp2(x.astype("float64"))
        assert_close(got, want, 2.5e-7, float(np.finfo("float32").tiny))
        assert (got[x < -126] == 0).all() and (got[x == 0] == 1).all()
