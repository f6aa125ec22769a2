"""Parse tree to syntax tree: one small method for each rule of the grammar.

The walk keeps its own stack, so that no input exhausts Python's. Mistakes that the grammar cannot
see (an unknown type, a positional argument after a keyword) are collected and the walk goes on.

Longer than most files because the grammar is: each method is a few lines.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from lark import Token, Tree
from lark.exceptions import UnexpectedInput

from graphc.diagnostics import Diagnostic, Label, nearest
from graphc.limits import MAX_INT, MAX_NAME, MAX_NESTING, MAX_NUMBER
from graphc.source import Source, Span
from graphc.syntax import ast
from graphc.syntax.grammar import parser
from graphc.syntax.scan import too_deep
from graphc.syntax.strings import pieces
from graphc.syntax.words import FOREIGN_LITERALS, RESERVED, TYPE_ALIASES

# Rules whose nesting counts towards MAX_NESTING.
# fmt: off
_NESTING_RULES = frozenset((
    "unary", "binary", "compare", "logical", "conditional", "call", "attribute", "subscript",
    "list", "tuple", "group", "chain", "subchain", "application", "target_group", "tuple_target",
    "body", "cond",
))
# fmt: on


@dataclass(frozen=True)
class _Path:
    """A dotted path before it is known to be a label or a reference."""

    span: Span
    segments: tuple[ast.Segment, ...]


@dataclass(frozen=True)
class _Arguments:
    args: tuple[ast.Expr, ...]
    keywords: tuple[ast.Keyword, ...]


class Builder:
    """Turns parse trees of one source into syntax trees.

    ``offset`` is added to every position: the place of the parsed text in the source.
    """

    def __init__(self, source: Source, offset: int = 0) -> None:
        self.source = source
        self.offset = offset
        self.diagnostics: list[Diagnostic] = []

    def build(self, tree: Tree[Token]) -> Any:
        """The syntax tree for ``tree``; None if it nests too deep (a diagnostic says so)."""
        frames: list[tuple[Tree[Token], int, Iterator[Any], list[Any]]] = []
        node, depth = tree, 0
        while True:
            depth += node.data in _NESTING_RULES
            if depth > MAX_NESTING:
                self.diagnostics.append(too_deep(self._span(node)))
                return None
            frames.append((node, depth, iter(node.children), []))
            while frames:
                current, depth, rest, children = frames[-1]
                below = self._next_tree(rest, children)
                if below is not None:
                    node = below
                    break
                frames.pop()
                built = getattr(self, f"_rule_{current.data}")(self._span(current), children)
                if not frames:
                    return built
                frames[-1][3].append(built)

    @staticmethod
    def _next_tree(rest: Iterator[Any], children: list[Any]) -> Tree[Token] | None:
        """Move tokens to ``children`` up to the next subtree, which is returned."""
        for child in rest:
            if isinstance(child, Tree):
                return child
            children.append(child)
        return None

    # ---- Places and names ---------------------------------------------------------------------

    def _span(self, node: Tree[Token] | Token) -> Span:
        if isinstance(node, Token):
            start, end = node.start_pos or 0, node.end_pos or 0
        elif node.meta.empty:
            start = end = 0
        else:
            start, end = node.meta.start_pos, node.meta.end_pos
        return Span(self.source, start + self.offset, end + self.offset)

    def _error(self, code: str, message: str, span: Span, label: str = "", *help: str) -> None:
        self.diagnostics.append(Diagnostic(code, message, Label(span, label), help=help))

    def _name(self, token: Token) -> ast.Name:
        """A use of a name, or a declaration where any word will do."""
        span = self._span(token)
        if len(token) > MAX_NAME:
            self._error("E0112", f"a name has at most {MAX_NAME} characters", span, "too long")
        return ast.Name(span, unicodedata.normalize("NFC", str(token)))

    def _binding(self, token: Token) -> ast.Name:
        """A declaration of a name that expressions will use."""
        name = self._name(token)
        if name.id in RESERVED:
            self._error("E0110", f"`{name.id}` is a keyword and cannot be a name", name.span)
        return name

    # ---- File and definitions -----------------------------------------------------------------

    def _rule_file(self, span: Span, children: list[Any]) -> ast.File:
        return ast.File(Span(self.source, 0, len(self.source.text)), tuple(children))

    def _rule_import(self, span: Span, children: list[Any]) -> ast.Import:
        module, *names = children
        if isinstance(module, ast.Interpolation):
            self._error("E0129", "an import names one file, without values in braces", module.span)
            module = ast.String(module.span, "")
        return ast.Import(span, module, tuple(names))

    def _rule_library_path(self, span: Span, children: list[Any]) -> ast.LibraryPath:
        return ast.LibraryPath(span, tuple(map(self._name, children)))

    def _rule_imported(self, span: Span, children: list[Any]) -> ast.ImportedName:
        name = self._name(children[0])
        return ast.ImportedName(span, name, self._name(children[1]) if children[1:] else None)

    def _rule_model(self, span: Span, children: list[Any]) -> ast.Model:
        name, *parameters, body = children
        return ast.Model(span, self._binding(name), parameters[0] if parameters else (), body)

    def _rule_block(self, span: Span, children: list[Any]) -> ast.Block:
        name, parameters, body = children
        return ast.Block(span, self._binding(name), parameters, body)

    def _rule_parameters(self, span: Span, children: list[Any]) -> tuple[ast.Parameter, ...]:
        return tuple(children)

    def _rule_parameter(self, span: Span, children: list[Any]) -> ast.Parameter:
        name, type_, *default = children
        return ast.Parameter(span, self._binding(name), type_, default[0] if default else None)

    def _rule_train(self, span: Span, children: list[Any]) -> ast.Train:
        return ast.Train(span, self._name(children[0]), children[1])

    def _rule_body(self, span: Span, children: list[Any]) -> ast.Body:
        return ast.Body(span, tuple(children))

    _rule_train_body = _rule_body

    # ---- Types --------------------------------------------------------------------------------

    def _rule_type(self, span: Span, children: list[Any]) -> ast.TensorType | ast.KindType:
        token = children[0]
        name = str(token)
        if children[1:]:
            if name not in ast.DTYPES:
                self._unknown_type(name, self._span(token), ast.DTYPES)
            return ast.TensorType(span, name, children[1])
        if name not in ast.KINDS:
            if name in ast.DTYPES:
                self._error(
                    "E0115",
                    f"`{name}` needs a shape",
                    span,
                    "an element type, not yet a tensor type",
                    f"write `{name}[N, 10]`; a scalar is `{name}[]`",
                )
            else:
                self._unknown_type(name, span, (*ast.KINDS, *ast.DTYPES))
        return ast.KindType(span, name)

    def _unknown_type(self, name: str, span: Span, candidates: tuple[str, ...]) -> None:
        if name in ast.KINDS:
            self._error(
                "E0115",
                f"`{name}` is no element type and takes no shape",
                span,
                "",
                "element types are " + ", ".join(ast.DTYPES),
            )
            return
        alias = TYPE_ALIASES.get(name)
        near = alias if alias in candidates else nearest(name, candidates)
        help = f"did you mean `{near}`?" if near else "the types are " + ", ".join(candidates)
        self._error("E0114", f"there is no type `{name}`", span, "", help)

    def _tensor_type(self, type_: ast.TensorType | ast.KindType, what: str) -> ast.TensorType:
        if isinstance(type_, ast.TensorType):
            return type_
        # An element type without a shape was reported already, except `bool`, which is a kind too.
        if type_.kind in ast.KINDS:
            self._error(
                "E0115",
                f"{what} is a tensor and needs a tensor type",
                type_.span,
                "",
                "write an element type and a shape, such as `f32[N, 10]`",
            )
        return ast.TensorType(type_.span, "f32", ())

    def _rule_shape(self, span: Span, children: list[Any]) -> tuple[ast.Dim | ast.Dots, ...]:
        dots = [child for child in children if isinstance(child, ast.Dots)]
        if len(dots) > 1:
            self._error("E0128", "a shape holds `...` at most once", dots[1].span)
        return tuple(children)

    def _rule_dim(self, span: Span, children: list[Any]) -> ast.Dim:
        return ast.Dim(span, children[0], children[1] if children[1:] else None)

    def _rule_dots(self, span: Span, children: list[Any]) -> ast.Dots:
        return ast.Dots(span)

    # ---- Statements ---------------------------------------------------------------------------

    def _rule_input(self, span: Span, children: list[Any]) -> ast.Input:
        name = self._binding(children[0])
        return ast.Input(span, name, self._tensor_type(children[1], "an input"))

    def _rule_output(self, span: Span, children: list[Any]) -> ast.Output:
        has_value = not isinstance(children[-1], Token)
        names = children[:-1] if has_value else children
        value = children[-1] if has_value else None
        return ast.Output(span, tuple(map(self._binding, names)), value)

    def _rule_output_value(self, span: Span, children: list[Any]) -> ast.Expr:
        return cast("ast.Expr", children[0])

    def _rule_assign(self, span: Span, children: list[Any]) -> ast.Assign:
        return ast.Assign(span, self._target(children[0]), children[1])

    def _rule_tuple_target(self, span: Span, children: list[Any]) -> ast.TupleTarget:
        return ast.TupleTarget(span, tuple(map(self._target, children)))

    def _rule_target_group(self, span: Span, children: list[Any]) -> ast.Target:
        target = self._target(children[0])
        return replace(target, span=span) if isinstance(target, ast.TupleTarget) else target

    def _target(self, child: Token | ast.Target) -> ast.Target:
        return self._binding(child) if isinstance(child, Token) else child

    def _rule_shared(self, span: Span, children: list[Any]) -> ast.Shared:
        return ast.Shared(span, self._binding(children[0]), self._stage_target(children[1]))

    def _rule_param(self, span: Span, children: list[Any]) -> ast.Param:
        name, type_, initializer = children
        tensor = self._tensor_type(type_, "a parameter")
        return ast.Param(span, self._binding(name), tensor, initializer)

    def _rule_if(self, span: Span, children: list[Any]) -> ast.If:
        branches = tuple(child for child in children if isinstance(child, ast.Branch))
        last = children[-1]
        return ast.If(span, branches, last if isinstance(last, ast.Body) else None)

    def _rule_branch(self, span: Span, children: list[Any]) -> ast.Branch:
        return ast.Branch(span, children[0], children[1])

    def _rule_for(self, span: Span, children: list[Any]) -> ast.For:
        return ast.For(span, self._target(children[0]), children[1], children[2])

    def _rule_assert(self, span: Span, children: list[Any]) -> ast.Assert:
        return ast.Assert(span, children[0], children[1] if children[1:] else None)

    def _rule_return(self, span: Span, children: list[Any]) -> ast.Return:
        return ast.Return(span, children[0])

    def _rule_scan(self, span: Span, children: list[Any]) -> ast.Scan:
        inputs = tuple(child for child in children if isinstance(child, ast.ScanInput))
        carries = tuple(child for child in children if isinstance(child, ast.Carry))
        reverse = any(isinstance(child, Token) for child in children)
        return ast.Scan(span, inputs, carries, reverse, children[-1])

    def _rule_scan_input(self, span: Span, children: list[Any]) -> ast.ScanInput:
        return ast.ScanInput(span, self._binding(children[0]), children[1])

    def _rule_carry(self, span: Span, children: list[Any]) -> ast.Carry:
        return ast.Carry(span, self._binding(children[0]), children[1])

    def _rule_emit(self, span: Span, children: list[Any]) -> ast.Emit:
        return ast.Emit(span, tuple(map(self._name, children)))

    def _rule_cond(self, span: Span, children: list[Any]) -> ast.Cond:
        test, body, *rest = children
        return ast.Cond(span, test, body, rest[0] if rest else None)

    def _rule_checkpoint(self, span: Span, children: list[Any]) -> ast.Checkpoint:
        return ast.Checkpoint(span, children[0])

    def _rule_loss(self, span: Span, children: list[Any]) -> ast.Loss:
        return ast.Loss(span, children[0])

    def _rule_metric(self, span: Span, children: list[Any]) -> ast.Metric:
        return ast.Metric(span, self._binding(children[0]), children[1])

    def _rule_optimizer(self, span: Span, children: list[Any]) -> ast.Optimizer:
        return ast.Optimizer(span, children[0])

    def _rule_schedule(self, span: Span, children: list[Any]) -> ast.Schedule:
        return ast.Schedule(span, children[0])

    def _rule_augment(self, span: Span, children: list[Any]) -> ast.Augment:
        return ast.Augment(span, children[0])

    def _rule_freeze(self, span: Span, children: list[Any]) -> ast.Freeze:
        patterns = (ast.Pattern(self._span(token), str(token)) for token in children)
        return ast.Freeze(span, tuple(patterns))

    def _rule_batch(self, span: Span, children: list[Any]) -> ast.Batch:
        return ast.Batch(span, children[0])

    def _rule_epochs(self, span: Span, children: list[Any]) -> ast.Epochs:
        return ast.Epochs(span, children[0])

    # ---- Chains -------------------------------------------------------------------------------

    def _rule_chain(self, span: Span, children: list[Any]) -> ast.Chain:
        return ast.Chain(span, children[0], tuple(children[1:]))

    def _rule_stage(self, span: Span, children: list[Any]) -> ast.Stage:
        label = None
        if len(children) == 2:
            label = ast.Label(children[0].span, children[0].segments)
            self._check_adjacent(label.span)
        return ast.Stage(span, label, self._stage_target(children[-1]))

    def _check_adjacent(self, span: Span) -> None:
        """Nothing may stand between the parts of a label; inside braces is another matter."""
        depth = 0
        for position, char in enumerate(span.text):
            depth += (char == "{") - (char == "}")
            if depth == 0 and char.isspace():
                at = Span(self.source, span.start + position, span.start + position + 1)
                self._error("E0124", "a label is written without spaces", at, "leave this out")
                return

    def _stage_target(self, child: Any) -> ast.StageTarget:
        if isinstance(child, _Path):
            return self._reference(child)
        return cast("ast.StageTarget", child)

    def _reference(self, path: _Path) -> ast.Name | ast.Attribute:
        """A path that is no label: names with dots between them."""
        result: ast.Name | ast.Attribute | None = None
        for segment in path.segments:
            word = segment.parts[0]
            if len(segment.parts) > 1 or not isinstance(word, str) or word[0] in "0123456789":
                self._error(
                    "E0124",
                    "only a label may hold numbers and values in braces",
                    path.span,
                    "names a layer or a function",
                    "a label is followed by a colon and its layer: `layer{i}: Linear(64)`",
                )
                return ast.Name(path.span, "")
            name = ast.Name(segment.span, word)
            result = ast.Attribute(path.span, result, name) if result else name
            if isinstance(result, ast.Attribute):
                result = replace(result, span=path.segments[0].span.join(segment.span))
        assert result is not None, "the grammar gives a path at least one segment"
        return result

    def _rule_path(self, span: Span, children: list[Any]) -> _Path:
        """Children are the words and holes; a dot in the text before one starts a segment."""
        segments: list[ast.Segment] = []
        parts: list[str | ast.Expr] = []
        place: Span | None = None
        for child in children:
            here, part = self._path_part(child)
            if place is not None and "." in self.source.text[place.end : here.start]:
                segments.append(ast.Segment(place, tuple(parts)))
                parts, place = [], None
            parts.append(part)
            place = place.join(here) if place else here
        assert place is not None, "the grammar gives a path at least one word"
        return _Path(span, (*segments, ast.Segment(place, tuple(parts))))

    def _path_part(self, child: Any) -> tuple[Span, str | ast.Expr]:
        if isinstance(child, Token):
            return self._span(child), self._name(child).id
        span, value = child
        return span, value

    def _rule_hole(self, span: Span, children: list[Any]) -> tuple[Span, ast.Expr]:
        return span, children[0]

    def _rule_application(self, span: Span, children: list[Any]) -> ast.Call:
        arguments = children[1]
        return ast.Call(span, self._reference(children[0]), arguments.args, arguments.keywords)

    def _rule_subchain(self, span: Span, children: list[Any]) -> ast.SubChain:
        return ast.SubChain(span, tuple(children))

    # ---- Expressions --------------------------------------------------------------------------

    def _rule_conditional(self, span: Span, children: list[Any]) -> ast.Conditional:
        then, test, orelse = children
        return ast.Conditional(span, test, then, orelse)

    def _rule_logical(self, span: Span, children: list[Any]) -> ast.Logical:
        left, op, right = children
        return ast.Logical(span, cast("ast.LogicalOperator", str(op)), left, right)

    def _rule_compare(self, span: Span, children: list[Any]) -> ast.Compare:
        left, op, right = children
        return ast.Compare(span, cast("ast.CompareOperator", str(op)), left, right)

    def _rule_binary(self, span: Span, children: list[Any]) -> ast.Binary:
        left, op, right = children
        return ast.Binary(span, cast("ast.BinaryOperator", str(op)), left, right)

    def _rule_unary(self, span: Span, children: list[Any]) -> ast.Unary:
        op, operand = children
        return ast.Unary(span, cast("ast.UnaryOperator", str(op)), operand)

    def _rule_attribute(self, span: Span, children: list[Any]) -> ast.Attribute:
        return ast.Attribute(span, children[0], self._name(children[1]))

    def _rule_call(self, span: Span, children: list[Any]) -> ast.Call:
        callee, arguments = children
        return ast.Call(span, callee, arguments.args, arguments.keywords)

    def _rule_arguments(self, span: Span, children: list[Any]) -> _Arguments:
        args: list[ast.Expr] = []
        keywords: dict[str, ast.Keyword] = {}
        for child in children:
            if not isinstance(child, ast.Keyword):
                args.append(child)
                if keywords:
                    self._error(
                        "E0122",
                        "an argument by position stands after one by name",
                        child.span,
                        "",
                        "give this one a name too, or move it to the front",
                    )
            elif child.name.id in keywords:
                first = keywords[child.name.id].name.span
                self.diagnostics.append(
                    Diagnostic(
                        "E0123",
                        f"argument `{child.name.id}` is given twice",
                        Label(child.name.span, "again"),
                        (Label(first, "first here"),),
                    )
                )
            else:
                keywords[child.name.id] = child
        return _Arguments(tuple(args), tuple(keywords.values()))

    def _rule_keyword(self, span: Span, children: list[Any]) -> ast.Keyword:
        return ast.Keyword(span, self._name(children[0]), children[1])

    def _rule_subscript(self, span: Span, children: list[Any]) -> ast.Subscript:
        return ast.Subscript(span, children[0], children[1])

    def _rule_subscripts(self, span: Span, children: list[Any]) -> tuple[ast.Node, ...]:
        dots = [child for child in children if isinstance(child, ast.Dots)]
        if len(dots) > 1:
            self._error("E0128", "a subscript holds `...` at most once", dots[1].span)
        return tuple(children)

    def _rule_slice(self, span: Span, children: list[Any]) -> ast.Slice:
        parts = dict(children)
        return ast.Slice(span, parts.get("start"), parts.get("stop"), parts.get("step"))

    def _rule_start(self, span: Span, children: list[Any]) -> tuple[str, ast.Expr]:
        return "start", children[0]

    def _rule_stop(self, span: Span, children: list[Any]) -> tuple[str, ast.Expr]:
        return "stop", children[0]

    def _rule_step(self, span: Span, children: list[Any]) -> tuple[str, ast.Expr]:
        return "step", children[0]

    def _rule_group(self, span: Span, children: list[Any]) -> ast.Expr:
        return cast("ast.Expr", children[0])

    def _rule_tuple(self, span: Span, children: list[Any]) -> ast.Tuple:
        return ast.Tuple(span, tuple(children))

    def _rule_list(self, span: Span, children: list[Any]) -> ast.List:
        return ast.List(span, tuple(children))

    def _rule_name(self, span: Span, children: list[Any]) -> ast.Expr:
        name = self._name(children[0])
        meant = FOREIGN_LITERALS.get(name.id)
        if meant is not None:
            self._error("E0116", f"`{name.id}` is spelled `{meant}` here", span)
        return name

    # ---- Literals -----------------------------------------------------------------------------

    def _rule_int(self, span: Span, children: list[Any]) -> ast.Int:
        digits = children[0].replace("_", "")
        if len(digits) > MAX_NUMBER or int(digits) > MAX_INT:
            self._error("E0111", "this integer does not fit in 64 bits", span)
            digits = "0"
        return ast.Int(span, int(digits))

    def _rule_float(self, span: Span, children: list[Any]) -> ast.Float:
        value = float(children[0]) if len(children[0]) <= MAX_NUMBER else math.inf
        if math.isinf(value):
            self._error("E0111", "this number is too large or too long", span)
        return ast.Float(span, value)

    def _rule_true(self, span: Span, children: list[Any]) -> ast.Bool:
        return ast.Bool(span, True)

    def _rule_false(self, span: Span, children: list[Any]) -> ast.Bool:
        return ast.Bool(span, False)

    def _rule_none(self, span: Span, children: list[Any]) -> ast.Nothing:
        return ast.Nothing(span)

    def _rule_string(self, span: Span, children: list[Any]) -> ast.String | ast.Interpolation:
        parts: list[str | ast.Expr] = []
        for piece in pieces(str(children[0])):
            place = Span(self.source, span.start + piece.start, span.start + piece.end)
            if piece.problem is not None:
                self._error("E0113", "this does not belong in a string", place, "", piece.problem)
            elif piece.text is None:
                value = self._interpolated(place)
                if value is not None:
                    parts.append(value)
            elif parts and isinstance(parts[-1], str):
                parts[-1] += piece.text
            else:
                parts.append(piece.text)
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(parts):
            return ast.String(span, "".join(texts))
        return ast.Interpolation(span, tuple(parts))

    def _interpolated(self, place: Span) -> ast.Expr | None:
        """The value in braces at ``place``."""
        inner = Builder(self.source, place.start)
        try:
            tree = parser().parse(place.text, start="hole")
        except UnexpectedInput:
            self._error(
                "E0113",
                "a value in braces does not read as an expression",
                place,
                "",
                "write `{{` and `}}` for plain braces",
            )
            return None
        built = inner.build(tree)
        self.diagnostics += inner.diagnostics
        return cast("ast.Expr", built[1]) if built else None
