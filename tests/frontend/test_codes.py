"""Every explanation is right: its wrong example is reported with the code, its right one loads."""

from __future__ import annotations

import re

import pytest

from graphc.codes import CODES
from tests.frontend.helpers import codes

WITH_EXAMPLES = [c for c, info in CODES.items() if c[:3] != "E01" and "Wrong:" in info.explanation]


def examples(code: str) -> tuple[str, str]:
    """The wrong and the right example of an explanation, as whole files."""
    found = re.findall(r"(?:Wrong|Right):\n\n((?:    .*\n|\n)+)", CODES[code].explanation)
    assert len(found) == 2
    texts = [re.sub(r"^    ", "", text, flags=re.M) for text in found]
    wrap = [t if re.search(r"^(model|block)", t, re.M) else f"model M {{\n{t}}}\n" for t in texts]
    return wrap[0], wrap[1]


@pytest.mark.parametrize("code", WITH_EXAMPLES)
def test_the_wrong_example_is_reported_with_the_code(code: str) -> None:
    found = codes(examples(code)[0])
    assert [c for c in found if c != "E0303"] in ([code], []) and code in found


@pytest.mark.parametrize("code", WITH_EXAMPLES)
def test_the_right_example_loads_without_a_warning(code: str) -> None:
    assert codes(examples(code)[1]) == []
