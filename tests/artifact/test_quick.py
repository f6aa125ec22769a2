"""The short way from CPython into a module: it gives what the general way gives, and keeps nothing."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphc.artifact import Module, ModuleClosedError, ModuleError, ModuleIndexError, quick
from graphc.artifact import open as open_module
from graphc.artifact.spec import DimSpec, KernelInfo, ModuleSpec, Port
from tests.artifact.conftest import Build
from tests.artifact.modules import N, linear

X = np.arange(8, dtype=np.float32).reshape(2, 4) / 4


class RefusedError(Exception):
    """The short way was left where it should have been taken."""


@pytest.fixture
def only_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first call of each shape, the general way is an error."""

    def refuse(*_: object) -> None:
        raise RefusedError

    monkeypatch.setattr(Module, "_gather", refuse)


def answer(module: Module, general: bool, *args: object, **inputs: object) -> object:
    """Outputs as bytes, or the error's type and words."""
    try:
        found = Module.__call__(module, *args, **inputs) if general else module(*args, **inputs)  # type: ignore[arg-type]
    except ModuleError as error:
        return type(error), str(error)
    return {k: (v.dtype, v.shape, v.flags.carray, v.tobytes()) for k, v in found.items()}


def frozen(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def crooked(array: np.ndarray) -> np.ndarray:
    """A copy that is not aligned to its elements."""
    raw = np.zeros(array.nbytes + 1, np.uint8)
    place = raw[1:].view(array.dtype).reshape(array.shape)
    place[...] = array
    return place


class Own(np.ndarray):
    """A kind of array that is not NumPy's own."""


@pytest.mark.parametrize(
    "value",
    [X, X[:1], frozen(X), crooked(X), np.asfortranarray(X), np.hstack([X, X])[:, ::2], X[::-1], X.view(Own), X.tolist(),
     X.astype(np.float64), X.astype(">f4"), X[:, :3], X[None], X[0], X[:0], np.float32(1), 1.0, None, "text",
     np.array(None), memoryview(X)],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_both_ways_agree(linear_module: Module, value: object) -> None:
    linear_module(x=X)
    linear_module(x=X[:1])
    for _ in range(2):
        want = answer(linear_module, True, x=value)
        assert answer(linear_module, False, x=value) == want
        assert answer(linear_module, False, value) == want


@pytest.mark.parametrize(
    ("args", "inputs"),
    [((), {}), ((X, X), {}), ((X,), {"x": X}), ((), {"y": X}), ((), {"x": X, "y": X})],
)
def test_both_ways_agree_about_names(
    linear_module: Module, args: tuple[object, ...], inputs: dict[str, object]
) -> None:
    linear_module(x=X)
    assert answer(linear_module, False, *args, **inputs) == answer(
        linear_module, True, *args, **inputs
    )


@pytest.mark.parametrize("inputs", [{}, {"y": X}, {"x": X, "y": X}, {"x": X[:, :3]}])
def test_run_and_a_call_agree(linear_module: Module, inputs: dict[str, object]) -> None:
    """About errors, which `run` finds on its way to the short one."""
    linear_module(x=X)
    with pytest.raises(ModuleError) as error:
        linear_module.run(inputs)
    assert (type(error.value), str(error.value)) == answer(linear_module, True, **inputs)


def test_the_second_call_takes_it(linear_module: Module, request: pytest.FixtureRequest) -> None:
    for n in (1, 2):
        linear_module(x=X[:n])
    request.getfixturevalue("only_quick")
    for n in (1, 2, 1):
        np.testing.assert_allclose(linear_module(x=X[:n])["y"], linear(X[:n]), rtol=1e-6)
        np.testing.assert_allclose(linear_module(X[:n])["y"], linear(X[:n]), rtol=1e-6)
        for inputs in ({"x": X[:n]}, [X[:n]]):
            np.testing.assert_allclose(linear_module.run(inputs)["y"], linear(X[:n]), rtol=1e-6)
    for other in (X.tolist(), X[::-1], np.ones((3, 4), np.float32)):
        with pytest.raises(RefusedError):
            linear_module(x=other)
    with pytest.raises(RefusedError):
        linear_module(x=X, out={"y": np.empty((2, 3), np.float32)})


def test_the_oldest_of_many_shapes_goes(
    linear_module: Module, request: pytest.FixtureRequest
) -> None:
    arrays = [np.ones((n, 4), np.float32) for n in range(1, quick.PLANS + 2)]
    for x in arrays:
        linear_module(x=x)
    request.getfixturevalue("only_quick")
    for x in arrays[1:]:
        assert linear_module(x=x)["y"].shape == (len(x), 3)
    with pytest.raises(RefusedError):
        linear_module(x=arrays[0])


def test_an_index_out_of_range_is_the_same_error(lookup_module: Module) -> None:
    good, bad = np.array([1, 2]), np.array([1, 9])
    lookup_module(index=good)
    for _ in range(3):
        want = answer(lookup_module, True, index=bad)
        assert isinstance(want, tuple) and want[0] is ModuleIndexError
        assert answer(lookup_module, False, index=bad) == want
        np.testing.assert_array_equal(lookup_module(index=good)["y"], [10, 20])


def test_empty_inputs(lookup_module: Module) -> None:
    empty = np.empty(0, np.int64)
    for _ in range(3):
        assert lookup_module(index=empty)["y"].shape == (0,)


COUNT = """
#include <stdint.h>
int32_t graphc_main(float *total, const float *x, const void *weights, void *arena, float *y,
                    int64_t *fault, uint64_t *clock) {
    *y = *total += *x;
    return 0;
}
"""


@pytest.fixture
def count(build: Build) -> Iterator[Module]:
    """Adds x to its state; the output has no axes."""
    spec = ModuleSpec(
        "Count",
        (Port("total", "f32", (), state=True), Port("x", "f32", ())),
        (Port("y", "f32", ()),),
    )
    with open_module(build(spec, COUNT)) as module:
        yield module


def test_state_is_written_in_place(count: Module) -> None:
    state, one = count.initial_state(), np.ones((), np.float32)
    for i in range(1, 5):
        y = count(**state, x=one)["y"]
        assert isinstance(y, np.ndarray) and y.shape == () and y == state["total"] == i
    results = [count(**state, x=one)["y"] for _ in range(3)]
    assert [float(y) for y in results] == [5, 6, 7]
    for wrong in (frozen(state["total"]), np.float32(0), 0.0):
        want = answer(count, True, total=wrong, x=one)
        assert isinstance(want, tuple)
        assert answer(count, False, total=wrong, x=one) == want
    overlapping = answer(count, True, total=one, x=one)
    assert isinstance(overlapping, tuple)
    assert answer(count, False, total=one, x=one) == overlapping


def test_nothing_is_kept(linear_module: Module) -> None:
    x, big, refused = X.copy(), np.ones((100_000, 4), np.float32), X[:, :3].copy()
    shared = [x, big, refused, x.dtype, np.ndarray, "x", "y", None, ()]
    linear_module(x=x), linear_module(x=big)

    def many() -> tuple[list[int], int]:
        for _ in range(320):  # ten blocks of outputs
            linear_module(x=x), linear_module(x)
        for _ in range(20):
            linear_module(x=big), answer(linear_module, False, x=refused)
        gc.collect()
        return [sys.getrefcount(s) for s in shared], tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        many()
        before, memory = many()
        after, more = many()
    finally:
        tracemalloc.stop()
    assert [abs(a - b) < 10 for a, b in zip(before, after, strict=True)] == [True] * len(shared)
    assert before[:3] == after[:3] and more - memory < 4096


def test_results_outlive_the_module(linear_folder: Path) -> None:
    module = open_module(linear_folder)
    results = [module(x=X)["y"] for _ in range(40)]
    del module
    for y in results:
        np.testing.assert_allclose(y, linear(X), rtol=1e-6)


def test_a_module_closes_with_its_last_reference(linear_folder: Path) -> None:
    module = open_module(linear_folder)
    module(x=X), module(x=X)
    handle = weakref.ref(module._handle)
    call = type(module).__call__
    gc.disable()
    try:
        del module
        assert handle() is None
    finally:
        gc.enable()
    with pytest.raises(ModuleClosedError):
        call(x=X)


def test_close_sends_calls_the_general_way(linear_folder: Path) -> None:
    module = open_module(linear_folder)
    module(x=X), module(x=X)
    handle = weakref.ref(module._handle)
    module.close()
    assert handle() is None
    with pytest.raises(ModuleClosedError, match="'Linear' was closed"):
        module(x=X)


def test_without_it_everything_works(linear_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("_main_interpreter", "_layout_is_known"):
        with monkeypatch.context() as patch:
            patch.setattr(quick, place, lambda *_: False)
            module = open_module(linear_folder)
        assert type(module) is Module and module._quick is None
        for _ in range(3):
            np.testing.assert_allclose(module(x=X)["y"], linear(X), rtol=1e-6)
    assert type(open_module(linear_folder, debug=True)) is Module
    assert isinstance(open_module(linear_folder), Module)


def test_a_layout_that_differs_is_noticed(
    linear_module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert linear_module._quick is not None
    monkeypatch.setattr(quick, "_known", [])
    assert quick._layout_is_known(linear_module._quick._table)
    assert not quick._compare(lambda array, place: None)


def test_threads_share_a_module_that_is_closed_under_them(linear_folder: Path) -> None:
    module = open_module(linear_folder, threads=2)
    wrong: list[object] = []
    started = threading.Barrier(5)

    def work(n: int) -> None:
        x = np.full((n, 4), n, np.float32)
        want = linear(x)
        started.wait()
        try:
            while True:
                if not np.allclose(module(x=x)["y"], want, rtol=1e-6):
                    wrong.append(n)
        except ModuleClosedError:
            return

    team = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 3, 5000)]
    for t in team:
        t.start()
    started.wait()
    for n in range(1, 80):  # shapes come and go meanwhile
        assert module(x=np.ones((n % 40 + 1, 4), np.float32))["y"].shape == (n % 40 + 1, 3)
    module.close()
    for t in team:
        t.join(60)
    assert not wrong and not any(t.is_alive() for t in team)


WAIT = """
#include <stdint.h>
#include <time.h>
int32_t graphc_main(const float *x, const void *weights, void *arena, float *y, int64_t n,
                    int64_t *fault, uint64_t *clock) {
    struct timespec ms = {0, 1000000};
    for (int i = 0; i < 20000 && !*(const volatile float *)x; i++) nanosleep(&ms, 0);
    y[0] = x[0];
    return 0;
}
"""


def test_other_threads_run_during_a_long_call(build: Build) -> None:
    """The kernel waits for what another Python thread does."""
    spec = ModuleSpec(
        "Wait",
        (Port("x", "f32", (N,)),),
        (Port("y", "f32", (N,)),),
        dims=(DimSpec("N"),),
        kernels=(KernelInfo("k", flops=N * 10_000_000),),
    )
    module = open_module(build(spec, WAIT))
    x = np.ones(1, np.float32)
    module(x=x)
    x[0] = 0
    timer = threading.Timer(0.05, x.fill, (3.0,))
    timer.start()
    assert module(x=x)["y"] == 3
