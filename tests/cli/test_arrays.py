"""Array files: what is read, and what is refused without taking memory."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from graphc.cli.arrays import (
    ArrayFileError,
    check_output_path,
    read_inputs,
    read_npy,
    read_npz,
    write_outputs,
)


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return out.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">f4"),
        np.array(2.5, np.float16),
        np.zeros((0, 4), bool),
    ],
)
def test_plain_arrays_come_back(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", first=array)
    for found in (read_npy(tmp_path / "a.npy"), read_npz(tmp_path / "a.npz")["first"]):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype.newbyteorder("=")
        assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no .npy file"),
        (b"not an array", "no .npy file"),
        (b"\x93NUMPY\x07\x00" + b"x" * 20, "format version"),
        (header((1 << 40,)), "larger than"),
        (header((1 << 20,)), "truncated"),
        (header((2,)) + b"1234", "truncated"),
        (header((-1,)) + b"1234", "negative"),
        (pickle.dumps(3), "no .npy file"),
        (header((1,), "|O") + pickle.dumps([print]), "Python objects"),
    ],
)
def test_bad_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ArrayFileError, match=message):
        read_npy(tmp_path / "a.npy")


def test_bad_archives_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"PK no zip")
    with pytest.raises(ArrayFileError, match=r"no \.npz file"):
        read_npz(bad)
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("x.npy", header((1 << 33,)))
    with pytest.raises(ArrayFileError, match="larger than"):
        read_npz(bad)
    with pytest.raises(ArrayFileError, match="No such file"):
        read_npz(tmp_path / "gone.npz")


def test_inputs_have_names(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(2))
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.ones(3))
    assert set(read_inputs([str(tmp_path / "two.npz")], ["a", "b"])) == {"a", "b"}
    assert set(read_inputs([str(tmp_path / "a.npy")], ["image"])) == {"image"}
    with pytest.raises(ArrayFileError, match="say which input it is"):
        read_inputs([str(tmp_path / "a.npy")], ["a", "b"])
    with pytest.raises(ArrayFileError, match="holds 2 arrays"):
        read_inputs([f"a={tmp_path / 'two.npz'}"], ["a", "b"])
    with pytest.raises(ArrayFileError, match="given twice"):
        read_inputs([f"a={tmp_path / 'a.npy'}", str(tmp_path / "two.npz")], ["a", "b"])


def test_outputs_are_checked_before_and_written_after(tmp_path: Path) -> None:
    for name, outputs in (("x.txt", ["y"]), ("x.npy", ["y", "z"])):
        with pytest.raises(ArrayFileError):
            check_output_path(tmp_path / name, outputs)
    check_output_path(tmp_path / "x.npz", ["y", "z"])
    write_outputs(tmp_path / "x.npz", {"y": np.ones(2), "file": np.zeros(1)})
    assert set(np.load(tmp_path / "x.npz")) == {"y", "file"}
    with pytest.raises(ArrayFileError, match="cannot write"):
        write_outputs(tmp_path / "no" / "x.npz", {"y": np.ones(2)})
