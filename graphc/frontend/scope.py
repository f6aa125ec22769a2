"""Where evaluation stands: the names of one expansion of a block, its place in the tree, its labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from graphc.frontend.modules import Module
from graphc.frontend.values import Shared
from graphc.ir.graph import Scope, Value
from graphc.source import Span
from graphc.syntax import ast


@dataclass
class Frame:
    """One expansion of a block or model.

    `path` is the prefix of parameter paths, `scope` what graph nodes carry. `shared` is the shared layer this
    expansion belongs to, if any: its parameters may exist already. `labels` says which labels are taken, and where.
    """

    module: Module
    definition: ast.Model | ast.Block | ast.Train
    path: str
    scope: tuple[Scope, ...]
    depth: int
    env: dict[str, Any] = field(default_factory=dict)
    bound: dict[str, Span] = field(default_factory=dict)  # where a dim got its value
    labels: dict[str, Span] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # how often a base was asked for
    reserved: frozenset[str] = frozenset()
    shared: Shared | None = None
    emitting: dict[str, tuple[Value, Span]] | None = None  # in a scan: what a step emits, and where
    region: ast.Scan | ast.Cond | None = None  # the body of which this is
    inside: dict[str, ast.Scan | ast.Cond] = field(
        default_factory=dict
    )  # names of bodies that are over
    failed: bool = (
        False  # a branch was not decided, or a body failed: a missing return says nothing
    )

    def fresh(self, base: str) -> str:
        """A label that nobody has: `relu`, then `relu_2`."""
        count = self.counts.get(base, 0) + 1
        while (name := base if count == 1 else f"{base}_{count}") in self.labels or (
            name in self.reserved
        ):
            count += 1
        self.counts[base] = count
        return name

    def inner(self, label: str, kind: str, span: Span) -> Frame:
        """The frame of a bracketed chain: the same names, one step deeper in the tree, labels of its own."""
        return Frame(
            self.module,
            self.definition,
            joined(self.path, label),
            (*self.scope, Scope(label, kind, span)),
            self.depth,
            self.env,
            self.bound,
            shared=self.shared,
        )


def joined(path: str, label: str) -> str:
    """A parameter path one step longer."""
    return f"{path}.{label}" if path else label


def snake(name: str) -> str:
    """`BatchNorm2d` as a label: `batch_norm2d`; `LeakyReLU`: `leaky_relu`."""
    for spelled, word in (("PReLU", "Prelu"), ("ReLU", "Relu"), ("SiLU", "Silu")):
        name = name.replace(spelled, word)
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return text.lower()


_FIELDS: dict[type[ast.Node], tuple[str, ...]] = {
    cls: tuple(f.name for f in fields(cls) if f.name != "span")
    for cls in vars(ast).values()
    if isinstance(cls, type) and issubclass(cls, ast.Node)
}


def children(node: ast.Node) -> Iterator[ast.Node]:
    """The nodes directly below a node, in the order written."""
    for name in _FIELDS[type(node)]:
        value = getattr(node, name)
        if isinstance(value, ast.Node):
            yield value
        elif isinstance(value, tuple):
            yield from (v for v in value if isinstance(v, ast.Node))


def walk(node: ast.Node) -> Iterator[ast.Node]:
    """A node and all below it, in the order written."""
    yield node
    for child in children(node):
        yield from walk(child)


def constant_labels(body: ast.Body) -> frozenset[str]:
    """The labels of a body that are plain text: automatic names stay clear of them."""
    found: set[str] = set()
    for node in walk(body):
        if isinstance(node, ast.Label) and node.constant is not None:
            found.add(node.constant)
        elif isinstance(node, ast.Shared):
            found.add(node.name.id)
    return frozenset(found)


def assigned(node: ast.Node) -> Iterator[ast.Name]:
    """The names that a statement or body gives a value, in the order written."""
    for each in walk(node):
        if isinstance(each, (ast.Assign, ast.For)):
            yield from names_of(each.target)
        elif isinstance(each, (ast.Input, ast.Param, ast.Shared, ast.Metric, ast.Carry)):
            yield each.name
        elif isinstance(each, ast.Output) and each.value is not None:
            yield from each.names


def names_of(target: ast.Target) -> Iterator[ast.Name]:
    """The names in an assignment target."""
    if isinstance(target, ast.Name):
        yield target
    else:
        for element in target.elements:
            yield from names_of(element)
