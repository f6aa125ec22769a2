"""Commands on modules for GPUs: compiled without one, run on the stand-in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphc.artifact.cuda.build import write_cuda
from tests.artifact.cuda import programs
from tests.cli.shell import graphc, graphc_json
from tests.cuda.fake import emulated

MODEL = "model M(width: int = 4) {\n    input x: f32[N, 8]\n    output y = x -> fc: Linear(width) -> ReLU\n}\n"


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with emulated():
        folder = tmp_path_factory.mktemp("cuda") / "linear"
        return write_cuda(programs.linear_spec(), programs.linear_program(), folder)


def test_compile_and_inspect_need_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "m.nn").write_text(MODEL)
    made = tmp_path / "m.module"
    shown = graphc("compile", tmp_path / "m.nn", "-o", made, "--target", "cuda:sm_80")
    assert "compiled M" in shown.stdout and "kernels.cu" in shown.stdout
    found = graphc_json("inspect", made)
    assert found["ok"] and found["manifest"]["target"]["name"] == "cuda:sm_80"
    said = graphc("inspect", made).stdout
    assert "compute capability 8.0 or later; driver 580 or later" in said
    assert "CPU features" not in said


def test_unknown_architectures_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.nn").write_text(MODEL)
    command = ("compile", tmp_path / "m.nn", "-o", tmp_path / "m", "--target", "cuda:sm90")
    assert "did you mean cuda:sm_90?" in graphc(*command, code=1).stderr


def test_run_bench_profile(linear: Path, tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    np.save(tmp_path / "x.npy", x)
    graphc("run", linear, f"x={tmp_path / 'x.npy'}", "-o", tmp_path / "y.npy")
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), programs.linear(x), rtol=1e-6, atol=1e-6
    )
    measured = graphc_json("bench", linear, "--dim", "N=2", "--seconds", "0.05")
    assert measured["calls"] >= 3 and [k["label"] for k in measured["kernels"]] == [
        "linear",
        "relu",
    ]
    assert "GPU 0" in graphc("bench", linear, "--dim", "N=2", "--seconds", "0.05").stdout
    profiled = graphc("profile", linear, "--dim", "N=2", "--calls", "2")
    assert "GPU 0" in profiled.stdout and "those of a GPU are not measured" in profiled.stderr
