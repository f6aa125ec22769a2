"""What each box looks like: its lines, its colours, its tooltip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc.autodiff import BACKWARD
from graphc.diagram import describe, style, text
from graphc.diagram.cost import Costs
from graphc.diagram.markup import block_name, bold, small
from graphc.diagram.scene import Unit
from graphc.diagram.state import STATE, written
from graphc.diagram.style import Paint
from graphc.diagram.tree import Block
from graphc.frontend.layers import LAYERS
from graphc.ir.graph import Graph, Node
from graphc.ir.types import TensorType
from graphc.ops import Cond, Fusion

LAYER_FAMILIES = {
    "Activation": "activation",
    "Attention": "attention",
    "Normalisation": "norm",
    "Pooling": "window",
}
"""Groups of layers that have one colour, whatever the ops they are made of."""


SHARED = 3
"""Parameters that a box names as shared with others."""


class Face(NamedTuple):
    """Rows of markup, colours, tooltip text; `heavy` boxes have a thick stroke."""

    rows: list[str]
    paint: Paint
    tip: str
    heavy: bool = False


class Faces:
    """The faces of one graph's boxes. `families` collects the op families that were painted."""

    def __init__(self, graph: Graph, costs: Costs, is_layer: Callable[[str], bool]) -> None:
        self.graph, self.costs, self.is_layer = graph, costs, is_layer
        self.families: set[str] = set()

    def of(self, unit: Unit) -> Face:
        """The face of a box."""
        if unit.failures:
            return self._failed(unit)
        if unit.port:
            return self._output(unit)
        if unit.block is not None:
            return self._block(unit.block)
        node = unit.nodes[0]
        return self._input(node) if node.op.name == "input" else self._op(node)

    def _input(self, node: Node) -> Face:
        name = str(getattr(node.op, "label", "input"))
        rows = [bold(name), small(str(node.types[0]), color="#cbd5e1")]
        return Face(rows, style.PORT, self._tip([node], f"input {name}"))

    def _output(self, unit: Unit) -> Face:
        outputs = dict(self.graph.outputs)
        state = written(self.graph)
        if unit.port == STATE and state:
            kinds = [self.graph.type_of(outputs[name]) for name in outputs if name in state]
            bytes = sum(self.costs.value(t.nbytes) for t in kinds)
            detail = f"{len(kinds)} tensors, {text.size(bytes)}, written in place"
            rows = [bold("next state"), small(detail, color="#cbd5e1")]
            return Face(rows, style.PORT, "\n".join(name for name in outputs if name in state))
        value = outputs[unit.port]
        kind = str(self.graph.type_of(value))
        rows = [bold(unit.port), small(kind, color="#cbd5e1")]
        return Face(rows, style.PORT, f"output {unit.port}: {kind}")

    def _block(self, block: Block) -> Face:
        nodes = block.nodes
        tip = self._tip(nodes, f"{block.path}: {block.kind}")
        cost = small(describe.cost_line(block.all_nodes, self.costs))
        rows = [block_name(block)]
        if block.blocks or not block.kind:
            closed = style.BACKWARD if block.kind == BACKWARD.kind else style.BLOCK
            return Face([*rows, cost], closed, tip)
        main = describe.main_op(nodes, self.costs)
        if self.is_layer(block.kind):
            facts = describe.facts(main, self._operands(main), layer=True)
            rows.append(small(" · ".join(facts)))
        rows.append(cost)
        shared = self.costs.shared(nodes)
        if shared and not self.costs.parameters(nodes):
            names = ", ".join(str(getattr(p.op, "path", "")) for p in shared[:SHARED])
            names += f" and {len(shared) - SHARED} more" if len(shared) > SHARED else ""
            rows.append(small(f"shares {names}"))
        family = LAYER_FAMILIES.get(getattr(LAYERS.get(block.kind), "group", ""))
        return Face(rows, self._paint(main, family), tip)

    def _op(self, node: Node) -> Face:
        if node.op.regions:
            return self._fused(node)
        facts = describe.facts(node, self._operands(node)) + describe.literals(node, self.graph)
        cost = describe.cost_line([node], self.costs)
        telling = "params" in cost or self.costs.macs([node]) > 0
        rows = [bold(node.op.name), small(" · ".join(facts)), small(cost if telling else "")]
        return Face(rows, self._paint(node), self._tip([node], node.path))

    def _fused(self, node: Node) -> Face:
        """A group lists what was fused; a kernel of one op says which, and from which layer."""
        paint, tip = self._paint(node), self._tip([node], node.path)
        op = describe.chosen(node.op)
        bodies = [describe.fused_steps(body, self.is_layer) for body in op.regions]
        steps = [step for body in bodies for step in body]
        cost = small(describe.cost_line([node], self.costs))
        if isinstance(op, Fusion) and len(steps) == 1 and len(steps[0][1]) == 1:
            layer, (name,) = steps[0]
            return Face([bold(layer or name), small(name if layer else ""), cost], paint, tip)
        rows = [bold(f"fused {op.kind}" if isinstance(op, Fusion) else op.name)]
        for number, body in enumerate(bodies):
            if isinstance(op, Cond):
                rows.append(small("false" if number else "true"))
            rows += self._steps(body)
        return Face([*rows, cost], paint, tip, heavy=True)

    def _steps(self, steps: list[tuple[str, list[str]]]) -> list[str]:
        rows = []
        for layer, ops in steps:
            head = f"{text.html(layer)}  " if layer else ""
            rows.append(
                f'<FONT POINT-SIZE="{style.DETAIL_SIZE}">{head}'
                f'<FONT COLOR="{style.MUTED}">{text.html(", ".join(ops))}</FONT></FONT>'
            )
        return rows

    def _failed(self, unit: Unit) -> Face:
        first = unit.failures[0]
        name = describe.title(unit.block.label, unit.block.kind) if unit.block else first.name
        rows = [f'<B><FONT COLOR="{style.FAILED.stroke}">✗ {text.html(name)}</FONT></B>']
        for failure in unit.failures[:3]:
            rows += [small(line, color="#991b1b") for line in text.wrap(failure.message, 44)]
        tip = "\n".join(f"{f.span or ''} {f.message}".strip() for f in unit.failures)
        return Face(rows, style.FAILED, tip, heavy=True)

    def _tip(self, nodes: Sequence[Node], head: str) -> str:
        return describe.tooltip(nodes, self.graph, self.costs, head)

    def _operands(self, node: Node) -> tuple[TensorType, ...]:
        return tuple(self.graph.type_of(v) for v in node.operands)

    def _paint(self, node: Node, family: str | None = None) -> Paint:
        family = family or describe.family(node, self.costs)
        self.families.add(family)
        return style.paint(family)
