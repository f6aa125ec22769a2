"""The C runtime, through Python: named dims, threads, forks, faults."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from graphc.artifact import ModuleError, ModuleIndexError, ModuleMemoryError, ModuleShapeError
from graphc.artifact import open as open_module
from graphc.artifact.spec import DimSpec, FaultInfo, ModuleSpec, Port
from graphc.artifact.writer import write
from tests.artifact.conftest import Build
from tests.artifact.modules import PARALLEL, H, N, T, compile_object, linear

# Writes the dims and the sizes of the outputs that depend on them.
DIMS = """
#include <stdint.h>
int32_t graphc_main(const void *a, const void *b, const void *c, const void *weights, void *arena, void *out,
                    int64_t *sizes, int64_t n, int64_t t, int64_t h, int64_t *fault, uint64_t *clock) {
    sizes[0] = n, sizes[1] = t, sizes[2] = h;
    return 0;
}
"""
DIMS_SPEC = ModuleSpec(
    "Dims",
    (
        Port("tokens", "i64", (N, T)),
        Port("mask", "u8", (N, T)),
        Port("features", "f32", (2 * T + 1, N * H - 3, 7)),
    ),
    (Port("out", "u8", (T * T - T, (H + 1) // 2, N * 3 // T)), Port("sizes", "i64", (3,))),
    dims=(DimSpec("N"), DimSpec("T", 2, 512), DimSpec("H")),
    arena_bytes=N * T * H,
)


def dims_inputs(
    tokens: tuple[int, ...], mask: tuple[int, ...], features: tuple[int, ...]
) -> list[np.ndarray]:
    return [np.zeros(tokens, "i8"), np.zeros(mask, "u1"), np.zeros(features, "f4")]


def test_dims_are_solved_from_shapes(build: Build) -> None:
    module = open_module(build(DIMS_SPEC, DIMS))
    for n, t, h in ((2, 5, 4), (1, 2, 4), (7, 512, 1), (3, 3, 2)):
        outputs = module(*dims_inputs((n, t), (n, t), (2 * t + 1, n * h - 3, 7)))
        assert outputs["sizes"].tolist() == [n, t, h]
        assert outputs["out"].shape == (t * t - t, (h + 1) // 2, n * 3 // t)


@pytest.mark.parametrize(
    ("tokens", "mask", "features", "message"),
    [
        (
            (2, 5), (2, 6), (11, 5, 7),
            "input `mask` is u8[2, 6], expected u8[N, T]: axis 1 must be 5, not 6; "
            "T = 5 comes from axis 1 of `tokens`",
        ),
        (
            (2, 5), (3, 5), (11, 5, 7),
            "input `mask` is u8[3, 5], expected u8[N, T]: axis 0 must be 2, not 3; "
            "N = 2 comes from axis 0 of `tokens`",
        ),
        (
            (2, 600), (2, 600), (1201, 5, 7),
            "input `tokens` is i64[2, 600], expected i64[N, T]: axis 1 makes T = 600, "
            "but T is at most 512",
        ),
        (
            (2, 1), (2, 1), (3, 5, 7),
            "input `tokens` is i64[2, 1], expected i64[N, T]: axis 1 makes T = 1, but T is at least 2",
        ),
        (
            (2, 5), (2, 5), (12, 5, 7),
            "input `features` is f32[12, 5, 7], expected f32[2*T + 1, H*N - 3, 7]: axis 0 must be 11, "
            "not 12; T = 5 comes from axis 1 of `tokens`",
        ),
        (
            (2, 5), (2, 5), (11, 4, 7),
            "input `features` is f32[11, 4, 7], expected f32[2*T + 1, H*N - 3, 7]: axis 1 is 4, "
            "which is not `H*N - 3` for any whole H; N = 2 comes from axis 0 of `tokens`",
        ),
        (
            (2, 5), (2, 5), (11, 5, 8),
            "input `features` is f32[11, 5, 8], expected f32[2*T + 1, H*N - 3, 7]: axis 2 must be 7, "
            "not 8",
        ),
        (
            (2, 5), (2, 5, 1), (11, 5, 7),
            "input `mask` is u8[2, 5, 1], expected u8[N, T]: it has 3 axes instead of 2",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_explained(
    dims_folder: Path,
    tokens: tuple[int, ...],
    mask: tuple[int, ...],
    features: tuple[int, ...],
    message: str,
) -> None:
    with pytest.raises(ModuleShapeError) as error:
        open_module(dims_folder)(*dims_inputs(tokens, mask, features))
    assert str(error.value) == message


@pytest.fixture(scope="module")
def dims_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dims") / "module"
    return write(DIMS_SPEC, [compile_object(DIMS)], folder)


NOTHING = """
#include <stdint.h>
int32_t graphc_main(const void *a, const void *weights, void *arena, void *out, int64_t n,
                    int64_t *fault, uint64_t *clock) { return STATUS; }
"""


def test_sizes_beyond_all_memory_are_errors(build: Build) -> None:
    source = NOTHING.replace("STATUS", "0")
    ports = ((Port("a", "u8", (N, 0)),), (Port("out", "u8", (0,)),))
    huge = {"a": np.zeros((1 << 40, 0), np.uint8)}
    spec = ModuleSpec("Huge", *ports, dims=(DimSpec("N"),), arena_bytes=N * N)
    with pytest.raises(ModuleMemoryError, match=r"more memory .* than can be addressed"):
        open_module(build(spec, source, "arena"))(**huge)
    spec = ModuleSpec("Huge", *ports, dims=(DimSpec("N"),), arena_bytes=N * 4096)
    with pytest.raises(ModuleMemoryError, match="which the system does not give"):
        open_module(build(spec, source, "system"))(**huge)
    spec = ModuleSpec("Huge", ports[0], (Port("out", "f32", (N, N)),), dims=(DimSpec("N"),))
    with pytest.raises(ModuleShapeError, match="output `out` would be"):
        open_module(build(spec, source, "output"))(**huge)


def test_a_failing_program_is_an_error(build: Build) -> None:
    spec = ModuleSpec(
        "Fails", (Port("a", "u8", (N,)),), (Port("out", "u8", (N,)),), dims=(DimSpec("N"),)
    )
    module = open_module(build(spec, NOTHING.replace("STATUS", "-7")))
    with pytest.raises(ModuleError, match="the program of `Fails` failed with status -7"):
        module([1])


def test_fault_messages_are_filled_in(build: Build) -> None:
    spec = ModuleSpec(
        "Fault",
        (Port("a", "u8", (N,)),),
        (Port("out", "u8", (N,)),),
        dims=(DimSpec("N"),),
        faults=(
            FaultInfo("first"),
            FaultInfo('{value} at {position} of {limit}: {other} "é" \\ ?'),
        ),
    )
    source = NOTHING.replace(
        "return STATUS", "fault[0] = n; fault[1] = -5; fault[2] = 1; fault[3] = 1ll << 60; return 0"
    )
    module = open_module(build(spec, source))
    with pytest.raises(ModuleIndexError, match=r"^first$"):
        module([1])
    with pytest.raises(ModuleIndexError) as error:
        module([1, 2])
    assert str(error.value) == '-5 at 1 of 1152921504606846976: {other} "é" \\ ?'
    with pytest.raises(ModuleError, match="fault 3, which it does not know"):
        module([1, 2, 3])


# Every task writes its number into its part of the output: which thread did what is not visible,
# that each part was done once is. A nested loop must not deadlock.
TASKS = (
    PARALLEL
    + """
typedef struct { int32_t *y; int64_t n; } job_t;
static int inner(int task, env_t *env, void *data) {
    job_t *j = data;
    for (int64_t i = task; i < j->n; i += env->num_task) __atomic_fetch_add(&j->y[i], 1, __ATOMIC_RELAXED);
    return 0;
}
static int outer(int task, env_t *env, void *data) {
    return task % 2 ? 0 : __TVMBackendParallelLaunch(inner, data, 0);
}
static int failing(int task, env_t *env, void *data) { return task == 2 ? 42 : 0; }
int32_t graphc_main(const int32_t *mode, const void *weights, void *arena, int32_t *y, int64_t n,
                    int64_t *fault, uint64_t *clock) {
    job_t j = {y, n};
    for (int64_t i = 0; i < n; i++) y[i] = 0;
    if (mode[0] == 0) return __TVMBackendParallelLaunch(inner, &j, 0);
    if (mode[0] == 1) return __TVMBackendParallelLaunch(inner, &j, 7);
    if (mode[0] == 2) return __TVMBackendParallelLaunch(outer, &j, 4);
    return __TVMBackendParallelLaunch(failing, &j, 4);
}
"""
)
TASKS_SPEC = ModuleSpec(
    "Tasks", (Port("mode", "i32", (N,)),), (Port("y", "i32", (N,)),), dims=(DimSpec("N"),)
)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_parallel_loops_do_every_task_once(build: Build, threads: int) -> None:
    module = open_module(build(TASKS_SPEC, TASKS), threads=threads)
    for _ in range(20):
        assert (module(np.full(100, 0, "i4"))["y"] == 1).all()
        assert (module(np.full(100, 1, "i4"))["y"] == 1).all()
        assert (module(np.full(100, 2, "i4"))["y"] == 2).all()
    with pytest.raises(ModuleError, match="status 42"):
        module(np.full(100, 3, "i4"))
    assert (module(np.full(1, 0, "i4"))["y"] == 1).all()


def test_calls_from_many_threads_on_several_instances(linear_folder: Path) -> None:
    modules = [open_module(linear_folder, threads=n) for n in (1, 2, 3)]
    failures: list[object] = []

    def caller(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for i in range(150):
            x = rng.standard_normal((int(rng.integers(1, 50)), 4), np.float32)
            y = modules[(seed + i) % 3](x=x)["y"]
            if not np.allclose(y, linear(x), rtol=1e-5, atol=1e-6):
                failures.append((seed, i))

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(t.is_alive() for t in threads)


def test_closing_waits_for_running_calls(linear_folder: Path) -> None:
    x = np.ones((20000, 4), np.float32)
    for _ in range(20):
        module = open_module(linear_folder, threads=2)
        call = threading.Thread(target=lambda m=module: [_try(m, x) for _ in range(5)])
        call.start()
        module.close()
        call.join(60)
        assert not call.is_alive()


def _try(module: object, x: np.ndarray) -> None:
    try:
        np.testing.assert_allclose(module(x=x)["y"], linear(x), rtol=1e-5)  # type: ignore[operator]
    except ModuleError as error:
        assert "was closed" in str(error)


def test_messages_belong_to_the_thread_that_made_the_call(linear_folder: Path) -> None:
    module = open_module(linear_folder, threads=1)
    wrong: list[str] = []

    def caller(width: int) -> None:
        for _ in range(100):
            with pytest.raises(ModuleShapeError) as error:
                module(x=np.ones((1, width), np.float32))
            if f"not {width}" not in str(error.value):
                wrong.append(str(error.value))

    threads = [threading.Thread(target=caller, args=(width,)) for width in (5, 6, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def _child(queue: multiprocessing.Queue[bool], module: object, x: np.ndarray) -> None:
    queue.put(all(np.allclose(module(x=x)["y"], linear(x)) for _ in range(5)))  # type: ignore[operator]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on(linear_folder: Path) -> None:
    module = open_module(linear_folder, threads=3)
    x = np.random.default_rng(0).standard_normal((9, 4), np.float32)
    module(x=x)  # its threads are running now, and will not exist in the child
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue, module, x))
    child.start()
    assert queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_allclose(module(x=x)["y"], linear(x), rtol=1e-5)


def test_opening_and_closing_leaves_no_threads_behind(linear_folder: Path) -> None:
    def workers() -> int:
        names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
        return names.count("graphc\n")

    gc.collect()  # modules of other tests
    before = workers()
    for _ in range(10):
        with open_module(linear_folder, threads=3) as module:
            assert workers() == before  # they start with the first parallel loop
            module(x=np.ones((4, 4), np.float32))
            deadline = time.monotonic() + 30  # a worker that has not begun yet has no name yet
            while workers() < before + 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            assert workers() == before + 2
    gc.collect()
    assert workers() == before


# Does what byte 0 of the input says, once right and else wrong.
WRITES = """
#include <stdint.h>
int32_t graphc_main(uint8_t *a, const void *weights, uint8_t *arena, uint8_t *y, int64_t n,
                    int64_t *fault, uint64_t *clock) {
    for (int64_t i = 0; i < n; i++) y[i] = arena[i] = a[i];
    if (a[0] == 1) arena[n] = 0;
    if (a[0] == 2) y[n + 3] = 0;
    if (a[0] == 3) a[0] = 0;
    if (a[0] == 4) y[1] = arena[n];
    return 0;
}
"""


def test_debug_mode_finds_kernels_that_write_where_they_must_not(build: Build) -> None:
    ports = ((Port("a", "u8", (N,)),), (Port("y", "u8", (N,)),))
    folder = build(ModuleSpec("Writes", *ports, dims=(DimSpec("N"),), arena_bytes=N), WRITES)
    module = open_module(folder, debug=True)
    assert module([0, 7, 8])["y"].tolist() == [0, 7, 8]
    for first, message in (
        (1, r"wrote 0 bytes behind the end of the arena \(3 bytes\)"),
        (2, r"wrote 3 bytes behind the end of y \(3 bytes\)"),
        (3, "a kernel wrote to input `a`"),
    ):
        with pytest.raises(ModuleError, match=message):
            module([first, 7, 8])
    assert module([4, 7, 8])["y"].tolist() == [4, 255, 8]  # what was never written is 0xff
