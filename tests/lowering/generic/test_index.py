"""Index polynomials: proofs are sound, strides are what they say, lanes leave quotients."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.ir.dim import Bounds, Dim, DimLike, evaluate, floordiv, names_of
from graphc.lowering.generic import index as ix
from graphc.lowering.generic.index import Condition, Space

small = st.integers(-6, 6)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(small, small, small, small, st.integers(1, 5), st.integers(1, 5))
def test_what_is_proved_holds_everywhere(
    a: int, b: int, c: int, d: int, steps: int, n: int
) -> None:
    space = Space({"N": Bounds(1, 5)})
    size = Dim.symbol("N")
    i, j = space.symbol(0, steps - 1), space.symbol(0, size - 1)
    value: DimLike = a * i + b * j + c * size + d
    truths = []
    for x, m in itertools.product(range(steps), range(1, 6)):
        for y in range(m):
            truths.append(evaluate(value, {i.names[0]: x, j.names[0]: y, "N": m}) >= 0)
    if space.proves(value):
        assert all(truths)
    decided = space.decide(ix.compare("ge", value, 0))
    assert decided is None or all(t is decided for t in truths)
    assert n  # drawn so that shrinking has something to do besides the coefficients


def test_the_end_of_a_loop_is_inside() -> None:
    space = Space({"T": Bounds()})
    size = Dim.symbol("T")
    i = space.symbol(0, size - 1)
    assert space.proves(size - 1 - i)
    assert not space.proves(size - 2 - i)
    test = ix.both(ix.compare("ge", i, 1), ix.compare("lt", i, size - 1))
    assert isinstance(test, Condition)
    assert space.decide(test) is None
    with space.assuming(test):
        assert space.decide(test) is True
        assert space.proves(i - 1)
    with space.assuming(test, False):
        assert space.decide(test) is False
    with space.assuming(Condition(test.tests[:1]), False):
        assert space.decide(test) is False
        assert space.proves(-1 * i)


def test_splitting_and_merging_dimensions_cancels() -> None:
    n, p = Dim.symbol("N"), Dim.symbol("%9")
    shape = (n, 3, 16, 4)
    assert ix.flatten(ix.unflatten(p, shape), shape) == p
    for position in (0, 17, 100, 191, 400):
        index = [evaluate(i, {"%9": position, "N": 5}) for i in ix.unflatten(p, shape)]
        assert tuple(index) == np.unravel_index(position, (5, 3, 16, 4))


def test_strides() -> None:
    n, i, j = Dim.symbol("N"), Dim.symbol("%1"), Dim.symbol("%2")
    assert ix.linear(n * i + j + 3, "%1") == (j + 3, n)
    assert ix.linear(floordiv(i, 2) + j, "%1") is None
    assert ix.linear(i * i, "%1") is None
    assert ix.linear(7, "%1") == (7, 0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(1, 64), st.integers(0, 20), st.integers(1, 3))
def test_settling_a_lane_changes_no_value(unit: int, by: int, shift: int, stride: int) -> None:
    i, lane = Dim.symbol("%1"), Dim.symbol("%2")
    value = floordiv(16 * unit * i + stride * lane + shift, by)
    settled = ix.settle(value, "%2", 16)
    for x, y in itertools.product(range(5), range(16)):
        env = {"%1": x, "%2": y}
        assert evaluate(settled, env) == evaluate(value, env)
    if by % (16 * unit) == 0 and stride == 1 and shift % 16 == 0:
        assert "%2" not in names_of(settled)


def test_conditions_fold_where_nothing_is_left() -> None:
    assert ix.compare("lt", 3, 4) is True
    assert ix.compare("ne", Dim.symbol("N"), Dim.symbol("N")) is False
    assert ix.both(True, False) is False
    i = Dim.symbol("%1")
    test = ix.compare("lt", i, 4)
    assert isinstance(test, Condition)
    assert ix.replaced(test, {"%1": 2}) is True
    assert ix.replaced(test, {"%1": 4}) is False
