"""What prints, parses: the text form of graphs, and its diagnostics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.codes.graph import CODES
from graphc.diagnostics import DiagnosticError
from graphc.ir.dim import Bounds, Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Scope
from graphc.ir.literal import Literal
from graphc.ir.printer import print_graph
from graphc.ir.reader import MAX_REPEATED_BYTES, read_graph
from graphc.source import Source
from tests.ir.toy import OPS, ToyAdd, ToyConstant, ToyInput, ToyPair, ToyRegion

N, T = Dim.symbol("N"), Dim.symbol("T")


def example() -> Graph:
    """A graph with every kind of thing that can be printed."""
    b = GraphBuilder("My net", {"N": Bounds(), "T": Bounds(0, 512), "inf": Bounds(2)})
    x = b(ToyInput("image", DType.F32, (N, (T + 1) // 2, 3 * Dim.symbol("inf") - 1)))
    source = Source("my.nn", "one\ntwo -> three")
    scope = (Scope("layer1", "Block"), Scope("a b", "[Conv -> X]"), Scope("0", "Linear"))
    with b.at(scope, source.span(8, 10)):
        y = b(ToyAdd(), x, x)
    pair = ToyPair(
        3, -0.0, True, 'é"\n', (N * N // T // 2, -4), ((0, 1), (-2, 3)), DType.BF16, float("-inf")
    )
    p, q = b.emit(pair, x, y)
    inner = GraphBuilder("body", {"N": Bounds()})
    i = inner(ToyInput("x", DType.F32, (N,)))
    body = inner.build([("r", inner(ToyAdd(), i, i)), ("s", i)])
    b.emit(ToyRegion("elementwise", body), x)
    b(ToyConstant(Literal.of(np.arange(6, dtype=np.float32).reshape(2, 3) / 7)))
    return b.build([("logits", p), ("x y", q), ("z.w", x)])


EXAMPLE = """\
graph "My net" {
  dim N >= 1
  dim T in 0..512
  dim `inf` >= 2
  %image = input() {label = "image"} : f32[N, (T + 1) // 2, 3*`inf` - 1]
  %1 = add(%image, %image) : f32[N, (T + 1) // 2, 3*`inf` - 1] \
@ layer1: Block / "a b": "[Conv -> X]" / 0: Linear  # my.nn:2:5
  %2:2 = pair(%image, %1) {count = 3, eps = -0.0, on = true, mode = "\\u00e9\\"\\n", \
dims = [(N*N) // (2*T), -4], pads = [[0, 1], [-2, 3]], dtype = bf16, extra = -inf} : \
(f32[N, (T + 1) // 2, 3*`inf` - 1], f32[N, (T + 1) // 2, 3*`inf` - 1])
  %3:2 = region(%image) {kind = "elementwise", body = graph body {
    dim N >= 1
    %x = input() {label = "x"} : f32[N]
    %1 = add(%x, %x) : f32[N]
    output r = %1
    output s = %x
  }} : (f32[N], f32[N])
  %4 = constant() {literal = f32[2, 3] [0.0, 0.14285715, 0.2857143, 0.42857143, 0.5714286, \
0.71428573]} : f32[2, 3]
  output logits = %2#0
  output "x y" = %2#1
  output z.w = %image
}
"""


def test_print() -> None:
    assert print_graph(example(), locations=True) == EXAMPLE


@pytest.mark.parametrize("locations", [False, True])
def test_round_trip(locations: bool) -> None:
    text = print_graph(example(), locations=locations)
    again = read_graph(text, OPS)
    assert again == example()
    assert print_graph(again) == print_graph(example())


def test_read_nodes_know_their_line() -> None:
    span = read_graph(EXAMPLE, OPS, name="g.txt").node(1).span
    assert span is not None
    assert str(span) == "g.txt:6:3"


LITERALS = [
    np.float32(0.1),
    np.zeros((100,)),
    np.full((3, 7), -0.0, np.float16),
    np.arange(40),
    np.array([np.nan, -np.inf, np.inf, -0.0, 1e-45], np.float32),
    np.array([65504, 6e-8, 1 / 3], np.float16),
    np.array([1 / 3, 1e38, -1e-40], DType.BF16.numpy),
    np.array([True, False]),
    np.zeros((0, 3), np.int8),
    np.array([0x7FC00001], np.uint32).view(np.float32),
    np.array([-(2**63), 2**63 - 1]),
    np.uint8(255),
]


@pytest.mark.parametrize("array", LITERALS, ids=range(len(LITERALS)))
def test_literals_keep_every_bit(array: np.ndarray) -> None:
    b = GraphBuilder("g")
    graph = b.build([("y", b(ToyConstant(Literal.of(array))))])
    assert read_graph(print_graph(graph), OPS) == graph


@given(
    st.lists(st.floats(width=32) | st.integers(0, 2**32 - 1).map(np.uint32)),
    st.floats(),
    st.none() | st.floats(allow_nan=False),
    st.text(),
    st.lists(st.tuples(st.integers(-(2**40), 2**40), st.integers(-9, 9))),
)
def test_attributes_round_trip(
    elements: list[float | np.uint32],
    eps: float,
    extra: float | None,
    mode: str,
    pads: list[tuple[int, int]],
) -> None:
    b = GraphBuilder(mode or "g", {"N": Bounds()})
    bits = [e.view(np.float32) if isinstance(e, np.uint32) else np.float32(e) for e in elements]
    with b.at((Scope(mode, "Kind"),), None):
        x = b(ToyConstant(Literal.of(np.array(bits, np.float32))))
        y, _ = b.emit(ToyPair(eps=eps, mode=mode, pads=tuple(pads), extra=extra), x, x)
    graph = b.build([(mode, y)])
    again = read_graph(print_graph(graph), OPS)
    assert print_graph(again) == print_graph(graph)
    assert again == graph or eps != eps


BASE = """graph g {
  dim N in 1..8
  %x = input() {label = "x"} : f32[N, 4]
  %1:2 = pair(%x, %x) {count = 2} : (f32[N, 4], f32[N, 4])
  %c = constant() {literal = f32[2] [1.0, 2.0]} : f32[2]
  output y = %1#0
}
"""


@pytest.mark.parametrize(
    ("old", "new", "code", "place", "message"),
    [
        ("graph g {", "graph g", "E0901", "2:3", "unexpected `dim` in the text of a graph"),
        ("}\n", "", "E0901", None, None),
        ("dim N", "dim $", "E0901", "2:7", "unexpected character '$' in the text of a graph"),
        ("pair(", "pear(", "E0902", "4:10", "there is no operation `pear`"),
        ("(%x, %x)", "(%y, %x)", "E0903", "4:15", "`%y` is not defined above"),
        ("%1#0", "%1", "E0903", "6:14", "`%1` has 2 results: write them as `#0` ..."),
        ("%1#0", "%1#2", "E0903", "6:14", "`%1` has 2 results: write them as `#0` ..."),
        ("%c =", "%x =", "E0903", "5:3", "`%x` is defined twice"),
        ("[N, 4]\n", "[M, 4]\n", "E0904", "3:36", "dim `M` is not declared"),
        ("1..8", "8..1", "E0904", "2:9", "the bounds of dim `N` leave no value"),
        ("count", "cunt", "E0904", "4:24", "`pair`: `cunt` is not one of its attributes"),
        ("= 2}", "= 2.5}", "E0904", "4:32", "`pair`: `count` cannot be this kind of value"),
        ("= 2}", "= true}", "E0904", "4:32", "`pair`: `count` cannot be this kind of value"),
        ('{label = "x"} ', "", "E0904", "3:3", "`input` needs the attribute `label`"),
        ("[1.0, 2.0]", "[1.0]", "E0904", "5:37", "f32[2] takes 8 bytes of elements and gets 4"),
        ("[1.0, 2.0]", 'hex "0g"', "E0904", "5:37", "not hexadecimal bytes"),
        ("[1.0, 2.0]", "[1.0, true]", "E0904", "5:43", "`true` is not an element of f32"),
        ("(f32[N, 4], f", "(f16[N, 4], f", "E0905", "4:37", None),
        ("(f32[N, 4], f32[N, 4])", "f32[N, 4]", "E0905", "4:37", "2 results, but 1 types"),
        ("f32[N, 4]\n", "f33[N, 4]\n", "E0905", "3:32", "`f33` is not a dtype"),
        ("= 2}", f"= {2**64}}}", "E0906", "4:32", "an integer of more than 64 bits"),
        ("f32[2] [1.0, 2.0]", f"f32[{2**50}] splat 1.0", "E0906", "5:30", None),
        ("[N, 4]\n", f"[{'(' * 99}N{')' * 99}]\n", "E0906", None, "nested more than 32 deep"),
        ("[N, 4]\n", "[(N + 1)*(N + 2)]\n", "E0906", "3:36", "a product of sums"),
        ("[N, 4]\n", f"[{'*'.join('N' * 99)}]\n", "E0906", "3:36", "more than 64 terms or factors"),
        ("[N, 4]\n", "[N // 0]\n", "E0904", "3:36", "division by zero"),
    ],
)
def test_bad_text(old: str, new: str, code: str, place: str | None, message: str | None) -> None:
    assert old in BASE
    with pytest.raises(DiagnosticError) as caught:
        read_graph(BASE.replace(old, new, 1), OPS, name="g")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert diagnostic.code in CODES
    assert diagnostic.primary is not None
    if place is not None:
        assert str(diagnostic.primary.span) == f"g:{place}"
    if message is not None:
        assert diagnostic.message == message


def test_nearest_names_help() -> None:
    with pytest.raises(DiagnosticError, match="did you mean `pair`"):
        read_graph(BASE.replace("pair", "piar"), OPS)


def test_more_brackets_than_any_stack_holds() -> None:
    deep = "[" * 20_000 + "]" * 20_000
    with pytest.raises(DiagnosticError, match="nested more than 32 deep"):
        read_graph(BASE.replace("count = 2", f"count = {deep}"), OPS)


def test_repeated_bytes_are_limited_in_sum() -> None:
    size = MAX_REPEATED_BYTES // 8
    line = "  %{} = constant() {{literal = f64[{}] splat 1.0}} : f64[{}]\n"
    text = "graph g {\n" + "".join(line.format(i, size // 2, size // 2) for i in range(3)) + "}\n"
    with pytest.raises(DiagnosticError, match="literals of more than"):
        read_graph(text, OPS)


def mutations() -> st.SearchStrategy[str]:
    """The example with a few characters replaced, inserted or deleted."""
    place = st.integers(0, len(EXAMPLE))
    edit = st.tuples(place, st.integers(0, 3), st.text('%{}[]()"#@:,=.-0 9aN`\n\x00', max_size=3))

    def apply(edits: list[tuple[int, int, str]]) -> str:
        text = EXAMPLE
        for at, cut, new in edits:
            text = text[:at] + new + text[at + cut :]
        return text

    return st.lists(edit, min_size=1, max_size=4).map(apply)


def reads_or_diagnoses(read: Callable[[], Graph]) -> None:
    """A graph or a rendered diagnostic, nothing else."""
    try:
        graph = read()
    except DiagnosticError as error:
        assert "E09" in str(error)
    else:
        assert read_graph(print_graph(graph), OPS) == graph


@settings(max_examples=150, deadline=None)
@given(mutations())
def test_any_mutation_reads_or_diagnoses(text: str) -> None:
    reads_or_diagnoses(lambda: read_graph(text, OPS))


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_reads_or_diagnoses(text: str) -> None:
    reads_or_diagnoses(lambda: read_graph(text, OPS))
