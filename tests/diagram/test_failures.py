"""From diagnostics to marks in a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc.diagram.dot import draw
from graphc.diagram.failures import mark
from graphc.diagram.scene import Failure
from graphc.frontend import ElaborationError, load
from graphc.ir.graph import Graph


def broken(tmp_path: Path, text: str) -> tuple[Graph, list[Failure]]:
    path = tmp_path / "m.nn"
    path.write_text(text)
    with pytest.raises(ElaborationError) as caught:
        load(path)
    assert caught.value.partial is not None
    return mark(caught.value.partial, caught.value.diagnostics)


def test_a_failed_layer_hangs_on_what_it_was_given(tmp_path: Path) -> None:
    graph, (failure,) = broken(
        tmp_path,
        "model M {\n    input x: f32[N, 4]\n    output y = x -> fc1: Linear(3) -> fc2: Linear(2, in_features=9)\n}\n",
    )
    assert graph.outputs == ()
    assert failure.name == "fc2: Linear(2, in_features=9)"
    assert "gets 3" in failure.message
    (given,) = failure.operands
    assert [s.label for s in graph.node(given.node).scope] == ["fc1"]


def test_each_mistake_has_its_own_mark(tmp_path: Path) -> None:
    graph, failures = broken(
        tmp_path,
        "model M {\n    input a: f32[N, 4]\n    input b: f32[N, 5]\n"
        "    output y = a -> p: Linear(2, in_features=1)\n"
        "    output z = b -> q: Linear(2, in_features=1)\n}\n",
    )
    given = [[graph.node(v.node).op.attributes()["label"] for v in f.operands] for f in failures]
    assert given == [["a"], ["b"]]
    assert draw(graph, failures=failures).count("✗ ") == 2


def test_a_mistake_in_a_block_is_marked_in_the_block(tmp_path: Path) -> None:
    graph, (failure,) = broken(
        tmp_path,
        "block B(x: f32[N, C]) {\n    return x -> one: Linear(6) -> two: Linear(2, in_features=9)\n}\n"
        "model M {\n    input x: f32[N, 4]\n    output y = x -> body: B\n}\n",
    )
    assert [s.label for s in failure.scope] == ["body"]
    dot = draw(graph, failures=[failure], depth=2)
    assert '"body/failed0"' in dot


def test_operands_of_an_operator(tmp_path: Path) -> None:
    graph, (failure,) = broken(
        tmp_path,
        "model M {\n    input a: f32[N, 4]\n    input b: f32[N, 5]\n    output y = a + b\n}\n",
    )
    labels = {graph.node(v.node).op.attributes()["label"] for v in failure.operands}
    assert labels == {"a", "b"}
    assert failure.name == "a + b"
