"""Arrays by name on the command line, and outputs in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphc.artifact.npy import ArrayFileError
from graphc.cli.arrays import check_output_path, read_inputs, write_outputs


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
