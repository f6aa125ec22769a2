"""Short text and escaping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.diagram import text
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.types import TensorType

N = Dim.symbol("N")


@pytest.mark.parametrize(
    ("type", "shown"),
    [
        (TensorType(DType.F32, (N, 64, 56, 56)), "N×64×56×56"),
        (TensorType(DType.I64, (N,)), "i64 N"),
        (TensorType(DType.F32, ()), "scalar"),
        (TensorType(DType.F32, (N, N * 2 + 1)), "N×(2*N+1)"),
        (TensorType(DType.F32, (N * 2,)), "2*N"),
    ],
)
def test_shapes_are_short(type: TensorType, shown: str) -> None:
    assert text.shape(type) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 K"),
        (9408, "9.41 K"),
        (23_456, "23.5 K"),
        (231_211_008, "231 M"),
        (999_950, "1 M"),
        (4_089_184_256, "4.09 G"),
        (10**21, "1000000 P"),
    ],
)
def test_counts_have_three_digits(value: int, shown: str) -> None:
    assert text.count(value) == shown


def test_counts_and_sizes_have_units() -> None:
    assert text.count(231_000_000, "FLOP") == "231 MFLOP"
    assert text.count(12, "FLOP") == "12 FLOP"
    assert text.size(1023) == "1023 B"
    assert text.size(3 * 1024 * 1024 + 70_000) == "3.07 MiB"


@given(st.text())
def test_nothing_escapes_from_an_html_label(value: str) -> None:
    shown = text.html(value)
    assert not set(shown) & set('<>"\n')
    assert len(text.clip(value)) <= text.MAX_TEXT
    assert all(c.isprintable() for c in shown)


@given(st.text())
def test_plain_text_has_no_live_escapes(value: str) -> None:
    shown = text.plain(value)
    assert not set(shown) & set('<>"')
    rest = shown.replace("\\\\", "").replace("\\n", "")
    assert "\\" not in rest


def test_wrapping_keeps_words_and_bounds() -> None:
    lines = text.wrap("expects 400 input features but gets 256 " * 20, 30, 4)
    assert len(lines) == 4
    assert all(len(line) <= 30 for line in lines)
    assert text.wrap("", 10) == []
