"""Labels in Graphviz's HTML-like language: bold names, small print, rows of a box, headings of frames."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.diagram import describe, style, text
from graphc.diagram.tree import Block


def small(line: str, color: str = style.MUTED, size: int = style.DETAIL_SIZE) -> str:
    """Small print; nothing for an empty line."""
    return f'<FONT POINT-SIZE="{size}" COLOR="{color}">{text.html(line)}</FONT>' if line else ""


def table(rows: Iterable[str], align: str = "CENTER") -> str:
    """Rows of markup as one label; empty rows are left out."""
    cells = "".join(f'<TR><TD ALIGN="{align}">{row}</TD></TR>' for row in rows if row)
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{cells}</TABLE>>'


def bold(line: str) -> str:
    """A name in bold."""
    return f"<B>{text.html(line)}</B>"


def block_title(block: Block) -> tuple[str, str]:
    """What a block is called, in bold, and what to add in small print."""
    label, kind = block.label, block.kind
    if label.isdigit() and "." in block.path:
        label = ".".join(block.path.split(".")[-2:])
    if block.times > 1:
        return f"{kind} × {block.times}", _range(block)
    if not kind:
        inside = sum(b.times for b in block.blocks)
        return label, f"{block.common_kind} × {inside}" if block.common_kind else ""
    return describe.title(label, kind), ""


def block_name(block: Block) -> str:
    """The name of a closed block, on one line."""
    name, note = block_title(block)
    return bold(name) + (f"  {small(note)}" if note else "")


def _range(block: Block) -> str:
    """`layer3.1 – 5`: the labels of the first and the last."""
    first = ".".join(block.path.split(".")[-2:])
    return f"{first} – {block.repeats[-1].label}"


def frame_label(title: tuple[str, str], cost: str) -> str:
    """The heading of a frame. The empty cell on the right keeps it left of the middle, where edges come in."""
    name, note = title
    parts = [note, *cost.split(" · ")]
    lines = [f'<FONT POINT-SIZE="{style.NAME_SIZE}"><B>{text.html(name)}</B></FONT>']
    lines += [small(part) for part in parts if part]
    width = max(0.6 * style.NAME_SIZE * len(name), 0.55 * style.DETAIL_SIZE * max(map(len, parts)))
    cell = f'<TD WIDTH="{int(width) + 16}"></TD>'
    rows = "".join(f'<TR><TD ALIGN="LEFT">{line}</TD>{cell}</TR>' for line in lines)
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{rows}</TABLE>>'
