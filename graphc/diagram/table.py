"""The summary as a terminal table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from graphc.diagram import describe, text

if TYPE_CHECKING:
    from graphc.diagram.summary import Summary


@dataclass(frozen=True)
class Row:
    """One layer, block, or group implied by dotted labels.

    `outputs` are types in full, `shapes` the same in short: `N×64×56×56`. `times` is how many equal blocks in a row it
    is the first of, `last` the label of the last of them, and `repeat` marks the others. `shared` means that it uses
    parameters which an earlier layer owns and counts.
    """

    path: str
    label: str
    kind: str
    depth: int
    place: str
    outputs: tuple[str, ...]
    shapes: tuple[str, ...]
    parameters: int
    buffers: int
    shared: bool
    flops: int
    macs: int
    times: int
    last: str
    repeat: bool

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "path": self.path,
            "kind": self.kind,
            "depth": self.depth,
            "source": self.place or None,
            "outputs": list(self.outputs),
            "parameters": self.parameters,
            "buffers": self.buffers,
            "shares_parameters": self.shared,
            "flops": self.flops,
            "macs": self.macs,
        }


def render(summary: Summary, *, depth: int | None = None, unfold: bool = False) -> Group:
    """The table and its totals, for rich. `depth` limits the tree, `unfold` lists repeated blocks one by one."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", expand=False)
    table.add_column("Layer", no_wrap=True)
    table.add_column("Output")
    table.add_column("Parameters", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    files = {row.place.rpartition(":")[0].rpartition(":")[0] for row in summary.rows if row.place}
    table.add_column("Source" if len(files) > 1 else "Line", style="dim", no_wrap=True)
    rows = [
        r for r in summary.rows if (unfold or not r.repeat) and (depth is None or r.depth <= depth)
    ]
    for index, row in enumerate(rows):
        table.add_row(
            _name(rows, index, summary.name, unfold),
            escape(", ".join(row.shapes)),
            _times(row, f"{row.parameters:,}", unfold)
            if row.parameters
            else ("shared" if row.shared else ""),
            _times(row, text.count(row.macs), unfold) if row.macs else "",
            escape(row.place if len(files) > 1 else row.place.split(":")[-2] if row.place else ""),
        )
    return Group(table, _totals(summary))


def _name(rows: list[Row], index: int, model: str, unfold: bool) -> Text:
    row = rows[index]
    if not row.depth:
        return Text(model, style="bold")
    line = Text()
    line.append(_branches(rows, index), style="dim")
    many = row.times > 1 and not unfold
    label, kind = row.label, describe.title(row.label, row.kind).rpartition(": ")[2]
    if many:
        line.append(f"{label} – {row.last}", style="cyan")
        line.append(f": {kind}")
        line.append(f" × {row.times}", style="bold")
    elif kind == row.kind and kind and describe.title(label, kind) != kind:
        line.append(label, style="cyan")
        line.append(f": {kind}")
    else:
        line.append(kind, style="cyan" if row.kind else "")
    return line


def _branches(rows: list[Row], index: int) -> str:
    """The lines of the tree before a row: `│  └─ `."""
    parts = []
    for level in range(1, rows[index].depth + 1):
        more = False
        for later in rows[index + 1 :]:
            if later.depth <= level:
                more = later.depth == level
                break
        if level == rows[index].depth:
            parts.append("├─ " if more else "└─ ")
        else:
            parts.append("│  " if more else "   ")
    return "".join(parts)


def _times(row: Row, value: str, unfold: bool) -> str:
    """`1,234`, or `3 × 1,234` for a row that stands for several."""
    return f"{row.times} × {value}" if row.times > 1 and not unfold else value


def _totals(summary: Summary) -> Table:
    dims = ", ".join(f"{n} = {v}" for n, v in summary.dims.items())
    lines = [
        ("Parameters", f"{summary.parameters:,}  ({text.size(summary.parameter_bytes)})"),
        ("Multiply-adds", f"{text.count(summary.macs)}  ({text.count(summary.flops, 'FLOP')})"),
        ("Peak activations", text.size(summary.peak_bytes) + "  (estimate)"),
    ]
    if summary.buffers:
        lines.insert(1, ("Buffers", f"{summary.buffers:,}"))
    if dims:
        lines.append(("Counted for", dims))
    grid = Table.grid(padding=(0, 2))
    for name, value in lines:
        grid.add_row(Text(name, style="bold"), escape(value))
    return grid
