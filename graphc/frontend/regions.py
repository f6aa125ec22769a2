"""What runs at run time only: the bodies of `scan` and `cond`.

Such a body runs once, in the builder of the model. What it emitted is then cut out as a graph of its own. Everything
it reads from before becomes a capture, and so does every parameter it makes: layers in a body own their weights like
layers anywhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.frontend.scope import Frame
from graphc.frontend.stages import Stages
from graphc.ir.graph import Graph, Node, Value
from graphc.ops.bodies import Labelled, extract, fresh, needed_nodes
from graphc.source import Span
from graphc.syntax import ast


class Regions(Stages):
    """Runs bodies and cuts them out."""

    @abstractmethod
    def body(self, body: ast.Body, frame: Frame) -> Any:
        """Runs statements in order."""

    @abstractmethod
    def statement(self, node: ast.Statement, frame: Frame) -> Any:
        """Runs one statement."""

    @contextmanager
    def inside(self, frame: Frame, node: ast.Scan | ast.Cond) -> Iterator[dict[str, Any]]:
        """A body runs: what it binds is in the yielded names afterwards, and the frame has those from before."""
        outer, emitting, region = dict(frame.env), frame.emitting, frame.region
        frame.region = node
        inner: dict[str, Any] = {}
        try:
            yield inner
        finally:
            inner.update(frame.env)
            frame.env.clear()
            frame.env.update(outer)
            frame.emitting, frame.region = emitting, region

    def stays(self, returned: object, node: ast.Scan | ast.Cond, span: Span) -> None:
        """Reports E0515 for a body that a `return` has left."""
        if returned is not None:
            word = word_of(node)
            self.report.fail(
                "E0515",
                f"`return` cannot leave a {word}",
                span,
                help=f"return what it {'stacked' if word == 'scan' else 'gave'}, after it",
            )

    def captured(self, values: Sequence[Value], given: Sequence[Value], first: int) -> list[Value]:
        """What `values` depend on of the values from before node `first`, and the parameters made since."""
        nodes = self.b.nodes
        outside = {v for n in nodes if not _belongs(n, first) for v in n.values}
        made = needed_nodes(nodes, values, (*given, *outside))
        read = {*values, *(v for id in made for v in nodes[id].operands)}
        return sorted(read & outside)

    def cut(
        self, name: str, inputs: Labelled, captures: Sequence[Value], outputs: Labelled
    ) -> Graph:
        """The body that computes `outputs` from `inputs`, under their labels, and captures."""
        nodes, named = self.b.nodes, list(inputs)
        for value in captures:
            attributes = nodes[value.node].op.attributes()
            label = str(attributes.get("label") or attributes.get("path") or "outer")
            named.append((fresh(label.rpartition(".")[2], [n for n, _ in named]), value))
        return extract(name, self.b.dims, nodes, named, outputs)


def _belongs(node: Node, first: int) -> bool:
    """Whether a node is part of the body that begins with node `first`: parameters and state are the model's."""
    return node.id >= first and node.op.name not in ("parameter", "input")


def word_of(node: ast.Scan | ast.Cond) -> str:
    """`scan` or `cond`."""
    return type(node).__name__.lower()


def head_of(node: ast.Scan | ast.Cond) -> Span:
    """The place of the word."""
    return node.span.source.span(node.span.start, node.span.start + 4)
