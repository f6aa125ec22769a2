"""`--gradient` and `--train`: the graphs of training, as text and as pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc.ir.reader import read_graph
from graphc.ops import OPS
from tests.cli.shell import graphc as run

TEXT = """
model Net {
    input x: f32[N, 4]
    output y = x -> fc1: Linear(8) -> ReLU -> fc2: Linear(1)
    output size = mean(y * y)
}

train Net {
    input t: f32[N, 1]
    loss mean((y - t) ** 2)
    optimizer SGD(lr=0.1)
    freeze fc1
}
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.nn"
    path.write_text(TEXT)
    return path


def test_the_graphs_of_training_as_text(net: Path) -> None:
    whole = read_graph(run("dump", str(net), "--train").stdout, OPS)
    assert [name for name, _ in whole.results] == ["loss", "lr"]
    assert [n.op.label for n, _ in whole.state] == ["fc2.weight", "fc2.bias", "step"]
    loss = read_graph(run("dump", str(net), "--gradient").stdout, OPS)
    assert [n for n, _ in loss.outputs] == ["loss", "grad_fc2.weight", "grad_fc2.bias"]
    size = read_graph(run("dump", str(net), "--gradient", "size").stdout, OPS)
    assert len(size.outputs) == 5


def test_a_step_as_a_picture(net: Path) -> None:
    dot = run("draw", str(net), "--train").output
    assert all(word in dot for word in ("a training step", "grad", "optimizer", "next state"))
    assert "optimizer.momentum_buffer" not in dot


def test_what_cannot_be_shown(net: Path) -> None:
    assert "one of the two" in run("dump", str(net), "--train", "--gradient", "y", code=2).output
    assert "did you mean" in run("dump", str(net), "--gradient", "siz", code=2).output
