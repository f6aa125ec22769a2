"""The block tree: grouping, shared layers, folding."""

from __future__ import annotations

from graphc.diagram.cost import Costs
from graphc.diagram.tree import Block, build, fold, layers_of
from graphc.ir.graph import Graph
from graphc.ops import Add
from tests.diagram.models import N, Net, is_layer, lenet, resnet


def tree(graph: Graph) -> Block:
    fixed = Costs(graph).fixed
    inputs = {n.id for n in graph.inputs}
    return build(graph, [n for n in graph.nodes if n.id not in fixed and n.id not in inputs])


def outline(block: Block) -> list[object]:
    return [
        (p.path, p.kind, p.times, outline(p)) if isinstance(p, Block) else p.op.name
        for p in block.parts
    ]


def test_layers_of_a_chain() -> None:
    root = tree(lenet())
    assert [b.path for b in root.blocks][:4] == ["conv1", "tanh1", "avgpool2d1", "conv2"]
    assert [p.op.name for p in root.blocks[0].parts if not isinstance(p, Block)] == [
        "conv_general",
        "add",
    ]
    assert layers_of(root, is_layer) == {b.path for b in root.blocks}


def test_dotted_labels_make_groups_and_repeats_fold() -> None:
    graph = resnet()
    root = fold(graph, tree(graph))
    stem, layer1, layer2, *_ = root.blocks
    assert (stem.kind, layer1.kind, layer2.kind) == ("Conv2d", "", "")
    assert (layer1.common_kind, layer2.common_kind) == ("Basic", "Basic")
    assert [(b.path, b.times) for b in layer1.blocks] == [("layer1.0", 2)]
    assert [(b.path, b.times) for b in layer2.blocks] == [("layer2.0", 1), ("layer2.1", 3)]
    assert [r.path for r in layer2.blocks[1].repeats] == ["layer2.2", "layer2.3"]
    assert len(layer2.blocks[1].all_nodes) == 3 * len(layer2.blocks[1].nodes)


def test_only_numbered_neighbours_fold() -> None:
    net = Net("Heads")
    x = net.input("x", N, 8)
    query, key, h2, h4 = (net.linear(x, label, 8) for label in ("query", "key", "h2", "h4"))
    graph = net.b.build([("a", net.b(Add(), query, key)), ("b", net.b(Add(), h2, h4))])
    assert [b.times for b in fold(graph, tree(graph)).blocks] == [1, 1, 1, 1]


def test_blocks_that_differ_do_not_fold() -> None:
    net = Net("Widths")
    x = net.input("x", N, 8)
    for i, width in enumerate([8, 8, 16]):
        x = net.linear(x, f"fc{i}", width)
    graph = net.b.build([("y", x)])
    assert [(b.path, b.times) for b in fold(graph, tree(graph)).blocks] == [("fc0", 2), ("fc2", 1)]


def test_a_layer_called_again_is_a_block_of_its_own() -> None:
    net = Net("Shared")
    x = net.input("x", N, 8)
    x = net.linear(net.relu(net.linear(x, "fc", 8), "relu"), "fc", 8)
    root = tree(net.b.build([("y", x)]))
    assert [b.path for b in root.blocks] == ["fc", "relu", "fc (2)"]


def test_every_node_is_in_the_tree_once() -> None:
    graph = resnet()
    root = tree(graph)

    def ids(block: Block) -> list[int]:
        return [i for p in block.parts for i in (ids(p) if isinstance(p, Block) else [p.id])]

    assert sorted(ids(root)) == [n.id for n in root.nodes]


def test_a_huge_graph_is_no_trouble() -> None:
    net = Net("Huge")
    x = net.input("x", N, 8)
    for i in range(7000):
        x = net.relu(net.b(Add(), x, x), f"relu{i % 3}")
        x = net.relu(x, "out")
    graph = net.b.build([("y", x)])
    assert len(tree(graph).nodes) == 21_000
