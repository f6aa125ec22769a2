"""fmt, explain, layers: what needs no graph."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from graphc.codes import CODES
from graphc.frontend.layers import LAYERS
from tests.cli.shell import graphc, graphc_json

UGLY = "model M {\n  input x:f32[N,4]   # keep me\n  output y=x->ReLU\n}\n"
PRETTY = "model M {\n    input x: f32[N, 4]  # keep me\n    output y = x -> ReLU\n}\n"


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    path = tmp_path / "m.nn"
    path.write_text(UGLY)
    path.chmod(0o640)
    return path


def test_fmt_in_place(ugly: Path) -> None:
    assert f"formatted {ugly}" in graphc("fmt", ugly).stderr
    assert ugly.read_text() == PRETTY
    assert stat.S_IMODE(ugly.stat().st_mode) == 0o640
    assert [p.name for p in ugly.parent.iterdir()] == ["m.nn"]
    assert graphc("fmt", ugly).output == ""


def test_fmt_check_and_diff_change_nothing(ugly: Path) -> None:
    assert "1 file would change" in graphc("fmt", "--check", ugly, code=1).stderr
    diff = graphc("fmt", "--diff", ugly).stdout
    assert "-  input x:f32[N,4]   # keep me\n" in diff
    assert "+    input x: f32[N, 4]  # keep me\n" in diff
    assert ugly.read_text() == UGLY


def test_fmt_stdin() -> None:
    assert graphc("fmt", "-", stdin=UGLY).stdout == PRETTY
    assert "<stdin>:1:" in graphc("fmt", "-", stdin="model {", code=1).stderr
    assert "E0102" in graphc("fmt", "-", stdin=b"\xff\xfe", code=1).stderr


def test_fmt_goes_on_after_a_file_that_does_not_parse(ugly: Path) -> None:
    bad = ugly.parent / "bad.nn"
    bad.write_text("model {\n")
    gone = ugly.parent / "gone.nn"
    errors = graphc("fmt", bad, gone, ugly, code=1).stderr
    assert "bad.nn:1:" in errors
    assert "gone.nn: No such file" in errors
    assert ugly.read_text() == PRETTY


def test_explain_knows_every_code() -> None:
    listed = graphc("explain").stdout
    assert all(code in listed for code in CODES)
    code = min(CODES)
    shown = graphc("explain", f"[{code.lower()}]").stdout
    assert shown.startswith(f"{code}: {CODES[code].title}\n\n")
    assert graphc_json("explain", code)["explanation"] == CODES[code].explanation
    assert len(graphc_json("explain")) == len(CODES)
    assert "did you mean" in graphc("explain", "E01x1", code=1).stderr


def test_layers_show_signatures_and_documentation() -> None:
    listed = graphc("layers").stdout
    assert all(name in listed for name in LAYERS)
    shown = graphc("layers", "Conv2d").stdout
    assert shown.startswith("Conv2d(out_channels: int, kernel_size: ")
    assert "weight" in shown
    assert "softmax(" in graphc("layers", "softmax").stdout
    assert "did you mean `Conv2d`" in graphc("layers", "conv2D", code=1).stderr
    assert graphc_json("layers", "Linear")["kind"] == "layer"
