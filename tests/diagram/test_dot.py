"""What pictures say and how they are put together."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from graphc.autodiff import gradients
from graphc.diagram import style
from graphc.diagram.dot import DiagramError, Failure, draw
from graphc.diagram.render import render
from graphc.ir.graph import Graph, GraphBuilder, Scope
from graphc.ops import Add, DotGeneral, Tanh, arith
from graphc.passes import pipeline
from tests.diagram.models import SOURCE, N, Net, is_layer, lenet, resnet
from tests.frontend.helpers import load


def nodes(dot: str) -> list[str]:
    return re.findall(r'^\t+(\S+|".*?") \[label=<', dot, flags=re.M)


def edges(dot: str) -> list[tuple[str, str]]:
    found = re.findall(r'^\t(".*?"|\S+) -> (".*?"|\S+) \[', dot, flags=re.M)
    return [(a.strip('"'), b.strip('"')) for a, b in found]


def pictured(graph: Graph, **options: object) -> str:
    return draw(graph, is_layer=is_layer, **options)  # type: ignore[arg-type]


def test_lenet_shows_layers_shapes_and_costs() -> None:
    dot = pictured(lenet())
    assert "conv1: Conv2d" in dot
    assert "5×5 · padding 2" in dot
    assert "156 params · 240 KFLOP" in dot
    assert "61.7 K parameters · 854 KFLOP for N = 1" in dot
    assert 'label=" N×6×28×28 "' in dot
    assert "f32[N, 1, 28, 28]" in dot
    assert len(edges(dot)) == 13
    assert edges(dot)[0] == ("input/0", "conv1")
    assert edges(dot)[-1] == ("fc3", "output/logits")


def test_dims_change_what_flops_are_counted_for() -> None:
    assert "8.54 MFLOP for N = 10" in pictured(lenet(), dims={"N": 10})


def test_depth_opens_and_closes_blocks() -> None:
    graph = resnet()
    none, one, all_ = (pictured(graph, depth=d) for d in (0, 1, 9))
    assert edges(none) == [("input/0", "/model"), ("/model", "output/logits")]
    assert ("stem", "layer1") in edges(one)
    assert ("layer1", "layer2") in edges(one)
    assert "Basic × 4" in one
    assert "subgraph" not in one
    assert ("layer2.0.conv1", "layer2.0.relu") in edges(all_)
    assert "Basic × 3" in all_
    assert "layer2.1 – 3" in all_
    assert "layer2.2" not in re.sub("tooltip=.*", "", all_)


def test_one_stage_opens_alone() -> None:
    dot = pictured(resnet(), depth=1, opened=["layer2"])
    assert ("layer1", "layer2.0") in edges(dot)
    assert ("layer2.0", "layer2.1") in edges(dot)
    assert ("layer2.1", "flatten") in edges(dot)


def test_folded_blocks_have_no_edge_to_themselves() -> None:
    assert all(a != b for a, b in edges(pictured(resnet((2, 6)))))


def test_ops_opens_layers() -> None:
    dot = pictured(lenet(), ops=True)
    assert ("conv1/conv_general", "conv1/add") in edges(dot)
    assert ("conv1/add", "tanh1") in edges(dot)


def test_a_long_net_opens_only_as_far_as_it_stays_readable() -> None:
    net = Net("Wide")
    x = net.input("x", N, 8)
    for i in range(40):
        with net.block(f"part{i}", "Part"):
            for j in range(3):
                x = net.linear(net.relu(x, f"relu{j}"), f"fc{j}", 8 + i)
    dot = pictured(net.b.build([("y", x)]))
    assert ("part0", "part1") in edges(dot)


def test_wrong_requests_are_errors() -> None:
    with pytest.raises(DiagramError, match="did you mean `layer1`"):
        pictured(resnet(), opened=["layr1"])
    with pytest.raises(DiagramError, match="down or right"):
        pictured(lenet(), direction="up")
    net = Net("Huge")
    x = net.input("x", N, 8)
    for _ in range(1501):
        x = net.b(Tanh(), x)
    with pytest.raises(DiagramError, match="1501 boxes"):
        pictured(net.b.build([("y", x)]))


def test_shared_weights_are_said() -> None:
    net = Net("Tied")
    x = net.input("x", N, 8)
    with net.block("fc", "Linear"):
        weight = net.parameter("weight", 8, 8)
        x = net.b(DotGeneral((), (), (1,), (1,)), x, weight)
    x = net.relu(x, "relu")
    with net.block("fc", "Linear"):
        x = net.b(DotGeneral((), (), (1,), (1,)), x, weight)
    dot = pictured(net.b.build([("y", x)]))
    assert "64 parameters" in dot
    assert dot.count("64 params") == 1
    assert dot.count("shares fc.weight") == 1


def partial_graph() -> tuple[Graph, Failure]:
    """A net up to the layer that fails."""
    net = Net("Broken")
    with net.block("conv1", "Conv2d"):
        pass
    x = net.conv(net.input("image", N, 3, 8, 8), "conv1", 4, 3)
    graph = net.b.build([])
    span = SOURCE.span(0, 4)
    scope = (Scope("head.fc1", "Linear", span),)
    message = "Linear `fc1` was declared for 400 input features but gets 256"
    return graph, Failure(message, "fc1: Linear", (x,), scope, span)


def test_the_failing_layer_is_drawn_and_marked() -> None:
    graph, failure = partial_graph()
    dot = pictured(graph, failures=[failure])
    assert "✗ fc1: Linear" in dot
    assert "400 input features" in dot
    assert style.FAILED.stroke in dot
    assert ("conv1", "/failed0") in edges(dot)


def test_a_failure_inside_a_closed_layer_marks_the_layer() -> None:
    graph, _ = partial_graph()
    failure = Failure("kernel larger than input", "Conv2d", (), (Scope("conv1", "Conv2d"),))
    dot = pictured(graph, failures=[failure])
    assert "✗ conv1: Conv2d" in dot
    assert len(nodes(dot)) == 2


def test_names_cannot_break_out(tmp_path: Path) -> None:
    evil = '</TD>"]; a [URL="javascript:x"\\N:\x07<b>'
    net = Net(evil)
    x = net.input(evil, N, 8)
    with net.block(evil, "Evil<i>&amp;"):
        x = net.b(Tanh(), x)
    dot = pictured(net.b.build([(evil, x)]), title=evil)
    if shutil.which("dot") is None:
        return
    svg = render(dot, "svg").decode()
    tree = ElementTree.fromstring(svg)
    texts = "".join(tree.itertext())
    assert "javascript:x" in texts
    assert not [
        a for e in tree.iter() for a in e.attrib if "href" in a and "javascript" in e.attrib[a]
    ]
    assert len([e for e in tree.iter() if e.get("class") == "node"]) == 3


def test_svg_has_tooltips_with_source_types_and_attributes() -> None:
    dot = pictured(lenet())
    for shown in (
        "net.nn:",
        "conv_general(f32[N, 1, 28, 28], f32[6, 1, 5, 5])",
        "strides=(1, 1)",
        "parameter conv1.weight",
    ):
        assert shown in dot
        assert shutil.which("dot") is None or shown in render(dot, "svg").decode()


def test_same_text_in_every_process() -> None:
    program = (
        "from tests.diagram.models import resnet, is_layer\n"
        "from graphc.diagram.dot import draw\n"
        "print(draw(resnet(), is_layer=is_layer))"
    )
    found = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, cwd=root, capture_output=True, check=True
        )
        found.add(done.stdout)
    assert found == {pictured(resnet()).encode() + b"\n"}


def test_a_value_that_many_read_has_marks_instead_of_lines() -> None:
    net = Net("Skips")
    x = h = net.input("x", N, 8)
    for _ in range(10):
        h = net.b(Add(), net.b(Tanh(), h), x)
    dot = pictured(net.b.build([("y", h)]))
    assert dot.count("from x") == 10
    assert [a for a, _ in edges(dot)].count("input/0") == 1


def test_gradients_have_a_colour_of_their_own() -> None:
    forward = lenet()
    b = GraphBuilder(forward.name, forward.dims)
    b.nodes = list(forward.nodes)
    loss = arith.sum(b, forward.outputs[0][1])
    (g,) = gradients(b, loss, [forward.inputs[0].values[0]])
    graph = b.build([*forward.outputs, ("g", g)])
    opened, closed = pictured(graph, depth=2), pictured(graph, depth=1)
    assert opened.count(style.BACKWARD_STROKE) == 1
    assert closed.count(style.BACKWARD.fill) == 1
    assert style.BACKWARD_STROKE not in pictured(forward, depth=2)


CHOICE = """model M {
    input x: f32[T, N, 4]
    scan x_t in x with h = zeros([N, 4]) {
        h = x_t + h -> cell: Linear(4)
    }
    cond mean(x) > 0 {
        y = h.last -> deep: Linear(4) -> ReLU
    } else {
        y = sin(h.last)
    }
    output y
}
"""


@pytest.mark.parametrize("after", [None, "fuse"])
def test_loops_and_choices_show_what_is_in_them(after: str | None) -> None:
    graph = load(CHOICE).graph
    if after is not None:
        graph, _ = pipeline.run(graph, until=after)
    lines = [line.partition("label=<")[2] for line in draw(graph).splitlines()]
    shown = [" ".join(re.sub(r"<[^>]*>", " ", line).split()) for line in lines]
    (loop,) = [face for face in shown if face.startswith("scan ")]
    assert "cell: Linear" in loop
    (choice,) = [face for face in shown if face.startswith("cond ")]
    first, _, second = choice.removeprefix("cond true ").partition(" false ")
    assert "deep: Linear" in first and "ReLU relu" in first
    assert second.startswith("sine ")
