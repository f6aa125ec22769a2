"""Expressions, chains and types as documents for the pretty printer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.source import Source, Span
from graphc.syntax import ast
from graphc.syntax.comments import Comments
from graphc.syntax.doc import Comment, Doc, Fill, Group, IfBroken, Indent, Line, Row, Rows, flat

# How tightly things bind, weakest first; an operand of weaker binding stands in parentheses.
CHAIN, CONDITIONAL, OR, AND, NOT, COMPARE, SUM, PRODUCT, SIGN, POWER, POSTFIX = range(11)

_BINARY = {"+": SUM, "-": SUM, "**": POWER}  # the others are PRODUCT

_SOFT = Line("")


class Layout:
    """Makes documents for the expressions of one source, comments in their places."""

    def __init__(self, comments: Comments) -> None:
        self.comments = comments

    def expr(self, node: ast.Expr, level: int = CHAIN) -> Doc:
        """An expression that stands where ``level`` and everything that binds tighter may."""
        doc = getattr(self, f"_{type(node).__name__.lower()}")(node)
        return ("(", doc, ")") if binding(node) < level else doc

    def values(self, node: ast.Expr) -> Doc:
        """The right side of ``=`` or ``return``, where a tuple needs no parentheses."""
        if isinstance(node, ast.Tuple) and len(node.elements) > 1:
            items = self._items(node.elements, self.expr, node.span.start, node.span.end)
            return Group((IfBroken("("), Indent((_SOFT, items)), _SOFT, IfBroken(")")))
        return self.expr(node)

    # ---- Sequences with comments ------------------------------------------------------------

    def _items(
        self, nodes: Sequence[ast.Node], show: Callable[..., Doc], start: int, end: int
    ) -> Doc:
        """Items with commas between and, when broken, after them; ``[start, end)`` holds them."""
        parts: list[Doc] = []
        previous = start
        for index, node in enumerate(nodes):
            above = self.comments.texts(previous, node.span.start)
            doc = show(node)
            above += self.comments.texts(node.span.start, node.span.end)
            for text in above:
                parts += [text, Line(hard=True)]
            last = index == len(nodes) - 1
            # Without a bracket after it, the comment belongs to the statement.
            beside = self.comments.beside(node.span.end) if node.span.end < end else ""
            parts += [doc, IfBroken(",") if last else ","]
            if beside:
                parts.append(Comment(beside))
            if not last:
                parts.append(Line())
            previous = node.span.end
        for text in self.comments.texts(previous, end):
            parts += [Line(hard=True), text]
        return tuple(parts)

    def brackets(
        self,
        pair: str,
        nodes: Sequence[ast.Node],
        show: Callable[..., Doc],
        start: int,
        end: int,
    ) -> Doc:
        """Items in brackets; numbers and the like as many on a line as fit, others one each."""
        remain = self.comments.remain(start, end)
        if not nodes and not remain:
            return pair
        if not nodes:
            texts = self.comments.texts(start, end)
            lines = [part for text in texts for part in (Line(hard=True), text)]
            return Group((pair[0], Indent(tuple(lines)), Line(hard=True), pair[1]))
        if not remain and len(nodes) > 1 and all(map(_is_atom, nodes)):
            fill = (Fill(tuple(map(show, nodes))), IfBroken(","))
            return Group((pair[0], Indent((_SOFT, fill)), _SOFT, pair[1]))
        items = self._items(nodes, show, start, end)
        return Group((pair[0], Indent((_SOFT, items)), _SOFT, pair[1]))

    # ---- Literals and names -------------------------------------------------------------------

    def _name(self, node: ast.Name) -> Doc:
        return node.id

    def _int(self, node: ast.Int) -> Doc:
        return node.span.text

    def _float(self, node: ast.Float) -> Doc:
        return node.span.text.lower()

    def _bool(self, node: ast.Bool) -> Doc:
        return "true" if node.value else "false"

    def _nothing(self, node: ast.Nothing) -> Doc:
        return "none"

    def _string(self, node: ast.String) -> Doc:
        return node.span.text

    def _interpolation(self, node: ast.Interpolation) -> Doc:
        return node.span.text

    # ---- Operators ----------------------------------------------------------------------------

    def _unary(self, node: ast.Unary) -> Doc:
        if node.op == "not":
            return ("not ", self.expr(node.operand, NOT))
        return (node.op, self.expr(node.operand, SIGN))

    def _binary(self, node: ast.Binary) -> Doc:
        if node.op == "**":
            return (self.expr(node.left, POSTFIX), " ** ", self.expr(node.right, SIGN))
        return self._operators(node, _BINARY.get(node.op, PRODUCT))

    def _logical(self, node: ast.Logical) -> Doc:
        return self._operators(node, OR if node.op == "or" else AND)

    def _operators(self, node: ast.Binary | ast.Logical, level: int) -> Doc:
        """A run of operators of one level breaks before each of them or before none."""
        rest: list[Doc] = []
        left: ast.Expr = node
        while isinstance(left, ast.Binary | ast.Logical) and binding(left) == level:
            rest[:0] = [Line(), left.op, " ", self.expr(left.right, level + 1)]
            left = left.left
        return Group((self.expr(left, level), Indent(tuple(rest))))

    def _compare(self, node: ast.Compare) -> Doc:
        right = (Line(), node.op, " ", self.expr(node.right, SUM))
        return Group((self.expr(node.left, SUM), Indent(right)))

    def _conditional(self, node: ast.Conditional) -> Doc:
        # A line may begin with `else` but not with `if`, which begins a statement.
        test = (self.expr(node.then, OR), " if ", self.expr(node.test, OR))
        return Group((test, Indent((Line(), "else ", self.expr(node.orelse, CONDITIONAL)))))

    # ---- Calls, subscripts, sequences -----------------------------------------------------------

    def _call(self, node: ast.Call) -> Doc:
        nodes = sorted((*node.args, *node.keywords), key=lambda argument: argument.span.start)
        start, end = node.callee.span.end, node.span.end
        callee = self.expr(node.callee, POSTFIX)
        return (callee, self.brackets("()", nodes, self._argument, start, end))

    def _argument(self, node: ast.Expr | ast.Keyword) -> Doc:
        if not isinstance(node, ast.Keyword):
            return self.expr(node)
        equals = " = " if isinstance(node.value, ast.Conditional | ast.Chain) else "="
        return (node.name.id, equals, self.expr(node.value))

    def _attribute(self, node: ast.Attribute) -> Doc:
        value = self.expr(node.value, POSTFIX)
        # Without parentheses the dot would belong to the number.
        value = ("(", value, ")") if isinstance(node.value, ast.Int | ast.Float) else value
        return (value, ".", node.name.id)

    def _subscript(self, node: ast.Subscript) -> Doc:
        value = self.expr(node.value, POSTFIX)
        start, end = node.value.span.end, node.span.end
        return (value, self.brackets("[]", node.items, self._subscript_item, start, end))

    def _subscript_item(self, node: ast.Expr | ast.Slice | ast.Dots) -> Doc:
        if isinstance(node, ast.Dots):
            return "..."
        if not isinstance(node, ast.Slice):
            return self.expr(node, CONDITIONAL)
        parts = [node.start, node.stop, *([node.step] if node.step else [])]
        space = "" if all(part is None or _is_simple(part) for part in parts) else " "
        docs: list[Doc] = []
        for index, part in enumerate(parts):
            if index:
                docs += [space if parts[index - 1] else "", ":", space if part else ""]
            docs.append(self.expr(part, CONDITIONAL) if part else "")
        return tuple(docs)

    def _list(self, node: ast.List) -> Doc:
        return self.brackets("[]", node.elements, self.expr, node.span.start, node.span.end)

    def _tuple(self, node: ast.Tuple) -> Doc:
        if len(node.elements) == 1 and not self.comments.remain(node.span.start, node.span.end):
            return ("(", self.expr(node.elements[0]), ",)")
        return self.brackets("()", node.elements, self.expr, node.span.start, node.span.end)

    # ---- Chains -------------------------------------------------------------------------------

    def _chain(self, node: ast.Chain) -> Doc:
        head = self.expr(node.value, CONDITIONAL)
        rows: list[Row] = []
        previous = node.value.span.end
        hang = True
        for stage in node.stages:
            beside = self.comments.beside(previous)
            above = self.comments.texts(previous, stage.span.start)
            doc = ("-> ", self.stage(stage))
            above += self.comments.texts(stage.span.start, stage.span.end)
            starts_row = "\n" in _between(node.span, previous, stage.span.start)
            if beside and rows:
                rows[-1] = Row(rows[-1].above, rows[-1].cells, beside)
            elif beside:
                # Beside the input of the chain; above its first row it reads as well.
                above = (beside, *above)
            if not rows and (starts_row or above):
                hang = False
            if rows and not (starts_row or above):
                rows[-1] = Row(rows[-1].above, (*rows[-1].cells, doc))
            else:
                rows.append(Row(above, (doc,)))
            previous = stage.span.end
        return (head, Rows(tuple(rows), hang))

    def stage(self, node: ast.Stage) -> Doc:
        """A stage without its arrow."""
        target = self.target(node.target)
        return (self.label(node.label), ": ", target) if node.label else target

    def target(self, node: ast.StageTarget) -> Doc:
        """What a stage or a shared declaration names."""
        if not isinstance(node, ast.SubChain):
            return self.expr(node)
        parts: list[Doc] = [_SOFT]
        previous = node.span.start
        for index, stage in enumerate(node.stages):
            beside = self.comments.beside(previous) if index else ""
            if beside:
                parts.append(Comment(beside))
            if index:
                parts.append(Line())
            above = self.comments.texts(previous, stage.span.start)
            doc = self.stage(stage)
            above += self.comments.texts(stage.span.start, stage.span.end)
            for text in above:
                parts += [text, Line(hard=True)]
            parts += ["-> " if index else "", doc]
            previous = stage.span.end
        for text in self.comments.texts(previous, node.span.end):
            parts += [Line(hard=True), text]
        return Group(("[", Indent(tuple(parts)), _SOFT, "]"))

    def label(self, node: ast.Label) -> str:
        """A label, its values in braces on one line."""
        return ".".join(
            "".join(
                part if isinstance(part, str) else "{" + self._inline(part) + "}"
                for part in segment.parts
            )
            for segment in node.segments
        )

    def _inline(self, node: ast.Expr) -> str:
        """An expression as one line of text, for inside a label."""
        return flat(Layout(Comments(Source("", ""))).expr(node, CONDITIONAL))

    # ---- Types --------------------------------------------------------------------------------

    def type(self, node: ast.TensorType | ast.KindType) -> Doc:
        """A tensor type or a kind."""
        if isinstance(node, ast.KindType):
            return node.kind
        start, end = node.span.start, node.span.end
        return (node.dtype, self.brackets("[]", node.dims, self._dim, start, end))

    def _dim(self, node: ast.Dim | ast.Dots) -> Doc:
        if isinstance(node, ast.Dots):
            return "..."
        size = self.expr(node.size, SUM)
        return (size, " <= ", self.expr(node.bound, SUM)) if node.bound else size


def binding(node: ast.Expr) -> int:
    """How tightly an expression binds."""
    if isinstance(node, ast.Chain):
        return CHAIN
    if isinstance(node, ast.Conditional):
        return CONDITIONAL
    if isinstance(node, ast.Logical):
        return OR if node.op == "or" else AND
    if isinstance(node, ast.Compare):
        return COMPARE
    if isinstance(node, ast.Unary):
        return NOT if node.op == "not" else SIGN
    if isinstance(node, ast.Binary):
        return _BINARY.get(node.op, PRODUCT)
    return POSTFIX


def _is_atom(node: ast.Node) -> bool:
    return isinstance(node, ast.Int | ast.Float | ast.Bool | ast.String) or (
        isinstance(node, ast.Unary) and isinstance(node.operand, ast.Int | ast.Float)
    )


def _is_simple(node: ast.Expr) -> bool:
    return isinstance(node, ast.Name | ast.Int | ast.Attribute) or (
        isinstance(node, ast.Unary) and isinstance(node.operand, ast.Int)
    )


def _between(span: Span, start: int, end: int) -> str:
    return span.source.text[start:end]
