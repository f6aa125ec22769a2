"""`scan`: the loop that exists at run time.

The body runs once, over placeholders for one element of each sequence and for the carries. What captures are, and how a
body is cut out, is said in `regions.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphc.frontend.regions import Regions, head_of
from graphc.frontend.report import FailedError
from graphc.frontend.scope import Frame, assigned
from graphc.frontend.values import POISON, Scanned, Tensor, describe, is_poisoned
from graphc.ir.dim import DimLike
from graphc.ir.graph import Value
from graphc.ops import Input, Scan
from graphc.ops.bodies import fresh
from graphc.source import Span
from graphc.syntax import ast


@dataclass(frozen=True)
class Element(Input):
    """Stands for one element of a sequence, or a carry, while a body is elaborated; no output ever needs it."""

    name: ClassVar[str] = "element"


class Scans(Regions):
    """Runs `scan` and `emit`."""

    def _scan(self, node: ast.Scan, frame: Frame) -> None:
        sequences = [self._sequence(i, frame) for i in node.inputs]
        starts = [self._start(c, frame) for c in node.carries]
        if is_poisoned((*sequences, *starts)):
            raise FailedError
        length = self._length(node, sequences)
        mark, updates = len(self.b.nodes), dict(self.updates)
        with self.inside(frame, node) as inner:
            emitted: dict[str, tuple[Value, Span]] = {}
            frame.emitting = emitted
            elements = [
                self._element(i.name, t.type.with_shape(t.type.shape[1:]), frame)
                for i, t in zip(node.inputs, sequences, strict=True)
            ]
            elements += [
                self._element(c.name, t.type, frame)
                for c, t in zip(node.carries, starts, strict=True)
            ]
            returned = self.body(node.body, frame)
        frame.inside.update(dict.fromkeys((name.id for name in assigned(node.body)), node))
        self.stays(returned, node, node.body.span)
        if self.updates != updates:
            self.updates = updates
            self.report.fail(
                "E0515",
                "a scan cannot change running statistics, and its body trains a batch norm",
                head_of(node),
                help="normalise before or after the scan, `freeze` the layer, or use LayerNorm",
            )
        after = [self._after(c, t, inner) for c, t in zip(node.carries, starts, strict=True)]
        values = [value for value, _ in emitted.values()]
        if not after and not values:
            self.report.fail(
                "E0803",
                "this scan gives nothing",
                head_of(node),
                help="`emit` what each step is to give, or carry something with `with`",
            )
        labels = [c.name.id for c in node.carries]
        outputs = list(zip(labels, after, strict=True))
        for name, value in zip(emitted, values, strict=True):
            outputs.append((fresh(name, [n for n, _ in outputs]), value))
        captures = self.captured([v for _, v in outputs], elements, mark)
        inputs = [(str(self.b.node_of(v).op.attributes()["label"]), v) for v in elements]
        body = self.cut("scan", inputs, captures, outputs)
        op = Scan(body, length, len(sequences), len(starts), node.reverse)
        operands = (*(t.value for t in (*sequences, *starts)), *captures)
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

    def _emit(self, node: ast.Emit, frame: Frame) -> None:
        if frame.emitting is None:
            self.report.fail(
                "E0515",
                "`emit` belongs into the body of a scan",
                node.span,
                help="a block gives its result with `return`, a model with `output`"
                if frame.region is None
                else "bind the value in both branches, and emit it after the cond",
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
