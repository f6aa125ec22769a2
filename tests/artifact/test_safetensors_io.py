"""Safetensors files: agreement with the reference library, and every way a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphc.artifact import ModuleError, SafetensorsError
from graphc.artifact.safetensors_io import dtype_name, read_safetensors, write_safetensors

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8"]


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {f"t.{d}": (rng.standard_normal((3, 5)) * 4).astype(d) for d in DTYPES if d != "c8"}
    out["scalar"] = np.array(2.5, np.float32)
    out["empty"] = np.zeros((0, 3), np.float16)
    out["größe"] = np.arange(7, dtype=np.int64)
    out["fortran"] = np.asfortranarray(rng.standard_normal((4, 6)).astype(np.float32))
    return out


def test_the_reference_library_reads_what_we_write(tmp_path: Path) -> None:
    given = tensors()
    info = write_safetensors(tmp_path / "w", given, {"made by": "graphc"})
    assert info.size == (tmp_path / "w").stat().st_size
    assert info.header_size % 64 == 0
    read = safetensors.numpy.load_file(tmp_path / "w")
    assert {name for name in read if not name.startswith("__pad")} == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_we_read_what_the_reference_library_writes(tmp_path: Path) -> None:
    given = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in tensors().items()}
    safetensors.numpy.save_file(given, tmp_path / "w", {"format": "np"})
    read = read_safetensors(tmp_path / "w")
    assert read.metadata == {"format": "np"}
    assert set(read) == set(given)
    assert len(read) == len(given)
    for name, array in given.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
        assert read[name].flags.aligned
        assert not read[name].flags.writeable


def test_small_floats_come_through(tmp_path: Path) -> None:
    given = {
        "bf16": torch.linspace(-3, 3, 9).to(torch.bfloat16),
        "e4m3": torch.linspace(-3, 3, 9).to(torch.float8_e4m3fn),
        "e5m2": torch.linspace(-3, 3, 9).to(torch.float8_e5m2),
    }
    safetensors.torch.save_file(given, tmp_path / "w")
    read = read_safetensors(tmp_path / "w")
    for name, tensor in given.items():
        np.testing.assert_array_equal(read[name].astype(np.float32), tensor.float().numpy())
    assert read["bf16"].dtype == ml_dtypes.bfloat16
    write_safetensors(tmp_path / "again", dict(read))
    again = safetensors.torch.load_file(tmp_path / "again")
    for name, tensor in given.items():
        assert torch.equal(again[name].float(), tensor.float())


def test_what_we_write_is_aligned_and_reads_back(tmp_path: Path) -> None:
    given = tensors()
    write_safetensors(tmp_path / "w", given)
    read = read_safetensors(tmp_path / "w")
    assert list(read) == list(given)
    for name, array in given.items():
        assert read.entries[name].start % 64 == 0
        np.testing.assert_array_equal(read[name], array)
    write_safetensors(tmp_path / "big", {"x": np.arange(5, dtype=">i4")})
    np.testing.assert_array_equal(read_safetensors(tmp_path / "big")["x"], np.arange(5))


def test_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "w", {"x": np.ones(1000, np.float32)})
    array = read_safetensors(tmp_path / "w")["x"]
    assert array.base is not None
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2


def test_a_dtype_that_the_format_lacks(tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match="no dtype for complex128"):
        write_safetensors(tmp_path / "w", {"x": np.zeros(2, np.complex128)})
    assert dtype_name(np.dtype(">f4")) == "F32"


def file_of(header: object, data: bytes = b"\0" * 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: object = "F32", shape: object = (4,), offsets: object = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has 0 bytes"),
        (b"1234567", "has 7 bytes"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "claims 4611686018427387904 bytes"),
        ((3).to_bytes(8, "little") + b"{}", "claims 3 bytes"),
        (file_of(b"not json"), "is no JSON"),
        (file_of(b"\xff\xff"), "is no JSON"),
        (file_of(b"[" * 200_000), "is no JSON"),
        (file_of([]), "is no table"),
        (file_of({"a": 1}), "entry for 'a' is no table"),
        (file_of({"__metadata__": 3}), "__metadata__"),
        (file_of({"a": entry(dtype="F7")}), "unknown dtype 'F7'"),
        (file_of({"a": entry(dtype=["F32"])}), "unknown dtype"),
        (file_of({"a": entry(shape=(-4,))}), "no valid shape"),
        (file_of({"a": entry(shape=(4.0,))}), "no valid shape"),
        (file_of({"a": entry(shape=(True,))}), "no valid shape"),
        (file_of({"a": entry(shape=7)}), "no valid shape"),
        (file_of({"a": entry(shape=(1,) * 65)}), "no valid shape"),
        (file_of({"a": entry(shape=(2**62, 4))}), "needs .* bytes, but has 16"),
        (file_of({"a": entry(shape=(0, 2**62), offsets=(0, 16))}), "needs 0 bytes"),
        (file_of({"a": entry(offsets=(0, 20))}), "ends at byte .*truncated"),
        (file_of({"a": entry(offsets=(16, 0))}), "no valid data_offsets"),
        (file_of({"a": entry(offsets=(0,))}), "no valid data_offsets"),
        (file_of({"a": entry(offsets=(-16, 0))}), "no valid data_offsets"),
        (file_of({"a": entry(offsets=None)}), "no valid data_offsets"),
        (file_of({"a": entry(), "b": entry(shape=(2,), offsets=(8, 16))}), "'a' and 'b' overlap"),
        (file_of(b'{"a": {}, "a": {}}'), "lists 'a' twice"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_a_clear_error(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(SafetensorsError, match=reason) as error:
        read_safetensors(tmp_path / "w.safetensors")
    assert "w.safetensors" in str(error.value)
    assert isinstance(error.value, ModuleError)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match="No such file"):
        read_safetensors(tmp_path / "nothing")
    with pytest.raises(SafetensorsError, match="Is a directory"):
        read_safetensors(tmp_path)


def test_an_empty_axis_may_be_long_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(file_of({"a": entry(shape=(0, 5), offsets=(16, 16))}))
    assert read_safetensors(tmp_path / "w")["a"].shape == (0, 5)


def test_bytes_that_are_no_booleans_become_true(tmp_path: Path) -> None:
    content = file_of({"a": entry("BOOL", (4,), (0, 4))}, b"\0\1\2\xff")
    (tmp_path / "w").write_bytes(content)
    assert read_safetensors(tmp_path / "w")["a"].view(np.uint8).tolist() == [0, 1, 1, 1]


@given(st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_is_an_error_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "w"
    write_safetensors(
        path, {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, "?")}
    )
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw), 200) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        arrays = dict(read_safetensors(path))
    except SafetensorsError:
        return
    for array in arrays.values():
        np.asarray(array).sum()
