"""What the parser makes of every construct, and that no input gets past it unreported."""

from __future__ import annotations

import unicodedata
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.diagnostics import DiagnosticError, render, to_json
from graphc.source import Source
from graphc.syntax import ast
from graphc.syntax.parser import parse, parse_bytes
from tests.syntax.programs import written


def body_of(text: str) -> tuple[ast.Statement, ...]:
    """The statements of a model body."""
    (model,) = parse(Source("test.nn", f"model M {{\n{text}\n}}\n")).items
    assert isinstance(model, ast.Model)
    return model.body.statements


def value_of(text: str) -> ast.Expr:
    """An expression."""
    (statement,) = body_of(f"x = {text}")
    assert isinstance(statement, ast.Assign)
    return statement.value


def shown(node: Any) -> str:
    """An expression with all of its parentheses."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Int | ast.Float):
        return str(node.value)
    if isinstance(node, ast.Unary):
        return f"({node.op} {shown(node.operand)})"
    if isinstance(node, ast.Binary | ast.Compare | ast.Logical):
        return f"({shown(node.left)} {node.op} {shown(node.right)})"
    if isinstance(node, ast.Conditional):
        return f"({shown(node.then)} if {shown(node.test)} else {shown(node.orelse)})"
    if isinstance(node, ast.Chain):
        return "(" + " -> ".join([shown(node.value), *(shown(s.target) for s in node.stages)]) + ")"
    raise TypeError(node)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + b * c", "(a + (b * c))"),
        ("a - b - c", "((a - b) - c)"),
        ("a ** b ** c", "(a ** (b ** c))"),
        ("-a ** 2", "(- (a ** 2))"),
        ("2 ** -a", "(2 ** (- a))"),
        ("a @ b @ c", "((a @ b) @ c)"),
        ("a // b % c / d", "(((a // b) % c) / d)"),
        ("not a == b and c or d", "(((not (a == b)) and c) or d)"),
        ("a if b else c if d else e", "(a if b else (c if d else e))"),
        ("a + b -> f -> g", "((a + b) -> f -> g)"),
        ("a if b else c -> f", "((a if b else c) -> f)"),
        ("a + (b -> f)", "(a + (b -> f))"),
        ("a\n    + b\n    # between\n\n    and c", "((a + b) and c)"),
        ("(a\n    + b\n)", "(a + b)"),
        ("a <= b + 1", "(a <= (b + 1))"),
    ],
)
def test_precedence(text: str, expected: str) -> None:
    assert shown(value_of(text)) == expected


def test_chain_labels_and_targets() -> None:
    chain = value_of(
        "x -> layer{i + 1}.{j}: Block(w, stride=2) -> features.0: [A -> B(1)] -> emb.f"
    )
    assert isinstance(chain, ast.Chain)
    first, second, third = chain.stages
    assert first.label is not None
    assert second.label is not None
    assert first.label.constant is None
    assert [len(segment.parts) for segment in first.label.segments] == [2, 1]
    assert isinstance(first.target, ast.Call)
    assert [keyword.name.id for keyword in first.target.keywords] == ["stride"]
    assert second.label.constant == "features.0"
    assert isinstance(second.target, ast.SubChain)
    assert len(second.target.stages) == 2
    assert third.label is None
    assert isinstance(third.target, ast.Attribute)
    assert third.target.name.id == "f"


def test_any_word_may_be_a_label_an_argument_or_an_attribute() -> None:
    chain = value_of("x -> output.dense: Linear(input=3) -> self.if: h.in")
    assert isinstance(chain, ast.Chain)
    assert [stage.label and stage.label.constant for stage in chain.stages] == [
        "output.dense",
        "self.if",
    ]


def test_train_words_are_names_elsewhere() -> None:
    loss, batch = body_of("loss = batch + epochs\nbatch = schedule(metric)")
    assert isinstance(loss, ast.Assign)
    assert isinstance(batch, ast.Assign)


def test_subscripts() -> None:
    value = value_of("x[:, 0, ..., ::2, -1, a + 1:b]")
    assert isinstance(value, ast.Subscript)
    kinds = [type(item).__name__ for item in value.items]
    assert kinds == ["Slice", "Int", "Dots", "Slice", "Unary", "Slice"]
    step = value.items[3]
    assert isinstance(step, ast.Slice)
    assert (step.start, step.stop) == (None, None)
    assert isinstance(step.step, ast.Int)


def test_tuples_and_lists() -> None:
    assert value_of("()") == ast.Tuple(value_of("()").span, ())
    one, two, bare = value_of("(a,)"), value_of("(a, b,)"), value_of("a, b")
    assert isinstance(one, ast.Tuple) and len(one.elements) == 1
    assert two == bare
    chains = value_of("[x -> A, x -> B,]")
    assert isinstance(chains, ast.List)
    assert all(isinstance(element, ast.Chain) for element in chains.elements)


def test_strings() -> None:
    plain = value_of(r'"a\n\t\"\\ \u{1F600} {{}}"')
    assert isinstance(plain, ast.String)
    assert plain.value == 'a\n\t"\\ \U0001f600 {}'
    filled = value_of('"width {D // 2} of {heads}"')
    assert isinstance(filled, ast.Interpolation)
    texts = [part if isinstance(part, str) else part.span.text for part in filled.parts]
    assert texts == ["width ", "D // 2", " of ", "heads"]


def test_statements() -> None:
    statements = body_of(
        """
    input tokens: i64[N, T <= 512, D / heads, ...]
    shared emb: Embedding(vocab, D)
    param gamma: f32[D] = constant(init)
    a, (b, c) = f(x)
    if a == 1 { } else if b { } else { x = 1 }
    for i, (w, n) in enumerate([(64, 3)]) { }
    assert D % heads == 0, "no"
    scan x_t in x, m_t in mask with h = zeros([N]), c = h reversed { emit h, c }
    cond a { } else cond b { x = 1 } else { }
    checkpoint { }
    output logits
    output p, q = a -> softmax(dim=-1), b
    return h.stacked, h.last"""
    )
    kinds = " ".join(type(statement).__name__ for statement in statements)
    assert kinds == (
        "Input Shared Param Assign If For Assert Scan Cond Checkpoint Output Output Return"
    )
    tokens, scan, choice = statements[0], statements[7], statements[4]
    assert isinstance(tokens, ast.Input)
    assert isinstance(tokens.type.dims[1], ast.Dim)
    assert isinstance(tokens.type.dims[1].bound, ast.Int)
    assert isinstance(scan, ast.Scan)
    assert scan.reverse
    assert (len(scan.inputs), len(scan.carries)) == (2, 2)
    assert isinstance(choice, ast.If)
    assert len(choice.branches) == 2
    assert choice.orelse is not None
    cond = statements[8]
    assert isinstance(cond, ast.Cond)
    assert isinstance(cond.orelse, ast.Cond)
    assert isinstance(cond.orelse.orelse, ast.Body)


def test_definitions_and_imports() -> None:
    file = parse(
        Source(
            "test.nn",
            'from "blocks.nn" import (A, B as C,)\nfrom nn.transformer import X\n\n'
            "block B(x: f32[N], body: layer, sizes: list = [1, 2],) { return x }\n"
            "train M {\n    freeze conv1, bn*, encoder.*.attn\n    batch 64\n}",
        )
    )
    kinds = [type(item).__name__ for item in file.items]
    assert kinds == ["Import", "Import", "Block", "Train"]
    imports, library, block, train = file.items
    assert isinstance(imports, ast.Import)
    assert [name.bound.id for name in imports.names] == ["A", "C"]
    assert isinstance(library, ast.Import)
    assert isinstance(library.module, ast.LibraryPath)
    assert isinstance(block, ast.Block)
    assert [type(parameter.type).__name__ for parameter in block.parameters] == [
        "TensorType",
        "KindType",
        "KindType",
    ]
    assert isinstance(train, ast.Train)
    freeze = train.body.statements[0]
    assert isinstance(freeze, ast.Freeze)
    assert [pattern.text for pattern in freeze.patterns] == ["conv1", "bn*", "encoder.*.attn"]


def test_names_are_normalised_and_spans_are_not() -> None:
    decomposed = unicodedata.normalize("NFD", "Größe")
    (assign,) = body_of(f"{decomposed} = 1")
    assert isinstance(assign, ast.Assign)
    assert isinstance(assign.target, ast.Name)
    assert assign.target.id == unicodedata.normalize("NFC", "Größe")
    assert assign.target.span.text == decomposed


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_tabs_and_byte_order_mark(ending: str) -> None:
    text = ending.join(["model M {", "\th = x  # c", "", "\t\t-> A", "\t# d", "\t\t-> B", "}", ""])
    plain = parse(Source("a", text.replace(ending, "\n").replace("\t", "  ")))
    assert parse_bytes("a", b"\xef\xbb\xbf" + text.encode()) == plain


def test_an_empty_file() -> None:
    assert parse(Source("a", "")).items == ()
    assert parse(Source("a", "\n# only a comment")).items == ()


def _check_spans(node: Any, outer: ast.Node) -> None:
    if isinstance(node, ast.Node):
        assert outer.span.start <= node.span.start <= node.span.end <= outer.span.end, node
        outer = node
    if isinstance(node, tuple):
        for part in node:
            _check_spans(part, outer)
    elif is_dataclass(node):
        for field in fields(node):
            if field.name != "span":
                _check_spans(getattr(node, field.name), outer)


@given(written())
def test_spans_nest(text: str) -> None:
    file = parse(Source("test.nn", text))
    _check_spans(file.items, file)


# ---- Nothing gets past -----------------------------------------------------------------------


def _survives(data: bytes) -> None:
    try:
        parse_bytes("fuzz.nn", data)
    except DiagnosticError as error:
        assert error.diagnostics
        assert render(error.diagnostics, color=True)
        assert to_json(error.diagnostics)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    _survives(data)


@given(st.text(alphabet=st.sampled_from('ab {}[]()"\\#\n->=:,.*+<!$é\x00\u0301'), max_size=80))
def test_any_signs(text: str) -> None:
    _survives(text.encode())


@given(written(), st.data())
def test_programs_with_pieces_cut_out_doubled_or_swapped(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        piece = data.draw(
            st.sampled_from(["", text[start:end] * 2, "(", "}", '"', "->", "\n", "é"])
        )
        text = text[:start] + piece + text[end:]
    _survives(text.encode())


@given(st.text(max_size=60))
def test_any_text_inside_a_string_literal(text: str) -> None:
    literal = text.replace("\n", "").replace('"', "").replace("\\", "")
    _survives(f'model M {{ x = "{literal}" }}'.encode(errors="replace"))
