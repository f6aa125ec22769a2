"""Modules for GPUs from a device program to a call, on the stand-in driver."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.artifact import (
    ModuleDTypeError,
    ModuleError,
    ModuleIndexError,
    ModuleInputError,
    ModuleMemoryError,
    ModuleShapeError,
)
from graphc.artifact.cuda.build import write_cuda
from graphc.artifact.cuda.memory import DeviceArray
from graphc.artifact.cuda.module import CudaModule
from graphc.artifact.device import Address, Launch
from graphc.artifact.header import BUILD_COMMAND
from tests.artifact.cuda import programs
from tests.cuda.fake import Gpu, emulated, library

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def gpu() -> Iterator[Gpu]:
    with emulated() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def folders(gpu: Gpu, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cuda")
    made = {
        "linear": (programs.linear_spec(), programs.linear_program()),
        "take": programs.take(),
        "sums": programs.sums(),
    }
    return {name: write_cuda(*parts, root / name) for name, parts in made.items()}


@pytest.fixture(params=[False, True], ids=["", "debug"])
def linear(folders: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[CudaModule]:
    with graphc.open(folders["linear"], debug=request.param) as module:
        assert isinstance(module, CudaModule)
        yield module


def rows(n: int) -> np.ndarray:
    return RNG.standard_normal((n, 4)).astype(np.float32)


def test_numpy_in_numpy_out_for_any_number_of_rows(linear: CudaModule) -> None:
    for n in (1, 5, 100, 0, 7, 100):
        x = rows(n)
        np.testing.assert_allclose(linear(x=x)["y"], programs.linear(x), rtol=1e-6, atol=1e-6)
    y = np.empty((3, 3), np.float32)
    x = rows(3)
    assert linear(x, out={"y": y})["y"] is y
    np.testing.assert_allclose(y, programs.linear(x), rtol=1e-6, atol=1e-6)


def test_device_arrays_stay_where_they_are(linear: CudaModule, gpu: Gpu) -> None:
    x = rows(6)
    given = gpu.array(x)
    y = linear(x=given)["y"]
    assert isinstance(y, DeviceArray) and y.shape == (6, 3) and y.dtype == np.float32
    assert given.streams == [1]
    np.testing.assert_allclose(y.numpy(), programs.linear(x), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.asarray(y), programs.linear(x), rtol=1e-6, atol=1e-6)


def test_nothing_is_copied(folders: dict[str, Path], gpu: Gpu) -> None:
    given = gpu.array(rows(6))
    with graphc.open(folders["linear"]) as module:
        ways = ("copies", "copies in", "copies out")
        before = [gpu.count(way) for way in ways]
        module(x=given)
        module.synchronize()
        assert [gpu.count(way) for way in ways] == before


def test_device_arrays_without_alignment_are_copied(folders: dict[str, Path], gpu: Gpu) -> None:
    x = rows(6)
    given, target = gpu.array(x, skip=4), gpu.array(np.zeros((6, 3), np.float32), skip=8)
    assert given.address % 16 == 4
    with graphc.open(folders["linear"]) as module:
        copies = gpu.count("copies")
        for _ in range(3):
            module(x=given, out={"y": target})
            module.synchronize()
            np.testing.assert_allclose(target.get(), programs.linear(x), rtol=1e-6, atol=1e-6)
        assert gpu.count("copies") == copies + 6


def test_outputs_pass_on_through_dlpack(folders: dict[str, Path], gpu: Gpu) -> None:
    x = rows(4)
    with graphc.open(folders["linear"]) as module:
        y = module.run([gpu.array(x)])["y"]
        assert y.__dlpack_device__() == (2, 0)
        interface = y.__cuda_array_interface__
        assert interface["shape"] == (4, 3) and interface["typestr"] == "<f4"
        assert interface["data"] == (y.address, False)
        # What comes out goes in: a module that takes three columns is this one's own reader.
        with pytest.raises(ModuleShapeError, match=r"`x` is f32\[4, 3\], expected f32\[N, 4\]"):
            module(x=y)


def test_given_outputs_on_the_device(folders: dict[str, Path], gpu: Gpu) -> None:
    x = rows(4)
    target = gpu.array(np.zeros((4, 3), np.float32))
    with graphc.open(folders["linear"]) as module:
        assert module(x=gpu.array(x), out={"y": target})["y"] is target
        module.synchronize()
        np.testing.assert_allclose(target.get(), programs.linear(x), rtol=1e-6, atol=1e-6)
        with pytest.raises(
            ModuleInputError, match=r"out\['y'\] is \[4, 3\], the output is \[2, 3\]"
        ):
            module(x=gpu.array(rows(2)), out={"y": target})
        with pytest.raises(ModuleInputError, match="must be a NumPy array, like the inputs"):
            module(x=x, out={"y": target})


def test_equal_calls_become_one_graph(folders: dict[str, Path], gpu: Gpu) -> None:
    x, other = gpu.array(rows(4)), gpu.array(rows(5))
    with graphc.open(folders["linear"]) as module:
        call = module.bind({"x": x})
        module.synchronize()
        launches, captures, graphs = (gpu.count(c) for c in ("launches", "captures", "graphs"))
        for _ in range(5):
            call()
        assert gpu.count("captures") == captures + 1 and gpu.count("graphs") == graphs + 4
        assert gpu.count("launches") == launches + 4  # two as they are, two while capturing
        for n in (4, 5, 4, 5):
            values = rows(n)
            (x if n == 4 else other).set(values)
            y = call.outputs["y"] if n == 4 else module(x=other)["y"]
            if n == 4:
                call()
            np.testing.assert_allclose(y.numpy(), programs.linear(values), rtol=1e-6, atol=1e-6)
        grown = rows(5000)  # needs more memory: graphs of the old addresses must go
        np.testing.assert_allclose(
            module(x=gpu.array(grown))["y"].numpy(), programs.linear(grown), rtol=1e-6, atol=1e-6
        )
        x.set(values := rows(4))
        call()
        np.testing.assert_allclose(
            call.outputs["y"].numpy(), programs.linear(values), rtol=1e-6, atol=1e-6
        )


def test_without_graphs(
    folders: dict[str, Path], gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = rows(4)
    before = gpu.count("graphs")
    with gpu.setting(no_capture=1), graphc.open(folders["linear"]) as module:
        for _ in range(3):
            np.testing.assert_allclose(module(x=x)["y"], programs.linear(x), rtol=1e-6, atol=1e-6)
    monkeypatch.setenv("GRAPHC_CUDA_GRAPHS", "0")
    with graphc.open(folders["linear"]) as module:
        for _ in range(3):
            np.testing.assert_allclose(module(x=x)["y"], programs.linear(x), rtol=1e-6, atol=1e-6)
    assert gpu.count("graphs") == before


def test_an_index_out_of_range_is_an_error_of_its_call(folders: dict[str, Path], gpu: Gpu) -> None:
    table = np.arange(5, dtype=np.float32)
    with graphc.open(folders["take"]) as module:
        for index in ([0, 4, 2], [1, 5, -1], [3, 3, 3]):
            given = np.array(index)
            if max(index) < 5:
                np.testing.assert_array_equal(module(table, given)["y"], table[given])
            else:
                with pytest.raises(ModuleIndexError, match="index 5 at 1, limit 5"):
                    module(table, given)
        good, bad = gpu.array(np.array([0, 4, 2])), gpu.array(np.array([0, 9, 2]))
        held = gpu.array(table)
        module.bind({"table": held, "index": bad})()  # reported when somebody waits for it
        module.bind({"table": held, "index": good})()
        with pytest.raises(ModuleIndexError, match="index 9 at 1, limit 5"):
            module.synchronize()
        np.testing.assert_array_equal(module(held, good)["y"].numpy(), table[[0, 4, 2]])
        # Memory of libraries that do not order its use by streams: the call waits, so that they may take it back.
        with pytest.raises(ModuleIndexError, match="index 9 at 1, limit 5"):
            module(held, bad)


@pytest.mark.parametrize("debug", [False, True])
def test_state_and_loops(folders: dict[str, Path], gpu: Gpu, debug: bool) -> None:
    x = RNG.integers(0, 9, (6, 8)).astype(np.float32)
    expected = np.arange(8) + x.cumsum(0)
    with graphc.open(folders["sums"], debug=debug) as module:
        state = module.initial_state()
        np.testing.assert_array_equal(module(x=x, **state)["seen"], expected)
        np.testing.assert_array_equal(state["total"], expected[-1])
        held = gpu.array(module.initial_state()["total"])
        seen = module(x=gpu.array(x), total=held)["seen"]
        np.testing.assert_array_equal(seen.numpy(), expected)
        np.testing.assert_array_equal(held.get(), expected[-1])
        with pytest.raises(ModuleInputError, match="has to be on the GPU as well"):
            module(x=gpu.array(x), **state)


def test_work_in_a_stream_of_the_caller(folders: dict[str, Path], gpu: Gpu) -> None:
    x = rows(3)
    with graphc.open(folders["linear"]) as module:
        stream = module._cuda_handle().own_stream
        given = gpu.array(x)
        y = module(x=given, stream=stream)["y"]
        assert given.streams == [stream]
        np.testing.assert_allclose(y.numpy(), programs.linear(x), rtol=1e-6, atol=1e-6)
        z = module(x=x, stream=stream)["y"]  # uploaded
        assert isinstance(z, DeviceArray)
        np.testing.assert_allclose(z.numpy(), programs.linear(x), rtol=1e-6, atol=1e-6)


def test_wrong_inputs(folders: dict[str, Path], gpu: Gpu) -> None:
    with graphc.open(folders["linear"]) as module:
        with pytest.raises(ModuleDTypeError, match=r"`x` is f64\[2, 4\], expected f32\[N, 4\]"):
            module(x=gpu.array(np.zeros((2, 4))))
        with pytest.raises(ModuleInputError, match="no input `z`"):
            module(z=gpu.array(rows(2)))
        with pytest.raises(ModuleInputError, match="missing"):
            module.run({}, stream=0)
        with pytest.raises(ModuleInputError, match="is not on a GPU: only such can be bound"):
            module.bind({"x": rows(2)})
        with gpu.setting(ordinal=1), pytest.raises(ModuleInputError, match="`x` lies on GPU 1"):
            module(x=gpu.array(rows(2)))


def test_profile(folders: dict[str, Path]) -> None:
    with graphc.open(folders["linear"]) as module:
        profile = module.profile(x=rows(8))
        assert [k.name for k in profile.kernels] == ["linear", "relu"]
        assert all(k.seconds > 0 for k in profile.kernels)
        assert profile.kernels[0].flops == 8 * 24


def test_memory_is_given_back(folders: dict[str, Path], gpu: Gpu) -> None:
    before, modules = gpu.live, gpu.count("modules")
    module = graphc.open(folders["linear"])
    x = gpu.array(rows(5))
    for _ in range(10):
        y = module(x=x)["y"]
    held = gpu.live
    for _ in range(10):
        y = module(x=x)["y"]
    assert gpu.live == held  # blocks are used again
    module.close()
    assert gpu.count("modules") == modules + 1  # the output is still there
    y.numpy()
    del x, y
    assert gpu.live == before and gpu.count("modules") == modules


def test_no_memory(folders: dict[str, Path], gpu: Gpu) -> None:
    with graphc.open(folders["linear"]) as module:
        message = "which the GPU does not have"
        with gpu.setting(memory=100_000), pytest.raises(ModuleMemoryError, match=message):
            module(x=rows(10_000))
        x = rows(2)
        np.testing.assert_allclose(module(x=x)["y"], programs.linear(x), rtol=1e-6, atol=1e-6)
    with gpu.setting(memory=10), pytest.raises(ModuleMemoryError, match="out of memory"):
        graphc.open(folders["linear"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": 100}, r"compiled for an NVIDIA GPU \(cuda:sm_90\), and the driver .* finds none"),
        ({"init": 803}, "the NVIDIA driver cannot start"),
        ({"devices": 0}, "the driver of this machine finds none"),
        ({"major": 8}, r"compiled for sm_90, but GPU 0 \(Stand-in\) is sm_80: compile it with"),
        ({"major": 10}, r"compiled for sm_90, but GPU 0 \(Stand-in\) is sm_100"),
    ],
    ids=str,
)
def test_machines_that_cannot_run_it(
    folders: dict[str, Path], settings: dict[str, int], message: str, tmp_path: Path
) -> None:
    # In a process of its own: the driver starts once.
    code = f"""
import graphc
from tests.cuda.fake import gpu
with gpu().setting(**{settings}):
    try:
        graphc.open({str(folders["linear"])!r})
    except graphc.ModuleError as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run(
        [*PYTHON, code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert re.match(f"ModuleTargetError .*{message}", done.stdout), done.stdout


PYTHON = (sys.executable, "-c")


def test_there_is_no_such_device(folders: dict[str, Path]) -> None:
    with pytest.raises(ModuleInputError, match="there is no GPU 3: this machine has 1"):
        graphc.open(folders["linear"], device=3)


def test_no_driver(folders: dict[str, Path]) -> None:
    code = f"import graphc; graphc.open({str(folders['linear'])!r})"
    done = subprocess.run([*PYTHON, code], capture_output=True, text=True, check=False)
    assert "ModuleTargetError: `Linear` was compiled for an NVIDIA GPU (cuda:sm_90)" in done.stderr
    assert "this machine has no NVIDIA driver: libcuda.so.1" in done.stderr


def test_a_driver_that_is_too_old(folders: dict[str, Path], tmp_path: Path) -> None:
    source = "int cuInit(unsigned f) { return 0; } int cuDriverGetVersion(int *v) { *v = 11040; return 0; }"
    (tmp_path / "old.c").write_text(source)
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so.1", "old.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    code = f"import ctypes, graphc; ctypes.CDLL({str(tmp_path / 'libcuda.so.1')!r}); "
    code += f"graphc.open({str(folders['linear'])!r})"
    done = subprocess.run([*PYTHON, code], capture_output=True, text=True, check=False)
    assert "driver of this machine is too old for `Linear`" in done.stderr
    assert "it is for CUDA 11.4; CUDA 13.0, driver 580 or later, is needed" in done.stderr


def test_debug_mode_finds_kernels_that_write_too_far(gpu: Gpu, tmp_path: Path) -> None:
    program = programs.linear_program()
    source = program.source.replace(
        "if (i < n) y[i] = x[i]", "if (i <= n) y[i] = i == n ? 7 : x[i]"
    )
    folder = write_cuda(programs.linear_spec(), replace(program, source=source), tmp_path / "wide")
    module = graphc.open(folder, debug=True)
    with module, pytest.raises(ModuleError, match="wrote 0 bytes behind the end of y"):
        module(x=rows(4))


def test_a_kernel_that_fails_says_so(gpu: Gpu, tmp_path: Path) -> None:
    spec = programs.linear_spec(arena_bytes=0)
    program = programs.linear_program()
    _, (second,) = program.calls
    bad = Launch(
        "relu", (1, 1, 1), (64, 1, 1), (Address("output"), Address("arena", 0, 1 << 40), 64)
    )
    folder = write_cuda(spec, replace(program, calls=((bad,), (second,))), tmp_path / "bad")
    code = f"""
import graphc, numpy as np
from tests.cuda.fake import gpu
gpu()
with graphc.open({str(folder)!r}) as module:
    try:
        module(x=np.zeros((4, 4), np.float32))
    except graphc.ModuleError as error:
        print(error)
"""
    done = subprocess.run(
        [*PYTHON, code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert "a kernel failed: kernel relu, block (0, 0, 0), thread (0, 0, 0)" in done.stdout


def test_equal_programs_give_equal_bytes(gpu: Gpu, tmp_path: Path) -> None:
    made = [
        write_cuda(programs.linear_spec(), programs.linear_program(), tmp_path / name)
        for name in ("a", "b")
    ]
    for path in sorted(made[0].iterdir()):
        assert path.read_bytes() == (made[1] / path.name).read_bytes(), path.name


def test_from_c(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "linear"
    shutil.copytree(folders["linear"], folder)
    x = rows(3)
    x.tofile(tmp_path / "x.bin")
    subprocess.run(BUILD_COMMAND, cwd=folder, check=True, shell=True)
    subprocess.run(
        ["./example", "N=3", f"x={tmp_path}/x.bin", f"y={tmp_path}/y.bin", "steps=3"],
        cwd=folder,
        check=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(library().parent)},
    )
    y = np.fromfile(tmp_path / "y.bin", np.float32).reshape(3, 3)
    np.testing.assert_allclose(y, programs.linear(x), rtol=1e-6, atol=1e-6)


def test_calls_from_several_threads(folders: dict[str, Path], gpu: Gpu) -> None:
    with graphc.open(folders["linear"]) as module, ThreadPoolExecutor(4) as pool:
        inputs = [rows(n % 7 + 1) for n in range(40)]
        given = [x if i % 2 else gpu.array(x) for i, x in enumerate(inputs)]
        for x, y in zip(inputs, pool.map(lambda x: module(x=x)["y"], given), strict=True):
            np.testing.assert_allclose(np.asarray(y), programs.linear(x), rtol=1e-6, atol=1e-6)
