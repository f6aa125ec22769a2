"""Graph → DOT text, through the `graphviz` package's Digraph. The same graph gives the same text, always.

Boxes are ops, layers, closed blocks and fused groups; dashed frames are opened blocks; edges carry shapes. The text is
plain DOT: it needs nothing installed, and any Graphviz from 2.40 on lays it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import graphviz

from graphc.autodiff import BACKWARD
from graphc.diagram import describe, style, text
from graphc.diagram.cost import Costs
from graphc.diagram.faces import Faces
from graphc.diagram.markup import block_title, frame_label, small, table
from graphc.diagram.scene import Cluster, DiagramError, Edge, Failure, Scene, Unit, compose
from graphc.diagram.state import settled
from graphc.frontend.layers import LAYERS
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType

__all__ = ["DiagramError", "Failure", "draw"]


def is_layer(kind: str) -> bool:
    """True for the kinds of the built-in layers."""
    return kind in LAYERS


def draw(
    graph: Graph,
    *,
    depth: int | None = None,
    opened: Sequence[str] = (),
    ops: bool = False,
    failures: Sequence[Failure] = (),
    dims: Mapping[str, int] | None = None,
    direction: str = "down",
    title: str | None = None,
    is_layer: Callable[[str], bool] = is_layer,
) -> str:
    """DOT text of a graph, at any stage of the pipeline.

    Args:
        graph: What to draw; a partial graph when `failures` are given.
        depth: How many levels of blocks to show: 1 shows the outermost blocks as boxes, 2 opens them, 0 shows the
            model as one box. Without it, blocks open as long as the picture stays readable (50 boxes).
        opened: Paths of blocks to open beyond the depth, such as `layer2`.
        ops: Open layers, and blocks of plain ops, down to single ops.
        failures: What failed its shape check; marked red, with the message.
        dims: Values of named dims that FLOPs are counted for; others take their upper bound, or 1.
        direction: `down` or `right`.
        title: A heading other than the graph's name.
        is_layer: Which kinds of blocks are layers, closed unless `ops`.

    Raises:
        DiagramError: A path in `opened` does not exist, or the picture would have more than 1500 boxes.
    """
    if direction not in ("down", "right"):
        raise DiagramError(f"a picture goes down or right, not {direction!r}")
    graph = settled(graph)
    costs = Costs(graph, dims)
    scene = compose(
        graph,
        costs,
        is_layer=is_layer,
        depth=depth,
        opened=opened,
        ops=ops,
        failures=failures,
    )
    return _Writer(graph, costs, scene, direction, is_layer).write(title or graph.name)


LEGEND = 5
"""Entries of the legend in one line."""
FAN_OUT = 8
"""Readers of one value that lines are drawn to; where there are more, all but the first get a mark with its name."""


class _Writer:
    def __init__(
        self,
        graph: Graph,
        costs: Costs,
        scene: Scene,
        direction: str,
        is_layer: Callable[[str], bool],
    ) -> None:
        self.graph, self.costs, self.scene = graph, costs, scene
        self.down = direction == "down"
        self.faces = Faces(graph, costs, is_layer)
        self.ids: dict[str, str] = {}
        self.names = {u.id: _plain_name(u) for u in scene.units()}

    def write(self, title: str) -> str:
        dot = graphviz.Digraph("graph")
        body = graphviz.Digraph()
        self.cluster(body, self.scene.root, 0)
        readers = Counter((edge.tail, edge.type) for edge in self.scene.edges)
        joined: set[tuple[str, TensorType]] = set()
        for edge in self.scene.edges:
            value = edge.tail, edge.type
            if readers[value] > FAN_OUT and value in joined:
                self.edge(body, edge, self.stub(body, edge), weight="1")
            else:
                self.edge(body, edge, self.id(edge.tail))
            joined.add(value)
        large = len(self.ids) > 300
        dot.attr(
            "graph",
            label=self.heading(title),
            labelloc="t",
            labeljust="l",
            rankdir="TB" if self.down else "LR",
            bgcolor="white",
            fontname=style.FONT,
            fontcolor=style.INK,
            fontsize=str(style.NAME_SIZE),
            nodesep="0.28",
            ranksep="0.34" if self.down else "0.42",
            pad="0.3",
            tooltip=text.plain(title),
            **({"nslimit": "4", "mclimit": "0.5"} if large else {}),
        )
        dot.attr(
            "node",
            shape="box",
            style="filled,rounded",
            fontname=style.FONT,
            fontsize=str(style.NAME_SIZE),
            fontcolor=style.INK,
            penwidth="1.1",
            margin="0.11,0.055",
            height="0.3",
        )
        dot.attr(
            "edge",
            color=style.EDGE,
            fontname=style.FONT,
            fontsize=str(style.EDGE_SIZE),
            fontcolor=style.MUTED,
            arrowsize="0.6",
            penwidth="1",
        )
        dot.body.extend(body.body)
        return str(dot.source)

    def edge(self, dot: graphviz.Digraph, edge: Edge, tail: str, weight: str = "4") -> None:
        tip = text.plain(f"{edge.type}")
        label = text.plain(f" {text.shape(edge.type)} ")
        dot.edge(
            tail, self.id(edge.head), label=label, tooltip=tip, labeltooltip=tip, weight=weight
        )

    def stub(self, dot: graphviz.Digraph, edge: Edge) -> str:
        """A small mark with the name of a value that many read, next to one of its readers."""
        name = self.names[edge.tail]
        stub = self.id(f"{edge.tail} to {edge.head}")
        dot.node(
            stub,
            label=table([small(f"from {name}")]),
            tooltip=text.plain(f"{name}: {edge.type}"),
            fillcolor="white",
            color=style.CLUSTER_STROKE,
            style="filled,rounded,dashed",
        )
        return stub

    def id(self, unit: str) -> str:
        """A DOT node name from a path; what DOT has a meaning for (colons are ports) becomes `_`."""
        if unit not in self.ids:
            name = "".join("_" if c in ':"<>\\&\n' else c for c in text.clip(unit))
            self.ids[unit] = name if name not in self.ids.values() else f"{name} #{len(self.ids)}"
        return self.ids[unit]

    # Frames

    def cluster(
        self, dot: graphviz.Digraph, cluster: Cluster, level: int, backward: bool = False
    ) -> None:
        for item in cluster.items:
            if isinstance(item, Unit):
                self.unit(dot, item)
                continue
            block = item.block
            cost = describe.cost_line(block.all_nodes, self.costs)
            back = backward or block.kind == BACKWARD.kind
            fills = style.BACKWARD_FILLS if back else style.CLUSTER_FILLS
            with dot.subgraph(name=f"cluster_{self.id('frame ' + block.path)}") as inner:
                inner.attr(
                    "graph",
                    label=frame_label(block_title(block), cost),
                    labeljust="l",
                    labelloc="t",
                    style="filled,rounded,dashed" if not block.kind else "filled,rounded",
                    color=style.BACKWARD_STROKE if back else style.CLUSTER_STROKE,
                    fillcolor=fills[level % len(fills)],
                    penwidth="1.2",
                    margin="12",
                    tooltip=text.plain(f"{block.path} {block.span or ''}".strip()),
                )
                self.cluster(inner, item, level + 1, back)

    def unit(self, dot: graphviz.Digraph, unit: Unit) -> None:
        face = self.faces.of(unit)
        attributes = {"fillcolor": face.paint.fill, "color": face.paint.stroke}
        if face.paint is style.PORT:
            attributes["fontcolor"] = "white"
        if face.heavy:
            attributes["penwidth"] = "1.8"
        if unit.block is not None and unit.block.times > 1:
            attributes["peripheries"] = "2"
        dot.node(
            self.id(unit.id),
            label=table(face.rows),
            tooltip=text.plain(face.tip),
            id=self.id(unit.id),
            **attributes,
        )

    # Heading and legend

    def heading(self, title: str) -> str:
        drawn = [n for n in self.graph.nodes if n.id not in self.costs.fixed]
        params, flops = self.costs.parameters(drawn), self.costs.flops(drawn)
        parts = [f"{text.count(params)} parameters"] if params else []
        if flops:
            dims = ", ".join(f"{n} = {v}" for n, v in self.costs.dims.items())
            parts.append(text.count(flops, "FLOP") + (f" for {dims}" if dims else ""))
        known = [f for f in style.FAMILIES if f in self.faces.families]
        known += sorted(self.faces.families - set(style.FAMILIES))
        entries = [
            f'<FONT COLOR="{style.paint(f).stroke}">■</FONT> {small(style.legend_name(f))}'
            for f in known
        ]
        lines = ["  ".join(entries[i : i + LEGEND]) for i in range(0, len(entries), LEGEND)]
        legend = "".join(f'<TR><TD ALIGN="LEFT">{line}</TD></TR>' for line in lines)
        return (
            '<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">'
            f'<TR><TD ALIGN="LEFT"><FONT POINT-SIZE="{style.TITLE_SIZE}"><B>{text.html(title)}</B></FONT></TD></TR>'
            f'<TR><TD ALIGN="LEFT">{small(" · ".join(parts) or " ", size=style.NAME_SIZE)}</TD></TR>'
            f"{legend}</TABLE>>"
        )


def _plain_name(unit: Unit) -> str:
    """What a unit is called where there is room for a name only."""
    if unit.block is not None:
        return unit.block.path
    node = unit.nodes[0] if unit.nodes else None
    return str(getattr(node.op, "label", unit.id.lstrip("/"))) if node is not None else unit.id
