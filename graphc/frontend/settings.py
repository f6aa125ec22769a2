"""Values of model arguments as text, the way a command line gives them: `classes=10`, `widths=[64, 128]`."""

from __future__ import annotations

import json


def from_text(kind: str, text: str) -> object:
    """The value that a text stands for in a parameter of a kind; the text itself where it stands for none."""
    word = text.strip()
    if kind == "str":
        return text
    if word in ("true", "false"):
        return word == "true"
    if word == "none":
        return None
    try:
        if kind == "int":
            return int(word) if len(word) <= 20 else text
        if kind == "float":
            return float(word)
        if kind == "list" and len(word) <= 10_000 and word.startswith("[") and word.count("[") < 64:
            return json.loads(word)
    except ValueError:
        return text
    return text
