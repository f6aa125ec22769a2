"""The one canonical formatting: ``graphc fmt``.

Four columns of indentation, lines of at most 100 columns where that can be, one space around
operators, no blank lines at the ends of a body and never two in a row. What the author decides is
where the rows of a chain begin, where blank lines stand, and comments. Formatting a second time
changes nothing, and never does the meaning change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.source import Source
from graphc.syntax import ast
from graphc.syntax.comments import Comments
from graphc.syntax.doc import Doc, Group, IfBroken, Indent, Line, render
from graphc.syntax.layout import CONDITIONAL, Layout
from graphc.syntax.parser import parse

WIDTH = 100
"""Columns of a line."""

INDENT = 4
"""Columns of one level of indentation."""

_DEFINITIONS = (ast.Model, ast.Block, ast.Train)
_WITH_BODY = (*_DEFINITIONS, ast.If, ast.For, ast.Scan, ast.Cond, ast.Checkpoint)


def format_source(source: Source) -> str:
    """The text of ``source`` in canonical form; it ends with a newline unless it is empty.

    Raises:
        DiagnosticError: The text does not parse.
    """
    return _Formatter(source).file(parse(source))


class _Formatter:
    """Writes the lines of one file."""

    def __init__(self, source: Source) -> None:
        self._text = source.text
        self._comments = Comments(source)
        self._layout = Layout(self._comments)
        self._lines: list[str] = []

    def file(self, file: ast.File) -> str:
        self._sequence(file.items, 0, len(self._text), 0)
        return "".join(line + "\n" for line in self._lines)

    # ---- Sequences of statements ----------------------------------------------------------------

    def _sequence(self, nodes: Sequence[ast.Node], start: int, end: int, indent: int) -> None:
        """Statements with the comments around them; ``[start, end)`` holds them."""
        first = len(self._lines)
        previous = start
        before: ast.Node | None = None
        for node in nodes:
            gap = self._gap_before(before, node)
            for offset, comment in self._comments.take(previous, node.span.start):
                self._add([comment], indent, gap or self._blank(previous, offset), first)
                previous = self._comments.end_of(offset)
                gap = False
            blank = gap or self._blank(previous, node.span.start)
            lines = self._statement(node, indent)
            for comment in self._comments.texts(node.span.start, node.span.end):
                # A comment from between the words of the statement moves right above it.
                self._add([comment], indent, blank, first)
                blank = False
            previous = node.span.end
            beside = self._comments.beside(previous)
            if beside:
                lines[-1] += "  " + beside
                previous = self._comments.end_of(self._text.index("#", previous))
            self._add(lines, indent, blank, first)
            before = node
        for offset, comment in self._comments.take(previous, end):
            self._add([comment], indent, self._blank(previous, offset), first)
            previous = self._comments.end_of(offset)

    def _add(self, lines: list[str], indent: int, blank: bool, first: int) -> None:
        if blank and len(self._lines) > first:
            self._lines.append("")
        self._lines.append(" " * indent + lines[0])
        self._lines += lines[1:]

    def _blank(self, start: int, end: int) -> bool:
        """Whether the text between two neighbours holds a blank line."""
        return self._text.count("\n", start, end) > 1

    @staticmethod
    def _gap_before(before: ast.Node | None, node: ast.Node) -> bool:
        """Whether a blank line stands here in any case: definitions keep their distance."""
        return before is not None and (
            isinstance(before, _DEFINITIONS) or isinstance(node, _DEFINITIONS)
        )

    def _body(self, body: ast.Body, since: int, indent: int) -> Iterator[str]:
        """The brace, the statements, the brace; takes the comments left over since ``since``."""
        inner = _Formatter.__new__(_Formatter)
        inner._text, inner._comments, inner._layout = self._text, self._comments, self._layout
        inner._lines = []
        beside = self._comments.beside(body.span.start + 1)
        inner._sequence(body.statements, since, body.span.end, indent + INDENT)
        if not inner._lines and not beside:
            yield "{}"
            return
        yield "{" + ("  " + beside if beside else "")
        yield from inner._lines
        yield " " * indent + "}"

    # ---- Statements -------------------------------------------------------------------------------

    def _statement(self, node: ast.Node, indent: int) -> list[str]:
        """The lines of one statement, the first without its indentation."""
        if isinstance(node, _WITH_BODY):
            lines: list[str] = getattr(self, f"_{type(node).__name__.lower()}")(node, indent)
            return lines
        return self._render(self._simple(node), indent)

    def _render(self, doc: Doc, indent: int) -> list[str]:
        return [line.rstrip() for line in render(doc, indent, WIDTH).split("\n")]

    def _headed(self, head: Doc, body: ast.Body, since: int, indent: int) -> list[str]:
        """``head { ... }``."""
        lines = self._render((head, " {"), indent)
        first, *rest = self._body(body, since, indent)
        lines[-1] = lines[-1].removesuffix("{") + first
        return lines + rest

    def _model(self, node: ast.Model, indent: int) -> list[str]:
        head: Doc = f"model {node.name.id}"
        if node.parameters:
            head = (head, self._parameters(node.name, node.parameters, node.body))
        return self._headed(head, node.body, node.span.start, indent)

    def _block(self, node: ast.Block, indent: int) -> list[str]:
        head = (f"block {node.name.id}", self._parameters(node.name, node.parameters, node.body))
        return self._headed(head, node.body, node.span.start, indent)

    def _train(self, node: ast.Train, indent: int) -> list[str]:
        return self._headed(f"train {node.model.id}", node.body, node.span.start, indent)

    def _parameters(
        self, name: ast.Name, parameters: tuple[ast.Parameter, ...], body: ast.Body
    ) -> Doc:
        end = self._text.rindex(")", name.span.end, body.span.start)
        return self._layout.brackets("()", parameters, self._parameter, name.span.end, end)

    def _parameter(self, node: ast.Parameter) -> Doc:
        head = (f"{node.name.id}: ", self._layout.type(node.type))
        return (head, " = ", self._layout.expr(node.default)) if node.default else head

    def _if(self, node: ast.If, indent: int) -> list[str]:
        lines: list[str] = []
        since = node.span.start
        for branch in node.branches:
            # Further lines of a condition are indented twice, to stand off the body.
            head = ("if ", Indent(self._layout.expr(branch.test, CONDITIONAL)))
            if lines:
                first, *rest = self._headed(("else ", head), branch.body, since, indent)
                lines[-1] += " " + first
                lines += rest
            else:
                lines = self._headed(head, branch.body, since, indent)
            since = branch.body.span.end
        if node.orelse is not None:
            first, *rest = self._body(node.orelse, since, indent)
            lines[-1] += " else " + first
            lines += rest
        return lines

    def _for(self, node: ast.For, indent: int) -> list[str]:
        iterable = self._layout.expr(node.iterable, CONDITIONAL)
        head = (f"for {_target(node.target)} in ", iterable)
        return self._headed(head, node.body, node.span.start, indent)

    def _scan(self, node: ast.Scan, indent: int) -> list[str]:
        head: list[Doc] = ["scan "]
        for index, source in enumerate(node.inputs):
            sequence = self._layout.expr(source.sequence, CONDITIONAL)
            head += [", " if index else "", f"{source.name.id} in ", sequence]
        for index, carry in enumerate(node.carries):
            initial = self._layout.expr(carry.initial, CONDITIONAL)
            head += [", " if index else " with ", f"{carry.name.id} = ", initial]
        if node.reverse:
            head.append(" reversed")
        return self._headed(tuple(head), node.body, node.span.start, indent)

    def _cond(self, node: ast.Cond, indent: int) -> list[str]:
        head = ("cond ", Indent(self._layout.expr(node.test, CONDITIONAL)))
        lines = self._headed(head, node.body, node.span.start, indent)
        if node.orelse is not None:
            if isinstance(node.orelse, ast.Cond):
                first, *rest = self._cond(node.orelse, indent)
            else:
                first, *rest = self._body(node.orelse, node.body.span.end, indent)
            lines[-1] += " else " + first
            lines += rest
        return lines

    def _checkpoint(self, node: ast.Checkpoint, indent: int) -> list[str]:
        return self._headed("checkpoint", node.body, node.span.start, indent)

    # ---- Statements without a body --------------------------------------------------------------

    def _simple(self, node: ast.Node) -> Doc:
        layout = self._layout
        if isinstance(node, ast.Import):
            return self._import(node)
        if isinstance(node, ast.Input):
            return (f"input {node.name.id}: ", layout.type(node.type))
        if isinstance(node, ast.Output):
            names = "output " + ", ".join(name.id for name in node.names)
            return (names, " = ", layout.values(node.value)) if node.value else names
        if isinstance(node, ast.Assign):
            return (_target(node.target), " = ", layout.values(node.value))
        if isinstance(node, ast.Shared):
            return (f"shared {node.name.id}: ", layout.target(node.layer))
        if isinstance(node, ast.Param):
            head = (f"param {node.name.id}: ", layout.type(node.type))
            return (head, " = ", layout.expr(node.initializer))
        if isinstance(node, ast.Assert):
            test = ("assert ", layout.expr(node.test, CONDITIONAL))
            return (test, ", ", layout.expr(node.message)) if node.message else test
        if isinstance(node, ast.Return):
            return ("return ", layout.values(node.value))
        if isinstance(node, ast.Emit):
            return "emit " + ", ".join(name.id for name in node.names)
        if isinstance(node, ast.Freeze):
            return "freeze " + ", ".join(pattern.text for pattern in node.patterns)
        if isinstance(node, ast.Metric):
            return (f"metric {node.name.id} = ", layout.expr(node.value))
        return self._setting(node)

    def _setting(self, node: ast.Node) -> Doc:
        """A word and a value, in a train block."""
        word = type(node).__name__.lower()
        if isinstance(node, ast.Batch | ast.Epochs):
            return (f"{word} ", self._layout.expr(node.value, CONDITIONAL))
        assert isinstance(node, ast.Loss | ast.Optimizer | ast.Schedule | ast.Augment), word
        return (f"{word} ", self._layout.expr(node.value))

    def _import(self, node: ast.Import) -> Doc:
        if isinstance(node.module, ast.String):
            module = node.module.span.text
        else:
            module = ".".join(name.id for name in node.module.parts)
        names: list[Doc] = []
        for index, imported in enumerate(node.names):
            alias = f" as {imported.alias.id}" if imported.alias else ""
            last = index == len(node.names) - 1
            names += [imported.name.id + alias, IfBroken(",") if last else (",", Line())]
        items = Indent((Line(""), *names))
        return (f"from {module} import ", Group((IfBroken("("), items, Line(""), IfBroken(")"))))


def _target(node: ast.Target, nested: bool = False) -> str:
    """The left side of an assignment or of ``in``."""
    if isinstance(node, ast.Name):
        return node.id
    inner = ", ".join(_target(element, nested=True) for element in node.elements)
    return f"({inner})" if nested else inner
