"""NumPy's files: what is read, what is mapped, and what is refused without taking memory."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from graphc.artifact.npy import ArrayFileError, map_npy, read_npy, read_npz


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
    np.savez(tmp_path / "plain.npz", other=np.zeros(3), first=array)
    for found in (
        map_npy(tmp_path / "a.npy"),
        read_npz(tmp_path / "plain.npz", mapped=True)["first"],
        read_npz(tmp_path / "a.npz", mapped=True)["first"],
    ):
        np.testing.assert_array_equal(found, array)


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
    with pytest.raises(ArrayFileError, match=message.replace("larger than", "truncated")):
        map_npy(tmp_path / "a.npy")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("x.npy", data)
        with pytest.raises(ArrayFileError):
            read_npz(tmp_path / "a.npz", mapped=True)


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


def test_a_plain_archive_is_mapped_and_takes_no_memory(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(1000.0), y=np.arange(3))
    arrays = read_npz(tmp_path / "a.npz", mapped=True, limit=0)
    np.testing.assert_array_equal(arrays["x"], np.arange(1000.0))
    assert not arrays["x"].flags.writeable and not arrays["x"].flags.owndata


def test_many_members_share_one_limit(tmp_path: Path) -> None:
    """A small archive of zeros unpacks to a thousand times its size: the sum is what counts."""
    np.savez_compressed(tmp_path / "bomb.npz", **{f"x{i}": np.zeros(1 << 17) for i in range(8)})
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 14
    assert len(read_npz(tmp_path / "bomb.npz", limit=8 << 20)) == 8
    with pytest.raises(ArrayFileError, match=r"x7\.npy is larger than"):
        read_npz(tmp_path / "bomb.npz", limit=(8 << 20) - 1)


def test_an_archive_that_is_altered_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(100.0))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[:4] = b"XXXX"
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ArrayFileError, match="damaged"):
        read_npz(tmp_path / "a.npz", mapped=True)
    np.savez_compressed(tmp_path / "b.npz", x=np.arange(100.0))
    data = bytearray((tmp_path / "b.npz").read_bytes())
    data[60:80] = bytes(20)
    (tmp_path / "b.npz").write_bytes(data)
    with pytest.raises(ArrayFileError):
        read_npz(tmp_path / "b.npz")
