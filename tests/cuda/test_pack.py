"""The benchmark's pack: built small, unpacked elsewhere, and run there by what it brings along, on the stand-in."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cuda.fake import library

ROOT = Path(__file__).parents[2]

BUILD = """
import sys
from pathlib import Path
import build_gpu
from gpu_workloads import SMALL
from tests.cuda.fake import emulated
with emulated():
    assert build_gpu.build(SMALL, "cuda", Path(sys.argv[1])) == {}
"""


def test_build_unpack_run(tmp_path: Path) -> None:
    pack = tmp_path / "pack.tar.xz"
    paths = f"{ROOT}:{ROOT / 'benchmarks'}"
    subprocess.run(
        [sys.executable, "-c", BUILD, str(pack)],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
    )
    subprocess.run(["tar", "xf", str(pack)], cwd=tmp_path, check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["LD_LIBRARY_PATH"] = str(library().parent)
    done = subprocess.run(
        [sys.executable, "gpu_pack/gpu.py", "--device", "cpu", "--output", "results.json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())["workloads"]
    names = ["gemm-64", "attention-s64-d64", "softmax", "norm", "lenet"]
    assert list(results) == [*names, "attention-both-ways-s64-d64", "train-mlp-b3-f32"]
    for name, row in results.items():
        assert "errors" not in row, (name, row)
        assert row["right"] and row["ours us"] > 0 and row["eager us"] > 0, (name, row)
    assert done.stdout.splitlines()[-1].startswith("| train-mlp-b3-f32 | yes |")
