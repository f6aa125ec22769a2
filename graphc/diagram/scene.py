"""What a picture shows, before any DOT: boxes inside boxes, and the values that flow between them.

A `Unit` is one drawn box: a single op, a closed block or layer, a fused group, an input, an output, or the op that
failed its shape check. Fixed nodes (weights and what is made from them alone) belong to the unit that uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from graphc.diagnostics import nearest
from graphc.diagram import describe
from graphc.diagram.cost import Costs
from graphc.diagram.state import STATE, written
from graphc.diagram.tree import Block, build, fold, layers_of, scope_of_node, steps_of
from graphc.ir.graph import Graph, Node, Scope, Value
from graphc.ir.types import TensorType
from graphc.source import Span

Opens = Callable[[Block], bool]

MAX_BOXES = 1500
"""A picture with more boxes is refused: nobody reads it, and laying it out takes minutes."""
AUTO_BOXES = 50
"""Without a depth, blocks open level by level as long as the picture stays below this many boxes."""


class DiagramError(ValueError):
    """A picture cannot be drawn as asked: too many boxes, or a block that is not there."""


@dataclass(frozen=True)
class Failure:
    """An op or layer that failed its check, for the picture of a partial graph.

    `operands` are the values it got, `scope` the path of the call (the layer itself included, when it is one). Where
    the graph already holds nodes of that layer they are marked; otherwise a box is drawn in its place.
    """

    message: str
    name: str
    operands: tuple[Value, ...] = ()
    scope: tuple[Scope, ...] = ()
    span: Span | None = None


@dataclass(eq=False)
class Unit:
    """One drawn box. `port` names a graph output; `failures` tell what failed in here."""

    id: str
    nodes: tuple[Node, ...] = ()
    block: Block | None = None
    port: str = ""
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Cluster:
    """An opened block and what it holds; the root has an empty path."""

    block: Block
    items: list[Unit | Cluster] = field(default_factory=list)


@dataclass(frozen=True)
class Edge:
    """A value that flows from one unit to another."""

    tail: str
    head: str
    type: TensorType


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. `depth` is the depth it was opened to."""

    root: Cluster
    edges: tuple[Edge, ...]
    depth: int

    def units(self) -> Iterator[Unit]:
        """All boxes, in the order of the graph."""
        stack: list[Unit | Cluster] = [self.root]
        while stack:
            item = stack.pop()
            if isinstance(item, Unit):
                yield item
            else:
                stack.extend(reversed(item.items))


def kernel_scope(is_layer: Callable[[str], bool]) -> Callable[[Node], Sequence[Scope]]:
    """A node's scope in a fused graph, where layers have dissolved into kernels.

    A fused group belongs to the innermost block that holds all of what it fused; what is left of a layer outside of
    kernels belongs to the block that called the layer.
    """

    def scope(node: Node) -> Sequence[Scope]:
        scopes = [n.scope for body in node.op.regions for n in body.nodes if describe.computes(n)]
        scopes = scopes or [node.scope]
        shortest = min(map(len, scopes))
        length = next((i for i in range(shortest) if len({s[i] for s in scopes}) > 1), shortest)
        common = scopes[0][:length]
        while common and is_layer(common[-1].kind):
            common = common[:-1]
        return common

    return scope


class _Composer:
    def __init__(self, graph: Graph, opens: Opens) -> None:
        self.graph = graph
        self.opens = opens
        self.unit_of: dict[int, str] = {}
        self.stands_for: dict[int, int] = {}
        self.member: dict[int, list[tuple[str, int]]] = {}

    def register(self, unit: Unit) -> Unit:
        for node in unit.nodes:
            self.unit_of[node.id] = unit.id
        return unit

    def compose(self, block: Block) -> Cluster:
        cluster = Cluster(block)
        counts: dict[str, int] = {}
        for part in block.parts:
            if isinstance(part, Node):
                name = part.op.name
                counts[name] = n = counts.get(name, 0) + 1
                id = f"{block.path}/{name}{n if n > 1 else ''}"
                cluster.items.append(self.register(Unit(id, (part,))))
                continue
            self.note_repeats(part)
            only = part.blocks[0] if len(part.parts) == 1 and part.blocks else None
            if self.opens(part) and only is not None and not part.kind:
                # A stage that holds nothing but one folded block needs no frame of its own.
                cluster.items.extend(self.compose(part).items)
            elif self.opens(part):
                cluster.items.append(self.compose(part))
            else:
                cluster.items.append(self.register(Unit(part.path, part.nodes, part)))
        return cluster

    def note_repeats(self, block: Block) -> None:
        for index, repeat in enumerate((block, *block.repeats) if block.repeats else ()):
            for own, other in zip(block.nodes, repeat.nodes, strict=True):
                self.member.setdefault(other.id, []).append((block.path, index))
                if index:
                    self.stands_for[other.id] = own.id

    def first(self, id: int) -> int:
        while id in self.stands_for:
            id = self.stands_for[id]
        return id

    def crosses_repeats(self, tail: int, head: int) -> bool:
        """True for a value that flows from one repetition of a folded block into another."""
        tails = dict(self.member.get(tail, ()))
        return any(tails.get(path, index) != index for path, index in self.member.get(head, ()))

    def edges(self, units: Sequence[Unit]) -> tuple[Edge, ...]:
        found: dict[Edge, None] = {}

        def add(value: Value, head: str) -> None:
            tail = self.unit_of.get(self.first(value.node))
            if tail is not None and tail != head:
                found[Edge(tail, head, self.graph.type_of(value))] = None

        for node in self.graph.nodes:
            head = self.unit_of.get(self.first(node.id))
            for value in node.operands if head is not None else ():
                if head is not None and not self.crosses_repeats(value.node, node.id):
                    add(value, head)
        for unit in units:
            for value in (v for f in unit.failures for v in f.operands):
                add(value, unit.id)
        kept = written(self.graph)
        for name, value in self.graph.outputs:
            add(value, f"output/{STATE if name in kept else name}")
        return tuple(found)


def _path(scope: Sequence[Scope]) -> str:
    return ".".join(label for label, _, _ in steps_of(scope))


def _opener(
    depth: int, opened: Sequence[str], ops: bool, layers: frozenset[str], auto: bool
) -> Opens:
    """Which blocks are drawn around their parts: those above the depth, or on the way to an opened path.

    Where the depth is not asked for (`auto`), a block of plain ops stays as closed as a layer.
    """

    def opens(block: Block) -> bool:
        kernels = any(n.op.regions for n in block.nodes)
        if block.path in layers or (auto and not block.blocks and not kernels):
            return ops and len(block.parts) > 1
        level = block.path.count(".") + 1
        return level < depth or any((o + ".").startswith(block.path + ".") for o in opened)

    return opens


def _count(block: Block, opens: Opens) -> int:
    return sum(
        _count(part, opens) if isinstance(part, Block) and opens(part) else 1
        for part in block.parts
    )


def _place(root: Cluster, failures: Sequence[Failure]) -> None:
    """Marks the box a failure lies in, or adds one to the innermost opened block around it."""
    units: dict[str, Unit] = {}
    clusters: dict[str, Cluster] = {}
    stack: list[Unit | Cluster] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, Cluster):
            clusters[item.block.path] = item
            stack.extend(item.items)
        elif item.block is not None:
            units[item.block.path] = item
    for number, failure in enumerate(failures):
        path = _path(failure.scope)
        while path and path not in units and path not in clusters:
            path = path.rpartition(".")[0]
        if path in units:
            units[path].failures.append(failure)
        else:
            unit = Unit(f"{path}/failed{number}", failures=[failure])
            clusters[path].items.append(unit)


def _levels(block: Block) -> int:
    return max((1 + _levels(b) for b in block.blocks), default=0)


def _check_opened(root: Block, opened: Sequence[str]) -> None:
    known: set[str] = set()

    def visit(block: Block) -> None:
        for child in block.blocks:
            known.add(child.path)
            visit(child)

    visit(root)
    for path in opened:
        if path not in known:
            near = nearest(path, known)
            hint = f"; did you mean `{near}`?" if near else ""
            raise DiagramError(f"there is no block `{path}` to open{hint}")


def compose(
    graph: Graph,
    costs: Costs,
    *,
    is_layer: Callable[[str], bool],
    depth: int | None = None,
    opened: Sequence[str] = (),
    ops: bool = False,
    failures: Sequence[Failure] = (),
) -> Scene:
    """The scene of a graph. Raises DiagramError for an unknown block in `opened` and above `MAX_BOXES` boxes."""
    fused = any(n.op.regions for n in graph.nodes)
    scope_of = kernel_scope(is_layer) if fused else scope_of_node
    ports = {n.id for n in graph.inputs}
    kept = {v.node for _, v in graph.outputs if graph.node(v.node).op.name != "parameter"} - ports
    inside = [
        n for n in graph.nodes if n.id not in ports and (n.id not in costs.fixed or n.id in kept)
    ]
    root = build(graph, inside, scope_of)
    layers = layers_of(root, is_layer)
    _check_opened(root, opened)
    folded = fold(graph, root, scope_of)
    auto = depth is None
    if depth is None:
        depth = 1
        while depth <= _levels(folded):
            if _count(folded, _opener(depth + 1, opened, ops, layers, auto)) > AUTO_BOXES:
                break
            depth += 1
    opens = _opener(depth, opened, ops, layers, auto)
    whole = depth == 0 and not opened
    boxes = 1 if whole else _count(folded, opens)
    if boxes > MAX_BOXES:
        raise DiagramError(f"the picture would have {boxes} boxes; choose a smaller depth")
    composer = _Composer(graph, opens)
    if whole:
        cluster = Cluster(folded, [composer.register(Unit("/model", root.nodes, folded))])
    else:
        cluster = composer.compose(folded)
    _place(cluster, failures)
    inputs = [composer.register(Unit(f"input/{n.id}", (n,))) for n in graph.inputs]
    state = written(graph)
    ports_out = dict.fromkeys(STATE if name in state else name for name, _ in graph.outputs)
    outputs = [Unit(f"output/{name}", port=name) for name in ports_out]
    cluster.items[:0] = inputs
    cluster.items.extend(outputs)
    units = tuple(Scene(cluster, (), depth).units())
    return Scene(cluster, composer.edges(units), depth)
