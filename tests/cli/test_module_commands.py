"""run, inspect, bench: what is done with a compiled module."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.artifact.modules import linear as expected
from tests.cli.shell import graphc, graphc_json

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def x(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def test_run_takes_npy_and_npz(linear: Path, x: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=X)
    for given in (f"x={x}", x, tmp_path / "all.npz", f"x={tmp_path / 'all.npz'}"):
        out = tmp_path / "out.npz"
        shown = graphc("run", linear, given, "-o", out)
        assert f"wrote {out}" in shown.stderr
        assert "float32[2, 3]" in shown.stdout
        np.testing.assert_allclose(np.load(out, allow_pickle=False)["y"], expected(X), rtol=1e-6)
        out.unlink()


def test_run_writes_a_single_output_as_npy(linear: Path, x: Path, tmp_path: Path) -> None:
    graphc("run", linear, f"x={x}", "-o", tmp_path / "y.npy")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected(X), rtol=1e-6)


def test_run_json_has_the_values(linear: Path, x: Path, tmp_path: Path) -> None:
    found = graphc_json("run", linear, f"x={x}")
    assert found["outputs"]["y"]["dtype"] == "float32"
    np.testing.assert_allclose(found["outputs"]["y"]["values"], expected(X), rtol=1e-6)
    np.save(tmp_path / "nan.npy", np.full((1, 4), np.nan, np.float32))
    values = graphc_json("run", linear, tmp_path / "nan.npy")["outputs"]["y"]["values"]
    assert values == [["nan"] * 3]


def test_run_reports_what_is_wrong(linear: Path, lookup: Path, x: Path, tmp_path: Path) -> None:
    def says(*args: object) -> str:
        return graphc("run", *args, code=1).stderr

    assert "is missing" in says(linear)
    assert "did you mean `x`" not in says(linear, f"y={x}")
    assert "has no input `y`" in says(linear, f"y={x}")
    assert "x.npy: No such file" in says(linear, "x=no/x.npy")
    assert "given twice" in says(linear, f"x={x}", f"x={x}")
    assert "no compiled module" in says(tmp_path, f"x={x}")
    assert "to a .npz or .npy file" in says(linear, f"x={x}", "-o", "y.txt")
    np.save(tmp_path / "far.npy", np.array([1, 7]))
    assert "index 7 is out of range" in says(lookup, tmp_path / "far.npy")
    np.save(tmp_path / "double.npy", X.astype(np.float64))
    assert "f64" in says(linear, tmp_path / "double.npy")


def test_inspect_verifies_and_describes(linear: Path) -> None:
    shown = graphc("inspect", linear, "--kernels").stdout
    for text in (
        "Linear",
        "x: f32[N, 4]",
        "1 <= N",
        "module.so",
        "linear.nn:3:5",
        "all files verified",
    ):
        assert text in shown
    found = graphc_json("inspect", linear)
    assert found["ok"] is True
    assert found["manifest"]["inputs"][0]["name"] == "x"


def test_inspect_finds_an_altered_file(linear: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(linear, copy)
    (copy / "graph.txt").write_text("graph Other {}\n")
    (copy / "module.h").unlink()
    shown = graphc("inspect", copy, code=1).stdout
    assert "graph.txt" in shown
    assert "altered" in shown
    assert len(graphc_json("inspect", copy, code=1)["problems"]) == 2


def test_profile_shows_every_kernel_beside_the_peaks(linear: Path) -> None:
    shown = graphc("profile", linear, "--dim", "N=5", "--threads", "1", "--calls", "2").stdout
    assert "Machine" in shown and "of peak" in shown
    found = graphc_json("profile", linear, "--dim", "N=5", "--calls", "2", "--sort")
    assert found["peaks"]["gflops"] > 0 and found["peaks"]["gbytes"] > 0
    seconds = [k["seconds"] for k in found["kernels"]]
    assert len(seconds) == 2 and seconds == sorted(seconds, reverse=True)


def test_profile_does_without_peaks_where_there_is_no_compiler(
    linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no peaks" in graphc("profile", linear, "--calls", "1").output
    assert graphc_json("profile", linear, "--calls", "1")["peaks"] is None


def test_bench_reports_time_and_kernels(linear: Path) -> None:
    shown = graphc("bench", linear, "--dim", "N=5", "--threads", "1", "--seconds", "0.01").stdout
    for text in ("Median", "Spread", "GFLOP/s", "linear.nn:3:5", "x [5, 4]", "1 thread"):
        assert text in shown
    found = graphc_json("bench", linear, "--dim", "N=5", "--seconds", "0.01")
    assert found["inputs"] == {"x": [5, 4]}
    assert found["flops"] == 5 * (24 + 3)
    assert found["calls"] >= 3
    seconds = found["seconds"]
    assert 0 < seconds["min"] <= seconds["p10"] <= seconds["median"] <= seconds["max"]
    assert [k["source"] for k in found["kernels"]] == ["linear.nn:3:5", "linear.nn:3:20"]


def test_bench_takes_inputs_and_checks_dims(linear: Path, lookup: Path, x: Path) -> None:
    assert graphc_json("bench", linear, f"x={x}", "--seconds", "0.01")["inputs"] == {"x": [2, 4]}
    assert "has no dim `M`" in graphc("bench", linear, "--dim", "M=5", code=1).stderr
    huge = ("--dim", f"N={1 << 40}")
    assert "would be larger than" in graphc("bench", linear, *huge, code=1).stderr
    assert graphc_json("bench", lookup, "--dim", "N=3", "--seconds", "0.01")["calls"] >= 3
