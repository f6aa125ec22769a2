"""Graph → DOT text, through the `graphviz` package's Digraph. The same graph gives the same text, always.

Boxes are ops, layers, closed blocks and fused groups; dashed frames are opened blocks; edges carry shapes. The text is
plain DOT: it needs nothing installed, and any Graphviz from 2.40 on lays it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import graphviz

from graphc.diagram import describe, style, text
from graphc.diagram.cost import Costs
from graphc.diagram.scene import Cluster, DiagramError, Failure, Scene, Unit, compose
from graphc.diagram.style import Paint
from graphc.diagram.tree import Block
from graphc.frontend.layers import LAYERS
from graphc.ir.graph import Graph, Node
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


LAYER_FAMILIES = {
    "Activation": "activation",
    "Attention": "attention",
    "Normalisation": "norm",
    "Pooling": "window",
}
"""Groups of layers that have one colour, whatever the ops they are made of."""
LEGEND = 5
"""Entries of the legend in one line."""


class _Writer:
    def __init__(
        self,
        graph: Graph,
        costs: Costs,
        scene: Scene,
        direction: str,
        is_layer: Callable[[str], bool],
    ) -> None:
        self.graph, self.costs, self.scene, self.is_layer = graph, costs, scene, is_layer
        self.down = direction == "down"
        self.families: set[str] = set()
        self.ids: dict[str, str] = {}

    def write(self, title: str) -> str:
        dot = graphviz.Digraph("graph")
        body = graphviz.Digraph()
        self.cluster(body, self.scene.root, 0)
        for edge in self.scene.edges:
            tip = text.plain(f"{edge.type}")
            body.edge(
                self.id(edge.tail),
                self.id(edge.head),
                label=text.plain(f" {text.shape(edge.type)} "),
                tooltip=tip,
                labeltooltip=tip,
            )
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

    def id(self, unit: str) -> str:
        """A DOT node name from a path; what DOT has a meaning for (colons are ports) becomes `_`."""
        if unit not in self.ids:
            name = "".join("_" if c in ':"<>\\&\n' else c for c in text.clip(unit))
            self.ids[unit] = name if name not in self.ids.values() else f"{name} #{len(self.ids)}"
        return self.ids[unit]

    # Frames

    def cluster(self, dot: graphviz.Digraph, cluster: Cluster, level: int) -> None:
        for item in cluster.items:
            if isinstance(item, Unit):
                self.unit(dot, item)
                continue
            block = item.block
            with dot.subgraph(name=f"cluster_{self.id('frame ' + block.path)}") as inner:
                inner.attr(
                    "graph",
                    label=_frame_label(_block_title(block), self.cost_text(block)),
                    labeljust="l",
                    labelloc="t",
                    style="filled,rounded,dashed" if not block.kind else "filled,rounded",
                    color=style.CLUSTER_STROKE,
                    fillcolor=style.CLUSTER_FILLS[level % len(style.CLUSTER_FILLS)],
                    penwidth="1.2",
                    margin="12",
                    tooltip=text.plain(f"{block.path} {block.span or ''}".strip()),
                )
                self.cluster(inner, item, level + 1)

    def cost_text(self, block: Block) -> str:
        return describe.cost_line(block.all_nodes, self.costs)

    # Boxes

    def unit(self, dot: graphviz.Digraph, unit: Unit) -> None:
        if unit.failures:
            rows, paint, tip = self.failed(unit)
        elif unit.port:
            rows, paint, tip = self.output(unit)
        elif unit.nodes[0].op.name == "input" and unit.block is None:
            rows, paint, tip = self.input(unit.nodes[0])
        elif unit.block is not None:
            rows, paint, tip = self.block(unit.block)
        else:
            rows, paint, tip = self.op(unit.nodes[0])
        attributes = {"fillcolor": paint.fill, "color": paint.stroke}
        if unit.failures:
            attributes["penwidth"] = "2"
        elif paint is style.PORT:
            attributes["fontcolor"] = "white"
        elif unit.block is not None and unit.block.times > 1:
            attributes["peripheries"] = "2"
        elif rows[0].startswith("<B>fused "):
            attributes["penwidth"] = "1.8"
        dot.node(
            self.id(unit.id),
            label=_table(rows),
            tooltip=text.plain(tip),
            id=self.id(unit.id),
            **attributes,
        )

    def input(self, node: Node) -> tuple[list[str], Paint, str]:
        name = str(getattr(node.op, "label", "input"))
        rows = [f"<B>{text.html(name)}</B>", _detail(str(node.types[0]), color="#cbd5e1")]
        return rows, style.PORT, describe.tooltip([node], self.graph, self.costs, f"input {name}")

    def output(self, unit: Unit) -> tuple[list[str], Paint, str]:
        value = dict(self.graph.outputs)[unit.port]
        kind = str(self.graph.type_of(value))
        rows = [f"<B>{text.html(unit.port)}</B>", _detail(kind, color="#cbd5e1")]
        return rows, style.PORT, f"output {unit.port}: {kind}"

    def block(self, block: Block) -> tuple[list[str], Paint, str]:
        nodes = block.nodes
        tip = describe.tooltip(nodes, self.graph, self.costs, f"{block.path}: {block.kind}")
        rows = [_block_name(block)]
        if block.blocks or not block.kind:
            return [*rows, _detail(self.cost_text(block))], style.BLOCK, tip
        main = describe.main_op(nodes, self.costs)
        if self.is_layer(block.kind):
            facts = describe.facts(main, self.operands(main), layer=True)
            rows.append(_detail(" · ".join(facts)))
        rows.append(_detail(self.cost_text(block)))
        shared = self.costs.shared(nodes)
        if shared and not self.costs.parameters(nodes):
            rows.append(
                _detail("shares " + ", ".join(str(getattr(p.op, "path", "")) for p in shared))
            )
        family = LAYER_FAMILIES.get(getattr(LAYERS.get(block.kind), "group", ""))
        return rows, self.paint(main, family), tip

    def op(self, node: Node) -> tuple[list[str], Paint, str]:
        tip = describe.tooltip([node], self.graph, self.costs, node.path)
        if node.op.regions:
            return self.fused(node), self.paint(node), tip
        rows = [f"<B>{text.html(node.op.name)}</B>"]
        facts = describe.facts(node, self.operands(node)) + describe.literals(node, self.graph)
        rows.append(_detail(" · ".join(facts)))
        cost = describe.cost_line([node], self.costs)
        rows.append(_detail(cost if "params" in cost or self.costs.macs([node]) else ""))
        return rows, self.paint(node), tip

    def fused(self, node: Node) -> list[str]:
        steps = [s for body in node.op.regions for s in describe.fused_steps(body, self.is_layer)]
        cost = _detail(describe.cost_line([node], self.costs))
        if len(steps) == 1 and len(steps[0][1]) == 1:
            layer, (op,) = steps[0]
            return [f"<B>{text.html(layer or op)}</B>", _detail(op if layer else ""), cost]
        kind = str(getattr(node.op, "kind", node.op.name))
        rows = [f"<B>fused {text.html(kind)}</B>"]
        for layer, ops in steps:
            head = f"{text.html(layer)}  " if layer else ""
            rows.append(
                f'<FONT POINT-SIZE="{style.DETAIL_SIZE}">{head}'
                f'<FONT COLOR="{style.MUTED}">{text.html(", ".join(ops))}</FONT></FONT>'
            )
        return [*rows, cost]

    def failed(self, unit: Unit) -> tuple[list[str], Paint, str]:
        first = unit.failures[0]
        name = describe.title(unit.block.label, unit.block.kind) if unit.block else first.name
        rows = [f'<B><FONT COLOR="{style.FAILED.stroke}">✗ {text.html(name)}</FONT></B>']
        for failure in unit.failures[:3]:
            rows += [_detail(line, color="#991b1b") for line in text.wrap(failure.message, 44)]
        tip = "\n".join(f"{f.span or ''} {f.message}".strip() for f in unit.failures)
        return rows, style.FAILED, tip

    def operands(self, node: Node) -> tuple[TensorType, ...]:
        return tuple(self.graph.type_of(v) for v in node.operands)

    def paint(self, node: Node, family: str | None = None) -> Paint:
        family = family or describe.family(node, self.costs)
        self.families.add(family)
        return style.paint(family)

    # Heading and legend

    def heading(self, title: str) -> str:
        drawn = [n for n in self.graph.nodes if n.op.name not in ("input", "parameter", "constant")]
        params, flops = self.costs.parameters(drawn), self.costs.flops(drawn)
        parts = [f"{text.count(params)} parameters"] if params else []
        if flops:
            dims = ", ".join(f"{n} = {v}" for n, v in self.costs.dims.items())
            parts.append(text.count(flops, "FLOP") + (f" for {dims}" if dims else ""))
        known = [f for f in style.FAMILIES if f in self.families]
        known += sorted(self.families - set(style.FAMILIES))
        entries = [
            f'<FONT COLOR="{style.paint(f).stroke}">■</FONT> {_detail(style.legend_name(f))}'
            for f in known
        ]
        lines = ["  ".join(entries[i : i + LEGEND]) for i in range(0, len(entries), LEGEND)]
        legend = "".join(f'<TR><TD ALIGN="LEFT">{line}</TD></TR>' for line in lines)
        return (
            '<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">'
            f'<TR><TD ALIGN="LEFT"><FONT POINT-SIZE="{style.TITLE_SIZE}"><B>{text.html(title)}</B></FONT></TD></TR>'
            f'<TR><TD ALIGN="LEFT">{_detail(" · ".join(parts) or " ", size=style.NAME_SIZE)}</TD></TR>'
            f"{legend}</TABLE>>"
        )


def _block_title(block: Block) -> tuple[str, str]:
    """What a block is called, in bold, and what to add in small print."""
    label, kind = block.label, block.kind
    if label.isdigit() and "." in block.path:
        label = ".".join(block.path.split(".")[-2:])
    if block.times > 1:
        return f"{kind} × {block.times}", _range(block)
    if not kind:
        inside = sum(b.times for b in block.blocks)
        return label, f"{block.common_kind} × {inside}" if block.common_kind else ""
    return describe.title(label, kind), ""


def _block_name(block: Block) -> str:
    bold, small = _block_title(block)
    return f"<B>{text.html(bold)}</B>" + (f"  {_detail(small)}" if small else "")


def _frame_label(title: tuple[str, str], cost: str) -> str:
    """The heading of a frame. The empty cell on the right keeps it left of the middle, where edges come in."""
    bold, small = title
    parts = [small, *cost.split(" · ")]
    lines = [f'<FONT POINT-SIZE="{style.NAME_SIZE}"><B>{text.html(bold)}</B></FONT>']
    lines += [_detail(part) for part in parts if part]
    width = max(0.6 * style.NAME_SIZE * len(bold), 0.55 * style.DETAIL_SIZE * max(map(len, parts)))
    cell = f'<TD WIDTH="{int(width) + 16}"></TD>'
    rows = "".join(f'<TR><TD ALIGN="LEFT">{line}</TD>{cell}</TR>' for line in lines)
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{rows}</TABLE>>'


def _range(block: Block) -> str:
    """`layer3.1 – 5`: the labels of the first and the last."""
    first = ".".join(block.path.split(".")[-2:])
    return f"{first} – {block.repeats[-1].label}"


def _detail(line: str, color: str = style.MUTED, size: int = style.DETAIL_SIZE) -> str:
    return f'<FONT POINT-SIZE="{size}" COLOR="{color}">{text.html(line)}</FONT>' if line else ""


def _table(rows: Iterable[str], align: str = "CENTER") -> str:
    cells = "".join(f'<TR><TD ALIGN="{align}">{row}</TD></TR>' for row in rows if row)
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{cells}</TABLE>>'
