"""`scan`: the loop that exists at run time.

The body runs once, over placeholders for one element of each sequence and for the carries, in the builder of the model.
What it emitted is then cut out as the body of a `Scan` op. Everything the body reads from before becomes a capture, and
so does every parameter it makes: layers in a body own their weights like layers anywhere.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from graphc.frontend.report import FailedError
from graphc.frontend.scope import Frame, assigned
from graphc.frontend.stages import Stages
from graphc.frontend.values import POISON, Scanned, Tensor, describe, is_poisoned
from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Value
from graphc.ops import Input, Parameter, Scan
from graphc.ops.bodies import extract, fresh, needed_nodes
from graphc.source import Span
from graphc.syntax import ast


@dataclass(frozen=True)
class Element(Input):
    """Stands for one element of a sequence, or a carry, while a body is elaborated; no output ever needs it."""

    name: ClassVar[str] = "element"


class Scans(Stages):
    """Runs `scan` and `emit`."""

    @abstractmethod
    def body(self, body: ast.Body, frame: Frame) -> Any:
        """Runs statements in order."""

    def _scan(self, node: ast.Scan, frame: Frame) -> None:
        sequences = [self._sequence(i, frame) for i in node.inputs]
        starts = [self._start(c, frame) for c in node.carries]
        if is_poisoned((*sequences, *starts)):
            raise FailedError
        length = self._length(node, sequences)
        mark = len(self.b.nodes)
        outer, emitting = dict(frame.env), frame.emitting
        frame.emitting = {}
        elements = [
            self._element(i.name, t.type.with_shape(t.type.shape[1:]), frame)
            for i, t in zip(node.inputs, sequences, strict=True)
        ]
        elements += [
            self._element(c.name, t.type, frame) for c, t in zip(node.carries, starts, strict=True)
        ]
        returned = self.body(node.body, frame)
        inner, emitted = dict(frame.env), frame.emitting
        frame.env.clear()
        frame.env.update(outer)
        frame.emitting = emitting
        frame.inside.update({name.id: node.span for name in assigned(node.body)})
        if returned is not None:
            self.report.fail(
                "E0515",
                "`return` cannot leave a scan",
                node.body.span,
                help="return what it stacked, after it",
            )
        after = [self._after(c, t, inner) for c, t in zip(node.carries, starts, strict=True)]
        values = [value for value, _ in emitted.values()]
        if not after and not values:
            self.report.fail(
                "E0803",
                "this scan gives nothing",
                _word(node),
                help="`emit` what each step is to give, or carry something with `with`",
            )
        labels = [c.name.id for c in node.carries]
        outputs = list(zip(labels, after, strict=True))
        for name, value in zip(emitted, values, strict=True):
            outputs.append((fresh(name, [n for n, _ in outputs]), value))
        body, captures = self._cut(node, elements, outputs, mark)
        op = Scan(body, length, len(sequences), len(starts), node.reverse)
        operands = tuple(t.value for t in (*sequences, *starts)) + captures
        found = self.emit(frame, node.span, lambda: self.b.emit(op, *operands), operands)
        lasts = dict(zip(labels, found, strict=False))
        stacks = dict(zip(emitted, found[len(labels) :], strict=True))
        for name in (*labels, *emitted):
            frame.env[name] = Scanned(name, stacks.get(name), lasts.get(name))

    def _sequence(self, node: ast.ScanInput, frame: Frame) -> Any:
        value = self.attempt(node.sequence, frame)
        if is_poisoned(value):
            return POISON
        if not isinstance(value, Tensor) or not value.type.rank:
            return self._reject(
                f"a scan goes along the first dimension of a tensor, not over {describe(value)}",
                node.sequence.span,
            )
        return value

    def _start(self, node: ast.Carry, frame: Frame) -> Any:
        value = self.attempt(node.initial, frame)
        if is_poisoned(value):
            return POISON
        if not isinstance(value, Tensor):
            return self._reject(
                f"the carry `{node.name.id}` starts as a tensor, not as {describe(value)}",
                node.initial.span,
                "for example `zeros([N, 64])`, or `zeros([])` for a number",
            )
        return value

    def _reject(self, message: str, span: Span, help: str | None = None) -> Any:
        self.report.error("E0404", message, span, help=help)
        return POISON

    def _length(self, node: ast.Scan, sequences: list[Tensor]) -> DimLike:
        """The number of steps. Reports E0802."""
        length: DimLike = sequences[0].type.shape[0]
        for each, tensor in zip(node.inputs[1:], sequences[1:], strict=True):
            if tensor.type.shape[0] != length:
                first = node.inputs[0]
                self.report.fail(
                    "E0802",
                    f"the sequences of a scan have different lengths, {length} and {tensor.type.shape[0]}",
                    each.sequence.span,
                    f"is {tensor.type}",
                    related=[(first.sequence.span, f"is {sequences[0].type}")],
                    help="a scan goes along the first dimension of each; `permute` brings time there",
                )
        return length

    def _element(self, name: ast.Name, kind: Any, frame: Frame) -> Value:
        with self.b.at(frame.scope, name.span):
            value = self.b(Element(name.id, kind.dtype, kind.shape))
        frame.env[name.id] = Tensor(value, kind)
        return value

    def _after(self, node: ast.Carry, start: Tensor, inner: dict[str, Any]) -> Value:
        """A carry's value after a step. Reports E0801."""
        value = inner[node.name.id]
        if is_poisoned(value):
            raise FailedError
        if isinstance(value, Tensor) and value.type == start.type:
            return value.value
        is_tensor = isinstance(value, Tensor)
        self.report.fail(
            "E0801",
            f"the carry `{node.name.id}` starts as {start.type} and is "
            f"{value.type if is_tensor else describe(value)} after a step",
            node.span,
            f"starts as {start.type}",
            related=self.provenance.of(value.value) if is_tensor else (),
            help="a carry keeps its type from step to step",
        )

    def _cut(
        self,
        node: ast.Scan,
        elements: list[Value],
        outputs: list[tuple[str, Value]],
        mark: int,
    ) -> tuple[Graph, tuple[Value, ...]]:
        """The body, made of what was emitted from node `mark` on, and the values it captures."""
        nodes = self.b.nodes
        values = [v for _, v in outputs]
        inside = {n.id for n in nodes[mark:] if not isinstance(n.op, Parameter)}
        outside = [v for n in nodes if n.id not in inside for v in n.values]
        made = needed_nodes(nodes, values, (*elements, *outside))
        read = {*values, *(v for id in made for v in nodes[id].operands)}
        captures = {v for v in read if v.node not in inside}
        inputs = [(nodes[v.node].op.attributes()["label"], v) for v in elements]
        for value in sorted(captures):
            attributes = nodes[value.node].op.attributes()
            name = str(attributes.get("label") or attributes.get("path") or "outer")
            inputs.append((fresh(name.rpartition(".")[2], [n for n, _ in inputs]), value))
        body = extract("scan", self.b.dims, nodes, inputs, outputs)
        return body, tuple(sorted(captures))

    def _emit(self, node: ast.Emit, frame: Frame) -> None:
        if frame.emitting is None:
            self.report.fail(
                "E0515",
                "`emit` belongs into the body of a scan",
                node.span,
                help="a block gives its result with `return`, a model with `output`",
            )
        for name in node.names:
            value = self.value(name, frame)
            if not isinstance(value, Tensor):
                self.report.fail(
                    "E0404", f"a scan stacks tensors, not {describe(value)}", name.span
                )
            if name.id in frame.emitting:
                self.report.fail(
                    "E0804",
                    f"`{name.id}` is emitted twice in one step",
                    name.span,
                    related=[(frame.emitting[name.id][1], "emitted here")],
                    help="give the second value a name of its own",
                )
            frame.emitting[name.id] = (value.value, name.span)


def _word(node: ast.Scan) -> Span:
    return node.span.source.span(node.span.start, node.span.start + 4)
