"""What Python users see: inputs of every kind, outputs, errors, life cycle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from graphc.artifact import (
    Module,
    ModuleClosedError,
    ModuleDTypeError,
    ModuleFileError,
    ModuleIndexError,
    ModuleInputError,
    ModuleShapeError,
)
from graphc.artifact import open as open_module
from graphc.artifact.spec import DTYPES, DimSpec, ModuleSpec, Port
from tests.artifact.conftest import Build
from tests.artifact.modules import N, copy_source, linear

X = np.arange(8, dtype=np.float32).reshape(2, 4) / 4


def test_runs_by_name_and_by_position(linear_module: Module) -> None:
    for outputs in (
        linear_module(x=X),
        linear_module(X),
        linear_module.run({"x": X}),
        linear_module.run([X]),
    ):
        assert list(outputs) == ["y"]
        np.testing.assert_allclose(outputs["y"], linear(X), rtol=1e-6)


def test_describes_itself(linear_module: Module, linear_folder: Path) -> None:
    assert repr(linear_module) == "<graphc module Linear(x: f32[N, 4]) -> y: f32[N, 3]>"
    assert [str(p) for p in linear_module.inputs] == ["f32[N, 4]"]
    assert [str(d) for d in linear_module.dims] == ["1 <= N <= 1048576"]
    assert linear_module.manifest["ops"][0]["source"] == "linear.nn:3:5"
    assert linear_module.graph_text == "graph Linear {}\n"
    assert linear_module.threads == 2
    assert linear_module.path == linear_folder


@pytest.mark.parametrize(
    "value",
    [
        torch.from_numpy(X.copy()),
        torch.from_numpy(X.copy()).t().contiguous().t(),
        X.tolist(),
        [[1, 2, 3, 4]],
        np.asfortranarray(X),
        np.concatenate([X, X], axis=1)[:, ::2],
        np.concatenate([X, X])[::-1],
        memoryview(X),
        X[:1],
    ],
    ids=["torch", "torch strided", "list", "int list", "fortran", "strided", "reversed", "memoryview", "row"],
)  # fmt: skip
def test_takes_anything_like_an_array(linear_module: Module, value: object) -> None:
    expected = linear(np.asarray(value, dtype=np.float32))
    np.testing.assert_allclose(linear_module(x=value)["y"], expected, rtol=1e-6)


def test_takes_read_only_and_misaligned_arrays(linear_module: Module) -> None:
    frozen = X.copy()
    frozen.flags.writeable = False
    np.testing.assert_allclose(linear_module(x=frozen)["y"], linear(X), rtol=1e-6)
    raw = np.zeros(X.nbytes + 1, np.uint8)
    crooked = raw[1:].view(np.float32).reshape(2, 4)
    crooked[...] = X
    assert not crooked.flags.aligned
    np.testing.assert_allclose(linear_module(x=crooked)["y"], linear(X), rtol=1e-6)


def test_inputs_are_not_copied_when_contiguous(linear_module: Module) -> None:
    arrays = linear_module._gather((), {"x": X})
    assert arrays[0] is X
    tensor = torch.from_numpy(X.copy())
    (array,) = linear_module._gather((), {"x": tensor})
    assert array.ctypes.data == tensor.data_ptr()


def test_nan_goes_through(linear_module: Module) -> None:
    x = X.copy()
    x[0, 1] = np.nan
    y = linear_module(x=x)["y"]
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()


def test_wrong_dtype_says_which_cast(linear_module: Module) -> None:
    with pytest.raises(ModuleDTypeError) as error:
        linear_module(x=X.astype(np.float64))
    assert str(error.value) == (
        "input `x` is f64[2, 4], expected f32[N, 4]: cast it with x.astype('float32')"
    )
    with pytest.raises(TypeError, match=r"np\.asarray\(x\)\.astype\('float32'\)"):
        linear_module(x=torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ModuleDTypeError, match="expected f32"):
        linear_module(x=X.astype(">f4"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([[1.0, 2.0], [3.0]], "no regular list"),
        ("text", "is a str, which is no array"),
        (object(), "is a object, which is no array"),
        (None, "is a NoneType, which is no array"),
        (torch.zeros(2, 4, requires_grad=True), "cannot take this Tensor"),
    ],
)
def test_what_is_no_array_is_an_input_error(
    linear_module: Module, value: object, reason: str
) -> None:
    with pytest.raises(ModuleInputError, match=reason):
        linear_module(x=value)


def test_numbers_without_a_type_are_converted_when_they_fit(lookup_module: Module) -> None:
    np.testing.assert_array_equal(lookup_module([0, 4])["y"], [0, 40])
    assert lookup_module([])["y"].shape == (0,)
    with pytest.raises(ModuleDTypeError, match="do not fit into i64"):
        lookup_module([0.5])
    with pytest.raises(ModuleDTypeError, match="do not fit into i64"):
        lookup_module([True])
    with pytest.raises(ModuleDTypeError, match="do not fit into i64"):
        lookup_module([2**63])


@pytest.mark.parametrize(
    ("args", "inputs", "message"),
    [
        ((), {"X": X}, "`Linear` has no input `X`; it has: `x`"),
        ((), {}, "input is missing: `x`: f32[N, 4]"),
        ((X,), {"x": X}, "input `x` was given by position and by name"),
        ((X, X), {}, "`Linear` has 1 inputs, 2 were given"),
        ((), {"x": X, "extra": X}, "`Linear` has no input `extra`; it has: `x`"),
    ],
)
def test_names_are_checked(
    linear_module: Module, args: tuple[object, ...], inputs: dict[str, object], message: str
) -> None:
    with pytest.raises(ModuleInputError) as error:
        linear_module(*args, **inputs)
    assert str(error.value) == message


def test_an_unknown_name_gets_the_nearest(lookup_module: Module) -> None:
    with pytest.raises(ModuleInputError, match="did you mean `index`"):
        lookup_module(indx=[1])


def test_an_index_out_of_range_is_an_index_error(lookup_module: Module) -> None:
    for bad in (70000, -1):
        with pytest.raises(ModuleIndexError) as error:
            lookup_module(index=np.array([1, bad, 2]))
        assert isinstance(error.value, IndexError)
        assert str(error.value) == (
            f"index {bad} is out of range for `wte` with 5 rows (gpt2.nn:12:5)"
        )
    np.testing.assert_array_equal(lookup_module(index=np.array([3]))["y"], [30])


def test_out_is_written_in_place(linear_module: Module) -> None:
    y = np.full((2, 3), -1, np.float32)
    assert linear_module(x=X, out={"y": y})["y"] is y
    np.testing.assert_allclose(y, linear(X), rtol=1e-6)
    for wrong, reason in (
        (np.zeros((2, 3)), "is float64"),
        (np.zeros((3, 3), np.float32), r"\[3, 3\]"),
        (np.zeros((3, 2), np.float32).T, "contiguous"),
        ([0.0], "must be a NumPy array"),
    ):
        with pytest.raises(ModuleInputError, match=reason):
            linear_module(x=X, out={"y": wrong})  # type: ignore[dict-item]
    with pytest.raises(ModuleInputError, match="no output `z`"):
        linear_module(x=X, out={"z": y})


def test_out_may_not_overlap_an_input(linear_module: Module) -> None:
    memory = np.zeros(16, np.float32)
    with pytest.raises(ModuleInputError, match="output `y` overlaps input `x`"):
        linear_module(x=memory[:8].reshape(2, 4), out={"y": memory[4:10].reshape(2, 3)})


def test_outputs_of_two_calls_are_distinct(linear_module: Module) -> None:
    first = linear_module(x=X)["y"]
    kept = first.copy()
    linear_module(x=X + 100)
    np.testing.assert_array_equal(first, kept)


def test_calls_like_the_one_before_take_a_short_way_with_the_same_rules(
    linear_module: Module,
) -> None:
    """Many small outputs, which lie side by side; then everything the short way does not take."""
    batches = [X + i for i in range(70)]
    results = [linear_module(x=x)["y"] for x in batches]
    for x, y in zip(batches, results, strict=True):
        np.testing.assert_allclose(y, linear(x), rtol=1e-6)
        assert y.flags.c_contiguous and y.flags.writeable
    results[0][...] = 7
    np.testing.assert_allclose(results[1], linear(batches[1]), rtol=1e-6)
    frozen = X.copy()
    frozen.flags.writeable = False
    others = [X[:1], frozen, np.asfortranarray(X), X.astype(">f4"), X.tolist(), X]
    for other in others:
        if isinstance(other, np.ndarray) and other.dtype != np.float32:
            with pytest.raises(ModuleDTypeError):
                linear_module(x=other)
            continue
        want = linear(np.asarray(other, dtype=np.float32))
        np.testing.assert_allclose(linear_module(x=other)["y"], want, rtol=1e-6)
    with pytest.raises(ModuleInputError, match="no input `z`"):
        linear_module(x=X, z=X)
    with pytest.raises(ModuleInputError, match="missing"):
        linear_module()
    with pytest.raises(ModuleShapeError):
        linear_module(x=X[:, :3])
    np.testing.assert_allclose(linear_module(x=X)["y"], linear(X), rtol=1e-6)


def test_memory_of_large_outputs_is_used_again_when_nobody_has_it(linear_module: Module) -> None:
    x = np.ones((100_000, 4), np.float32)
    first = linear_module(x=x)["y"]
    part, place = first[5:7], first.ctypes.data
    del first
    second = linear_module(x=2 * x)["y"]
    assert second.ctypes.data != place
    np.testing.assert_allclose(part, linear(x[:2]), rtol=1e-6)
    place = second.ctypes.data
    del part, second
    third = linear_module(x=3 * x)["y"]
    assert third.ctypes.data == place and third.flags.c_contiguous and third.flags.writeable
    fewer = linear_module(x=x[:90_000])["y"]
    np.testing.assert_allclose(third[-1], linear(3 * x[:1])[0], rtol=1e-6)
    np.testing.assert_allclose(fewer[-1], linear(x[:1])[0], rtol=1e-6)


def test_every_dtype_goes_in_and_out(build: Build) -> None:
    c_types = ["double", "float", "uint16_t", "uint16_t", "int64_t", "int32_t", "int16_t", "int8_t",
               "uint8_t", "bool"]  # fmt: skip
    spec = ModuleSpec(
        "Copy",
        tuple(Port(f"in_{d}", d, (N,)) for d in DTYPES),
        tuple(Port(f"out_{d}", d, (N,)) for d in DTYPES),
        dims=(DimSpec("N"),),
    )
    module = open_module(build(spec, copy_source(*c_types, dims=1)))
    dtypes = {
        d: np.dtype(t)
        for d, t in zip(
            DTYPES, ["f8", "f4", "f2", ml_dtypes.bfloat16, "i8", "i4", "i2", "i1", "u1", "?"],
            strict=True,
        )
    }  # fmt: skip
    inputs = {f"in_{d}": np.array([0, 1, 1]).astype(t) for d, t in dtypes.items()}
    outputs = module(**inputs)
    for d, t in dtypes.items():
        assert outputs[f"out_{d}"].dtype == t
        np.testing.assert_array_equal(outputs[f"out_{d}"], inputs[f"in_{d}"])
    bits = module.run({**inputs, "in_bf16": inputs["in_bf16"].view(np.uint16)})
    np.testing.assert_array_equal(bits["out_bf16"], inputs["in_bf16"])
    numbers = module.run({**inputs, "in_bf16": [1.5, 2, 3], "in_bool": [True, False, True]})
    np.testing.assert_array_equal(numbers["out_bf16"].astype(np.float32), [1.5, 2, 3])


def test_profile_times_each_kernel(linear_module: Module) -> None:
    profile = linear_module.profile(x=X)
    np.testing.assert_allclose(profile.outputs["y"], linear(X), rtol=1e-6)
    assert [(k.label, k.flops, k.bytes) for k in profile.kernels] == [
        ("fc", 48, 116),
        ("relu", 6, 48),
    ]
    assert profile.kernels[0].source == "linear.nn:3:5"
    assert all(k.seconds >= 0 for k in profile.kernels)
    assert profile.seconds > 0
    assert profile.kernels[0].gflops > 0


def test_save_copies_a_module_that_works(linear_module: Module, tmp_path: Path) -> None:
    copy = linear_module.save(tmp_path / "deep" / "copy")
    assert sorted(os.listdir(copy)) == sorted(os.listdir(linear_module.path))
    np.testing.assert_allclose(open_module(copy)(X)["y"], linear(X), rtol=1e-6)
    assert linear_module.save(linear_module.path) == linear_module.path
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("mine")
    with pytest.raises(ModuleFileError, match="is not a graphc module"):
        linear_module.save(tmp_path / "other")


def test_a_closed_module_says_so(linear_folder: Path) -> None:
    with open_module(linear_folder) as module:
        module(x=X)
    with pytest.raises(ModuleClosedError, match="'Linear' was closed"):
        module(x=X)
    module.close()


def test_threads_must_be_sensible(linear_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleInputError, match="threads must be 1 to 1024"):
        open_module(linear_folder, threads=-1)
    monkeypatch.setenv("GRAPHC_NUM_THREADS", "3")
    assert open_module(linear_folder).threads == 3
    monkeypatch.setenv("GRAPHC_NUM_THREADS", "many")
    assert 1 <= open_module(linear_folder).threads <= (os.cpu_count() or 1)


def test_a_wrong_rank_is_a_shape_error(linear_module: Module) -> None:
    with pytest.raises(ModuleShapeError, match="3 axes instead of 2"):
        linear_module(x=X[None])
    with pytest.raises(ModuleShapeError, match="rank 9"):
        linear_module(x=X.reshape(1, 1, 1, 1, 1, 1, 1, 2, 4))


def test_many_shapes_are_remembered_within_limits(linear_module: Module) -> None:
    for n in range(1, 200):
        x = np.ones((n, 4), np.float32)
        assert linear_module(x)["y"].shape == (n, 3)
    assert len(linear_module._plans) <= 64


def test_opening_needs_only_numpy(linear_folder: Path) -> None:
    program = f"""
import sys
import numpy as np
import graphc
assert graphc.open({str(linear_folder)!r})(x=np.ones((1, 4), np.float32))["y"].shape == (1, 3)
heavy = {{"tvm", "networkx", "lark", "ml_dtypes", "click", "rich", "graphviz", "safetensors"}}
loaded = {{name.partition(".")[0] for name in sys.modules}} & heavy
inner = [n for n in sys.modules if n.startswith("graphc.") and not n.startswith("graphc.artifact")]
assert not loaded and not inner, (loaded, inner)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
