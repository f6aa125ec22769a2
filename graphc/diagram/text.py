"""Short text for pictures and tables: shapes, counts, and escaping for Graphviz's label languages.

Everything that comes from a model file (labels, messages, names) goes through `html` or `plain` before it reaches DOT
text, so a file can neither break the picture nor put links or scripts into an SVG.
"""

from __future__ import annotations

import math

from graphc.ir.dtype import DType
from graphc.ir.types import TensorType

MAX_TEXT = 240
"""Characters of one piece of text in a picture; what is longer ends in an ellipsis."""


def shape(type: TensorType) -> str:
    """A type as short as an edge label should be: `N×64×56×56`; other dtypes than f32 are named: `i64 N×T`."""
    dims = []
    for dim in type.shape:
        text = str(dim)
        if text.isidentifier() or text.isdigit() or len(type.shape) == 1:
            dims.append(text)
        else:
            dims.append("(" + text.replace(" ", "") + ")")
    body = "×".join(dims) or "scalar"
    return body if type.dtype is DType.F32 else f"{type.dtype} {body}"


def count(value: int, unit: str = "") -> str:
    """A count with three significant digits and an SI prefix: `9.41 K`, `231 MFLOP`, `25.6 M`."""
    if abs(value) < 1000:
        return f"{value} {unit}".strip()
    power = min(int(math.log10(abs(value)) + 1e-9) // 3, 5)
    scaled = value / 1000**power
    if abs(scaled) >= 999.5 and power < 5:
        power, scaled = power + 1, scaled / 1000
    digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    number = f"{scaled:.{digits}f}"
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {'KMGTP'[power - 1]}{unit}"


def size(nbytes: int) -> str:
    """A number of bytes with a binary prefix: `3.07 MiB`."""
    if abs(nbytes) < 1024:
        return f"{nbytes} B"
    power = min(int(math.log2(abs(nbytes))) // 10, 5)
    scaled = nbytes / 1024**power
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f} {'KMGTP'[power - 1]}iB"


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """At most `limit` characters, control characters replaced by spaces."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"


_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def _entities(text: str) -> str:
    return "".join(_ENTITIES.get(c, c) for c in text)


def html(text: str, limit: int = MAX_TEXT) -> str:
    """Text for a Graphviz HTML-like label: clipped, and with `& < > "` as entities."""
    return _entities(clip(text, limit).replace("\n", " "))


def plain(text: str, limit: int = 2000) -> str:
    r"""Text for a Graphviz escString attribute (edge labels, tooltips).

    No `\N`-like escape survives, lines stay lines, and entities stand for quotes and brackets, which would end the
    string or make DOT read it as HTML.
    """
    return _entities(clip(text, limit)).replace("\\", "\\\\").replace("\n", "\\n")


def wrap(text: str, width: int, lines: int = 6) -> list[str]:
    """Words of a message broken into at most `lines` lines of about `width` characters."""
    found: list[str] = []
    for word in clip(text, width * lines).split():
        if found and len(found[-1]) + 1 + len(word) <= width:
            found[-1] += " " + word
        else:
            found.append(word)
    return found[:lines]
