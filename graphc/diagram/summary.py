"""The layer table of a model: tree, source lines, output shapes, parameters, multiply-adds, memory.

After torchinfo (https://github.com/TylerYep/torchinfo), with what a compiler knows on top: FLOPs, source lines, and
an estimate of the memory the activations need at their peak.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from graphc.diagram import table, text
from graphc.diagram.cost import Costs
from graphc.diagram.table import Row
from graphc.diagram.tree import Block, build, fold
from graphc.ir.graph import Graph, Value


@dataclass(frozen=True)
class Summary:
    """The table as data; `str()` is the table as text, and rich prints it in colour.

    Attributes:
        name: The model's name.
        dims: The values of the named dims that all numbers are for.
        inputs: Name and type of each input.
        outputs: Name and type of each output.
        rows: Layers and blocks in the order of the tree; the first is the model itself.
        parameters: Trainable elements, each counted once.
        buffers: Running statistics; PyTorch's counts leave them out too.
        parameter_bytes: Bytes of parameters and buffers.
        flops: Arithmetic operations of one call; a multiply-add counts 2.
        macs: Multiply-adds of the matrix products and convolutions.
        peak_bytes: The most that inputs, outputs and values between layers take at one time, while layers run in
            order. An estimate from above: fusion and in-place updates make it smaller.
    """

    name: str
    dims: Mapping[str, int]
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    parameters: int
    buffers: int
    parameter_bytes: int
    flops: int
    macs: int
    peak_bytes: int

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data; repeated blocks are listed one by one."""
        return {
            "name": self.name,
            "dims": dict(self.dims),
            "inputs": [{"name": n, "type": t} for n, t in self.inputs],
            "outputs": [{"name": n, "type": t} for n, t in self.outputs],
            "parameters": self.parameters,
            "buffers": self.buffers,
            "parameter_bytes": self.parameter_bytes,
            "flops": self.flops,
            "macs": self.macs,
            "peak_bytes": self.peak_bytes,
            "layers": [row.to_json() for row in self.rows],
        }

    def __rich__(self) -> Any:
        return table.render(self)

    def __str__(self) -> str:
        return self.text(100)

    __repr__ = __str__

    def text(self, width: int, *, depth: int | None = None, unfold: bool = False) -> str:
        """The table as plain text. `depth` limits the tree; `unfold` lists repeated blocks one by one."""
        out = io.StringIO()
        console = Console(file=out, width=width, color_system=None, highlight=False)
        console.print(table.render(self, depth=depth, unfold=unfold))
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def summarise(graph: Graph, *, dims: Mapping[str, int] | None = None) -> Summary:
    """The summary of a graph, best before any pass. `dims` gives values to named dims, as for `draw`."""
    costs = Costs(graph, dims)
    inputs = {n.id for n in graph.inputs}
    inside = [n for n in graph.nodes if n.id not in inputs and n.id not in costs.fixed]
    root = build(graph, inside)
    parameters = [(p, costs.value(p.types[0].size)) for p in graph.parameters]
    total, buffers = costs.parameters(inside), costs.parameters(inside, buffers=True)
    return Summary(
        name=graph.name,
        dims=costs.dims,
        inputs=tuple((str(getattr(n.op, "label", "")), str(n.types[0])) for n in graph.inputs),
        outputs=tuple((name, str(graph.type_of(v))) for name, v in graph.outputs),
        rows=tuple(_rows(graph, costs, fold(graph, root), 0)),
        parameters=total,
        buffers=buffers,
        parameter_bytes=sum(n * p.types[0].dtype.bytes for p, n in parameters),
        flops=costs.flops(inside),
        macs=costs.macs(inside),
        peak_bytes=_peak(graph, costs, root),
    )


def _rows(graph: Graph, costs: Costs, block: Block, depth: int, repeat: int = 0) -> Iterator[Row]:
    results = [graph.type_of(v) for v in _results(graph, block)]
    yield Row(
        path=block.path,
        label=block.label,
        kind=block.kind,
        depth=depth,
        place=str(block.span) if block.span else "",
        outputs=tuple(str(t) for t in results),
        shapes=tuple(text.shape(t) for t in results),
        parameters=costs.parameters(block.nodes),
        buffers=costs.parameters(block.nodes, buffers=True),
        shared=bool(costs.shared(block.nodes)),
        flops=costs.flops(block.nodes),
        macs=costs.macs(block.nodes),
        times=block.times,
        last=block.repeats[-1].label if block.repeats else block.label,
        repeat=repeat > 0,
    )
    for child in block.blocks:
        yield from _rows(graph, costs, child, depth + 1, repeat)
        for other in child.repeats:
            yield from _rows(graph, costs, other, depth + 1, repeat + 1)


def _results(graph: Graph, block: Block) -> tuple[Value, ...]:
    """Values of a block that are read outside of it."""
    if not block.path:
        return tuple(v for _, v in graph.outputs)
    inside = {n.id for n in block.nodes}
    return tuple(
        v
        for n in block.nodes
        for v in n.values
        if graph.is_output(v) or any(user.id not in inside for user, _ in graph.uses(v))
    )


def _leaves(block: Block) -> Iterator[Block]:
    for child in block.blocks:
        if child.blocks:
            yield from _leaves(child)
        else:
            yield child


def _peak(graph: Graph, costs: Costs, root: Block) -> int:
    """Most bytes live at once. Values inside one layer count as registers, aliases as their operand."""
    layer = {n.id: b.path for b in _leaves(root) for n in b.nodes}
    home: dict[Value, Value] = {}
    last: dict[Value, int] = {}
    born: dict[Value, int] = {}
    for node in graph.nodes:
        for v in node.operands:
            if home[v] in born:
                last[home[v]] = node.id
        for v in node.values:
            home[v] = home[node.operands[0]] if node.op.alias else v
            users = [user for user, _ in graph.uses(v)]
            own = layer.get(node.id)
            stays = own is not None and all(layer.get(u.id) == own for u in users)
            kept = graph.is_output(v) or (bool(users) and not stays and not node.op.replicated)
            if kept and not node.op.alias and node.id not in costs.fixed:
                born[v] = last[v] = node.id
    end = len(graph.nodes) and graph.nodes[-1].id + 1
    for _, v in graph.outputs:
        if home[v] in last:
            last[home[v]] = end
    change: dict[int, int] = {}
    for v, start in born.items():
        size = costs.nbytes(graph.type_of(v))
        change[start] = change.get(start, 0) + size
        change[last[v] + 1] = change.get(last[v] + 1, 0) - size
    live = peak = 0
    for at in sorted(change):
        live += change[at]
        peak = max(peak, live)
    return peak
