"""What the pipeline leaves of transposes in the example networks, as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc import frontend
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.ir.reader import read_graph
from graphc.ops import OPS, Fusion, Transpose
from graphc.passes import pipeline
from graphc.passes.fuse import static_nodes

EXAMPLES = Path(__file__).parents[2] / "examples"
ENTRY = "= transpose(%image) {permutation = [0, 2, 3, 1]} : f32[N, "


def optimised(name: str) -> Graph:
    return pipeline.run(frontend.load(EXAMPLES / name).graph, until="halo")[0]


def transposes(graph: Graph) -> list[str]:
    """Lines of the run-time transposes in the printed graph."""
    static = static_nodes(graph)
    kept = {f"%{n.id} =" for n in graph.nodes if n.id not in static}
    lines = [line.strip() for line in print_graph(graph).splitlines() if "= transpose(" in line]
    return [line for line in lines if line.startswith(tuple(kept))]


@pytest.mark.parametrize(
    "name", ["alexnet.nn", "mobilenet_v2.nn", "resnet18.nn", "resnet50.nn", "vgg16.nn"]
)
def test_one_transpose_at_the_entry_and_none_inside(name: str) -> None:
    (line,) = transposes(optimised(name))
    assert ENTRY in line


def test_one_channel_and_no_pixels_need_no_transpose() -> None:
    assert transposes(optimised("lenet.nn")) == []
    assert transposes(optimised("mlp.nn")) == []


def test_unet_turns_its_picture_at_both_ends_only() -> None:
    """Inside, only transposed convolutions move pixels, which is what they do."""
    graph = optimised("unet.nn")
    first, *inside, last = transposes(graph)
    assert ENTRY in first
    assert all(line.endswith("ConvTranspose2d") for line in inside)
    (output,) = graph.outputs
    assert last.startswith(f"%{output[1].node} = ")


@pytest.mark.parametrize("name", ["bert_base.nn", "gpt2_small.nn", "transformer_encoder.nn"])
def test_attention_reads_and_stores_heads_where_the_projections_have_them(name: str) -> None:
    graph, _ = pipeline.run(frontend.load(EXAMPLES / name).graph)
    kernels = [n.op for n in graph.nodes if isinstance(n.op, Fusion)]
    attentions = [k for k in kernels if k.kind == "attention"]
    assert len(attentions) == (6 if name == "transformer_encoder.nn" else 12)
    for kernel in kernels:
        moves = [n.op for n in kernel.body.nodes if n.op.name == "transpose"]
        assert not moves or kernel.kind == "attention"
        assert all(op == Transpose((0, 2, 1, 3)) for op in moves)


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.nn")))
def test_examples_print_and_parse(name: str) -> None:
    graph = frontend.load(EXAMPLES / name).graph
    for stage in (graph, pipeline.run(graph)[0]):
        assert read_graph(print_graph(stage), OPS) == stage
