"""check, summary, draw, dump, compile: what is done with a `.nn` file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from graphc.passes import pipeline
from tests.cli.shell import graphc, graphc_json

TINY = """\
model Tiny(hidden: int = 8) {
    input x: f32[N, 4]
    output y = x -> fc1: Linear(hidden) -> ReLU -> fc2: Linear(3)
}
"""
BROKEN = """\
model Broken {
    input image: f32[N, 3, 8, 8]
    h = image -> conv1: Conv2d(4, 3) -> Flatten
    output y = h -> fc1: Linear(10, in_features=100)
    output z = h -> fc2: Linear(10, in_features=50)
}
"""
TWO = """\
model A {
    input x: f32[N, 4]
    output y = x -> Linear(2, in_features=5)
}
model B {
    input x: f32[N, 4]
    output y = x -> Linear(2, in_features=6)
}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.nn"
    path.write_text(TINY)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.nn"
    path.write_text(BROKEN)
    return path


def test_check_reports_all_mistakes_of_all_files(tiny: Path, broken: Path) -> None:
    assert graphc("check", tiny).stderr == "1 file checked, no mistakes\n"
    shown = graphc("check", tiny, broken, code=1).stderr
    assert "broken.nn:4:21" in shown
    assert "broken.nn:5:21" in shown
    assert shown.endswith("2 errors in 2 files\n")
    found = graphc_json("check", broken, code=1)
    assert [d["primary"]["line"] for d in found["diagnostics"]] == [4, 5]
    assert graphc_json("check", tiny) == {"ok": True, "diagnostics": []}
    assert "gone.nn: No such file" in graphc("check", "gone.nn", code=1).stderr


def test_check_takes_every_model_of_a_file_and_files_without_one(tmp_path: Path) -> None:
    (tmp_path / "two.nn").write_text(TWO)
    lines = [
        d["primary"]["line"]
        for d in graphc_json("check", tmp_path / "two.nn", code=1)["diagnostics"]
    ]
    assert lines == [3, 7]
    blocks = tmp_path / "blocks.nn"
    blocks.write_text("block Double(x: f32[N]) {\n    return x + x\n}\n")
    graphc("check", blocks)
    blocks.write_text("block Double(x: f32[N]) {\n    return x + z\n}\n")
    assert "`z`" in graphc("check", blocks, code=1).stderr


def test_summary(tiny: Path) -> None:
    shown = graphc("summary", tiny).stdout
    assert "fc1: Linear" in shown
    assert "67" in shown
    assert (
        graphc_json("summary", tiny, "--set", "hidden=16")["parameters"] == 4 * 16 + 16 + 16 * 3 + 3
    )
    assert graphc_json("summary", tiny, "--dim", "N=7")["outputs"] == [
        {"name": "y", "type": "f32[7, 3]"}
    ]
    assert "hiden" in graphc("summary", tiny, "--set", "hiden=16", code=1).stderr
    assert "`M`" in graphc("summary", tiny, "--dim", "M=7", code=1).stderr


def test_draw_writes_the_format_of_the_name(tiny: Path, tmp_path: Path) -> None:
    assert "fc1: Linear" in graphc("draw", tiny).stdout
    graphc("draw", tiny, "-o", tmp_path / "x.dot", "--right", "--ops")
    assert "rankdir=LR" in (tmp_path / "x.dot").read_text()
    assert ".svg, .png, .pdf, .dot" in graphc("draw", tiny, "-o", "x.gif", code=1).stderr
    assert "there is no block `fc3`" in graphc("draw", tiny, "--open", "fc3", code=1).stderr
    if shutil.which("dot"):
        graphc("draw", tiny, "-o", tmp_path / "x.svg")
        assert (tmp_path / "x.svg").read_text().startswith("<?xml")


def test_draw_shows_fused_groups(tiny: Path) -> None:
    dot = graphc("draw", tiny, "--after", "fuse").stdout
    assert "Tiny after fuse" in dot
    assert "fused dot_general" in dot
    assert (
        "no pass 'fus'; did you mean 'fuse'"
        in graphc("draw", tiny, "--after", "fus", code=2).stderr
    )


def test_a_broken_model_is_drawn_with_its_mistakes(broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "broken.dot"
    shown = graphc("draw", broken, "-o", out, code=1).stderr
    assert f"wrote {out}" in shown
    assert "error[E0204]" in shown
    dot = out.read_text()
    assert dot.count("✗ ") == 2
    assert "✗ fc1: Linear(10, in_features=100)" in dot
    assert '"flatten" -> "/failed0"' in dot.replace("flatten ->", '"flatten" ->')
    assert "output/" not in dot


def test_a_file_that_does_not_parse_is_not_drawn(tmp_path: Path) -> None:
    bad = tmp_path / "bad.nn"
    bad.write_text("model {")
    graphc("draw", bad, "-o", tmp_path / "bad.dot", code=1)
    assert not (tmp_path / "bad.dot").exists()


@pytest.mark.parametrize("name", pipeline.names())
def test_dump_shows_any_stage(name: str, tiny: Path) -> None:
    assert "Tiny" in graphc("dump", tiny, "--after", name).stdout


def test_dump_reports_the_passes(tiny: Path) -> None:
    assert [s["pass"] for s in graphc_json("dump", tiny, "--passes")] == list(pipeline.names())
    shown = graphc("dump", tiny, "--passes").stdout
    assert "fuse" in shown
    assert "→" in shown
    assert graphc_json("dump", tiny)["graph"] == graphc("dump", tiny).stdout


def test_compile_run_inspect_bench(tiny: Path, tmp_path: Path) -> None:
    folder, x = tmp_path / "tiny.module", np.ones((2, 4), np.float32)
    shown = graphc("compile", tiny, "-o", folder)
    assert "compiled Tiny in" in shown.stdout
    assert "fresh random" in shown.stderr
    np.save(tmp_path / "x.npy", x)
    values = graphc_json("run", folder, tmp_path / "x.npy")["outputs"]["y"]["values"]
    assert np.shape(values) == (2, 3)
    assert values[0] == values[1]
    assert graphc_json("inspect", folder)["manifest"]["name"] == "Tiny"
    kernels = graphc_json("bench", folder, "--seconds", "0.01")["kernels"]
    assert kernels[0]["source"].startswith("tiny.nn:3:")
    again = graphc_json("compile", tiny, "-o", folder, "--dim", "N=3", "--target", "x86-64-v3")
    assert again["ok"] is True
    assert again["files"]["module.so"] > 0
    assert json.loads((folder / "manifest.json").read_text())["dims"] == []
    assert again["precision"] == {"name": "f32"}


def test_a_precision_the_target_lacks_is_noted(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny.module"
    arguments = ("compile", tiny, "-o", folder, "--precision", "bf16", "--target", "x86-64-v4")
    assert "note: computed in f32: x86-64-v4 has no AMX tiles" in graphc(*arguments).stderr
    found = graphc_json("inspect", folder)["manifest"]["precision"]
    assert found["name"] == "f32" and "no AMX tiles to compute bf16 with" in found["note"]
    shown = " ".join(graphc("inspect", folder).stdout.split())
    assert "Precision f32 (computed in f32: x86-64-v4 has no AMX" in shown
    graphc("compile", tiny, "-o", folder, "--precision", "half", code=2)


def test_compile_says_what_is_wrong(tiny: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "m")
    assert "Missing option '-o'" in graphc("compile", tiny, code=2).stderr
    assert "x86-64-v9" in graphc("compile", tiny, *out, "--target", "x86-64-v9", code=1).stderr
    gone = ("--weights", tmp_path / "gone.safetensors")
    assert "gone.safetensors" in graphc("compile", tiny, *out, *gone, code=1).stderr
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 64)
    bad = ("--weights", tmp_path / "bad.safetensors")
    assert "bad.safetensors" in graphc("compile", tiny, *out, *bad, code=1).stderr
    assert not (tmp_path / "m").exists()
