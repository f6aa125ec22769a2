"""Lower precision inside a module: what is stored between kernels, and what products multiply.

A pass over the fused graph that changes types and nothing else, so that the result is a graph like any other and means
exactly what the module computes:

- `bf16`: f32 values between kernels are stored as bf16. Kernels compute in f32: their bodies begin by converting and
  end by rounding. Weights of products are rounded when the module is built, so that a product multiplies bf16 numbers
  and sums in f32. Statistics, and what the caller sees, stay f32.
- `high`: an f32 value that a product reads is stored as two bf16 values, its rounded value and what rounding took off.
  Together they have 16 bits of mantissa in the bytes of one f32. Products multiply the parts. A value that others read
  too, such as a residual, is stored in f32 besides: errors of 16 bits would add up along the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.ir.dim import Shape
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Op, Pattern
from graphc.ir.types import TensorType
from graphc.ir.verify import verify
from graphc.lowering.aliasing import origin
from graphc.lowering.cpu.families.tile.select import fit_tiles
from graphc.lowering.cpu.features import CpuTarget, parse_target
from graphc.lowering.cpu.select import root_of
from graphc.ops import Add, Convert, Fusion, Input, Subtract
from graphc.passes.fuse import static_nodes, used_dims

PRECISIONS = ("f32", "bf16", "high")
"""What `--precision` can be."""

Takes = Callable[[Op, Shape, Shape, bool], bool]
"""Whether a target multiplies narrow numbers for an op on operands of these shapes, the right one known or not."""

Stored = tuple[Value, ...]
"""A value as it lies in memory: itself, or a rounded value and what rounding took off."""


def lower_precision(graph: Graph, precision: str, target: CpuTarget) -> tuple[Graph, str]:
    """A fused graph in which kernels store and multiply as `precision` says, and a note where the target cannot.

    Inputs, outputs and parameters keep their types. Raises ValueError for an unknown precision.
    """
    if not uses_tiles(precision, target.name):
        slow = f"computed in f32: {target.name} has no AMX tiles to compute {precision} with"
        return graph, "" if precision == "f32" else slow
    split = precision == "high"

    def takes(op: Op, lhs: Shape, rhs: Shape, packed: bool) -> bool:
        return fit_tiles(op, lhs, rhs, packed=packed, split=split) is not None

    return store_narrow(graph, DType.BF16, takes, split=split), ""


def store_narrow(graph: Graph, dtype: DType, takes: Takes, *, split: bool = False) -> Graph:
    """A fused graph that stores f32 values between kernels as `dtype`, and multiplies such where a kernel `takes` it.

    With `split` (bf16 only), products multiply pairs, and other values stay as they are.
    """
    lowered = _Lowering(graph, dtype, takes, split).run()
    verify(lowered, f"precision {'high' if split else dtype}")
    return lowered


def uses_tiles(precision: str, target: str) -> bool:
    """Whether products are computed on tiles. Raises ValueError for an unknown precision, TargetError."""
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}; there are {', '.join(PRECISIONS)}")
    return precision != "f32" and parse_target(target).amx_bf16


@dataclass(frozen=True)
class _Multiplied:
    """The operands of a product that tiles take: slots of the fusion."""

    lhs: int
    rhs: int


class _Lowering:
    def __init__(self, graph: Graph, dtype: DType, takes: Takes, split: bool) -> None:
        self.graph, self.dtype, self.takes, self.split = graph, dtype, takes, split
        self.static = static_nodes(graph)
        self.b = GraphBuilder(graph.name, graph.dims)
        self.done: dict[Value, Stored] = {}
        self.factors: dict[Value, Stored] = {}  # what products read, where that is stored besides
        self.multiplied = {
            n.id: found
            for n in graph.nodes
            if isinstance(n.op, Fusion) and (found := self._product(n)) is not None
        }
        self.narrow = {v for n in graph.nodes for v in n.values if self._is_narrow(n, v)}

    def run(self) -> Graph:
        """The new graph."""
        for node in self.graph.nodes:
            with self.b.at(node.scope, node.span):
                if node.op.alias:
                    for stored in (self.done, self.factors):
                        if node.operands[0] in stored:
                            parts = stored[node.operands[0]]
                            stored[node.values[0]] = tuple(self.b(node.op, p) for p in parts)
                    continue
                if isinstance(node.op, Fusion):
                    new = self._fusion(node, node.op)
                else:
                    operands = [self._whole(v) for v in node.operands]
                    new = [(v,) for v in self.b.emit(node.op, *operands)]
            self.done.update(zip(node.values, new, strict=True))
        outputs = [(name, self._whole(v)) for name, v in self.graph.outputs]
        return self.b.build(outputs, prune=True)

    def _whole(self, value: Value) -> Value:
        """A value that is stored as it is."""
        (found,) = self.done[value]
        return found

    # What is stored how

    def _product(self, node: Node) -> _Multiplied | None:
        """The operands that are multiplied, where that can be done on tiles."""
        assert isinstance(node.op, Fusion)
        body = node.op.body
        root = root_of(node.op)
        if root is None or root.op.pattern is not Pattern.CONTRACT:
            return None
        slots = {n.values[0]: slot for slot, n in enumerate(body.inputs)}
        if any(v not in slots or body.type_of(v).dtype is not DType.F32 for v in root.operands):
            return None
        lhs, rhs = (slots[v] for v in root.operands)
        if self._is_static(node.operands[lhs]):
            return None
        shapes = [body.type_of(v).shape for v in root.operands]
        packed = self._is_static(node.operands[rhs])
        if not self.takes(root.op, shapes[0], shapes[1], packed):
            return None
        return _Multiplied(lhs, rhs)

    def _is_static(self, value: Value) -> bool:
        return origin(self.graph, value).node in self.static

    def _is_narrow(self, node: Node, value: Value) -> bool:
        """Whether a kernel's result is stored narrow."""
        if not isinstance(node.op, Fusion) or node.types[value.result].dtype is not DType.F32:
            return False
        if _has_regions(node):
            return False
        if any(user is None or _has_regions(user) for user, _ in self._uses(value)):
            return False
        multiplied = any(self._multiplies(user, slot) for user, slot in self._uses(value))
        return multiplied or not (self.split or _is_statistic(node))

    def _multiplies(self, user: Node | None, slot: int) -> bool:
        """Whether an operand is one of a product on tiles."""
        found = self.multiplied.get(user.id) if user is not None else None
        return found is not None and slot in (found.lhs, found.rhs)

    def _uses(self, value: Value) -> list[tuple[Node | None, int]]:
        """Readers of a value and of other spellings of its bytes; None is the module's caller."""
        found: list[tuple[Node | None, int]] = []
        if self.graph.is_output(value):
            found.append((None, 0))
        for user, slot in self.graph.uses(value):
            found += self._uses(user.values[0]) if user.op.alias else [(user, slot)]
        return found

    # Writing kernels

    def _fusion(self, node: Node, op: Fusion) -> list[Stored]:
        operands = [
            self._factor(value) if self._multiplies(node, slot) else self.done[value]
            for slot, value in enumerate(node.operands)
        ]
        narrow = [v in self.narrow for v in node.values]
        flat = [part for stored in operands for part in stored]
        types = [self.b.type_of(v) for v in flat]
        if not any(narrow) and types == [n.types[0] for n in op.body.inputs]:
            return [(v,) for v in self.b.emit(op, *flat)]
        whole = [
            self.split
            and lower
            and not all(self._multiplies(user, slot) for user, slot in self._uses(value))
            for lower, value in zip(narrow, node.values, strict=True)
        ]
        body, widths = self._body(op, operands, narrow, whole)
        results = list(self.b.emit(Fusion(op.kind, body), *flat))
        stored: list[Stored] = []
        for value, width, besides in zip(node.values, widths, whole, strict=True):
            parts = tuple(results[:width])
            del results[:width]
            if besides:
                self.factors[value] = parts[:-1]
            stored.append(parts[-1:] if besides else parts)
        return stored

    def _factor(self, value: Value) -> Stored:
        """A product's operand: narrow or a pair, in a copy where it is stored otherwise."""
        stored = self.factors.get(value, self.done[value])
        if len(stored) == 2 or self.b.type_of(stored[0]).dtype is self.dtype:
            return stored
        if self._is_static(value):
            return stored if self.split else (self.b(Convert(self.dtype), stored[0]),)
        if value not in self.factors:
            t = self.b.type_of(stored[0])
            body = GraphBuilder("copy", self.graph.dims)
            x = body(Input("arg0", t.dtype, t.shape))
            parts = self._narrowed(body, x)
            self.factors[value] = tuple(self.b.emit(Fusion("map", _built(body, parts)), *stored))
        return self.factors[value]

    def _body(
        self,
        op: Fusion,
        operands: Sequence[Stored],
        narrow: Sequence[bool],
        whole: Sequence[bool],
    ) -> tuple[Graph, list[int]]:
        """A fusion's body on operands as they are stored; and how many values each result has become.

        `narrow` says which results are stored narrow, `whole` which of these in f32 besides.
        """
        body = GraphBuilder(op.body.name, op.body.dims)
        inner: dict[Value, Value] = {}
        count = 0
        moves = _only_moves(op.body) and all(narrow) and not any(whole)
        moved: list[list[Value]] = []
        for node, stored in zip(op.body.inputs, operands, strict=True):
            parts = []
            for part in stored:
                t = self.b.type_of(part)
                parts.append(body(Input(f"arg{count}", t.dtype, t.shape)))
                count += 1
            moved.append(parts)
            inner[node.values[0]] = _widened(body, parts, node.types[0])
        wanted = 2 if self.split else 1
        if moves and all(
            len(p) == wanted and body.type_of(p[0]).dtype is self.dtype for p in moved
        ):
            return self._moved(body, op, moved)
        results: list[Value] = []
        widths = []
        for node in op.body.nodes:
            if node.op.name != "input":
                with body.at(node.scope, node.span):
                    new = body.emit(node.op, *(inner[v] for v in node.operands))
                inner.update(zip(node.values, new, strict=True))
        for (_, value), lower, besides in zip(op.body.outputs, narrow, whole, strict=True):
            parts = [inner[value]]
            if lower:
                end = op.body.node(value.node)
                if end.op.placeable and root_of(op) is not None:
                    # What places the result stays last: it is stored through it.
                    inside = self._narrowed(body, inner[end.operands[0]])
                    parts = [body(end.op, part) for part in inside]
                else:
                    parts = self._narrowed(body, inner[value])
            parts += [inner[value]] if besides else []
            results += parts
            widths.append(len(parts))
        return _built(body, results), widths

    def _moved(
        self, body: GraphBuilder, op: Fusion, inputs: Sequence[Sequence[Value]]
    ) -> tuple[Graph, list[int]]:
        """A body that only moves elements, on elements as they are stored."""
        results: list[list[Value]] = []
        for part in range(len(inputs[0])):
            inner = {
                n.values[0]: parts[part] for n, parts in zip(op.body.inputs, inputs, strict=True)
            }
            for node in op.body.nodes:
                if node.op.name != "input":
                    with body.at(node.scope, node.span):
                        new = body.emit(node.op, *(inner[v] for v in node.operands))
                    inner.update(zip(node.values, new, strict=True))
            results.append([inner[v] for _, v in op.body.outputs])
        flat = [value for parts in zip(*results, strict=True) for value in parts]
        return _built(body, flat), [len(inputs[0])] * len(op.body.outputs)

    def _narrowed(self, body: GraphBuilder, x: Value) -> list[Value]:
        high = body(Convert(self.dtype), x)
        if not self.split:
            return [high]
        rest = body(Subtract(), x, body(Convert(DType.F32), high))
        return [high, body(Convert(self.dtype), rest)]


def _widened(body: GraphBuilder, parts: Sequence[Value], type: TensorType) -> Value:
    """The value that the parts are, in the type it had."""
    if len(parts) == 1 and body.type_of(parts[0]) == type:
        return parts[0]
    wide = [body(Convert(type.dtype), p) for p in parts]
    return wide[0] if len(wide) == 1 else body(Add(), *wide)


def _has_regions(node: Node) -> bool:
    """True for loops and choices, whose values keep their types."""
    assert isinstance(node.op, Fusion)
    return any(n.op.regions for n in node.op.body.nodes)


def _is_statistic(node: Node) -> bool:
    """True for a kernel that reduces and keeps only what it has reduced to: a mean, not a softmax."""
    assert isinstance(node.op, Fusion)
    body = node.op.body
    reduces = any(n.op.pattern is Pattern.REDUCE for n in body.nodes)
    return reduces and all(n.types[0].rank > node.types[0].rank for n in body.inputs[:1])


def _only_moves(body: Graph) -> bool:
    """True when every node puts elements elsewhere and computes nothing."""
    return all(n.op.pattern is Pattern.INDEX for n in body.nodes if n.op.name != "input")


def _built(body: GraphBuilder, results: Sequence[Value]) -> Graph:
    used = used_dims(body)
    body.dims = {n: d for n, d in body.dims.items() if n in used}
    return body.build([(f"out{i}", v) for i, v in enumerate(results)], prune=True)
