"""Checkpoints: arrays by name against the parameters of a model, and one table of what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphc.diagnostics import Diagnostic, DiagnosticError, Label, nearest
from graphc.frontend.store import ParameterInfo
from graphc.ir.dtype import DType
from graphc.ir.op import Array

MAX_ROWS = 20
"""A longer table of mismatches is cut."""

IGNORED: Mapping[str, str] = {
    "num_batches_tracked": "counts training steps; inference does not use it",
    "position_ids": "0, 1, 2, ...; the graph makes them itself",
    "attn.bias": "a causal mask; the graph makes it itself",
    "attn.masked_bias": "the value behind a causal mask; the graph makes it itself",
}
"""Entries of well-known checkpoints that no parameter stands for, by the end of their name, with the reason."""


@dataclass(frozen=True)
class Weights:
    """Arrays for every parameter, and notes on what was converted or ignored on the way."""

    arrays: Mapping[str, Array]
    notes: tuple[str, ...]


def match_weights(
    parameters: Iterable[ParameterInfo], arrays: Mapping[str, Array]
) -> dict[str, Array]:
    """The arrays of a checkpoint as the model's parameters want them; see `check_weights`."""
    return dict(check_weights(parameters, arrays).arrays)


def check_weights(parameters: Iterable[ParameterInfo], arrays: Mapping[str, Array]) -> Weights:
    """Matches a checkpoint with a model's parameters by name.

    Floating-point arrays of another precision are converted, and that is noted. Arrays that no parameter stands for
    are an error, except those in `IGNORED`, which are noted.

    Raises:
        DiagnosticError: E0601, one table of everything missing, extra, or of a wrong shape or dtype.
    """
    wanted = {p.path: p for p in parameters}
    rows: list[tuple[str, str, str]] = []
    notes: list[str] = []
    found: dict[str, Array] = {}
    extra = [name for name in arrays if name not in wanted]
    reasons = {name: _reason(name) for name in extra}
    unknown = sorted(name for name in extra if reasons[name] is None)
    missing = [path for path in wanted if path not in arrays]
    near = _nearest_pairs(missing, unknown)
    for path in missing:
        hint = f"; the file has `{near[path]}`" if path in near else ""
        rows.append(("missing", path, f"{wanted[path].type}{hint}"))
    for name in unknown:
        text = ", ".join(map(str, arrays[name].shape))
        rows.append(("extra", name, f"{arrays[name].dtype}[{text}], no such parameter"))
    for path, info in wanted.items():
        if path not in arrays:
            continue
        array = arrays[path]
        shape = tuple(array.shape)
        if shape != info.type.shape:
            text = ", ".join(map(str, shape))
            rows.append(("shape", path, f"the model has {info.type}, the file [{text}]"))
            continue
        converted = _converted(array, info, notes)
        if converted is None:
            rows.append(("dtype", path, f"the model has {info.type.dtype}, the file {array.dtype}"))
        else:
            found[path] = converted
    notes += [f"`{name}` is ignored: {why}" for name, why in sorted(reasons.items()) if why]
    if rows:
        raise DiagnosticError([_table(rows, wanted)])
    return Weights(found, tuple(notes))


def _reason(name: str) -> str | None:
    for end, reason in IGNORED.items():
        if name == end or name.endswith("." + end):
            return reason
    return None


def _nearest_pairs(missing: list[str], unknown: list[str]) -> dict[str, str]:
    """For missing names the extra one that most likely is meant; bounded work for large checkpoints."""
    pairs: dict[str, str] = {}
    by_end: dict[str, list[str]] = {}
    for name in unknown:
        by_end.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    for path in missing[:MAX_ROWS]:
        same_end = by_end.get(path.rsplit(".", 1)[-1], [])[:200]
        inside = next(
            (n for n in same_end if n.endswith("." + path) or path.endswith("." + n)), None
        )
        guess = inside or nearest(path, same_end or unknown[:200])
        if guess is not None:
            pairs[path] = guess
    return pairs


def _converted(array: Array, info: ParameterInfo, notes: list[str]) -> Array | None:
    """The array in the parameter's dtype; None where that would not be a change of float precision."""
    target = info.type.dtype
    try:
        have = DType.from_numpy(array.dtype)
    except KeyError:
        return None
    if have is target:
        return array
    if not have.is_float or not target.is_float:
        return None
    notes.append(f"`{info.path}` is converted from {have} to {target}")
    return array.astype(target.numpy)


def _table(rows: list[tuple[str, str, str]], wanted: Mapping[str, ParameterInfo]) -> Diagnostic:
    counts = {
        kind: sum(r[0] == kind for r in rows) for kind in ("missing", "extra", "shape", "dtype")
    }
    words = {
        "missing": "missing",
        "extra": "without a parameter",
        "shape": "of a wrong shape",
        "dtype": "of a wrong dtype",
    }
    summary = ", ".join(f"{n} {words[kind]}" for kind, n in counts.items() if n)
    shown = rows[:MAX_ROWS]
    width = max(len(r[1]) for r in shown)
    lines = [f"{kind:<8}{name:<{width}}  {text}" for kind, name, text in shown]
    if len(rows) > MAX_ROWS:
        lines.append(f"... and {len(rows) - MAX_ROWS} more")
    first = next((wanted[name] for _, name, _ in rows if name in wanted), None)
    return Diagnostic(
        "E0601",
        f"the weights do not fit the model: {summary}",
        Label(first.span, f"`{first.path}` is declared here") if first else None,
        notes=("\n".join(lines),),
    )
