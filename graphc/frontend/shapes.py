"""Shapes in declarations: how `x: f32[N, C, H / 2]` binds and checks dims against an actual tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphc.frontend.report import FailedError, Reporter
from graphc.frontend.scope import Frame
from graphc.frontend.values import Tensor
from graphc.ir.dim import Bounds, Dim, DimLike, proves_ge, proves_ne
from graphc.ir.dtype import DType
from graphc.source import Span
from graphc.syntax import ast

EvaluateDim = Callable[[ast.Expr, Frame], DimLike]


@dataclass(frozen=True)
class Match:
    """A declared tensor parameter of a block and what it got; `origin` says where that came from."""

    name: str
    declared: ast.TensorType
    tensor: Tensor
    origin: tuple[tuple[Span, str], ...]
    span: Span  # the use of the block


def pairs(match: Match, report: Reporter) -> list[tuple[ast.Dim, DimLike]]:
    """Declared and actual dimensions side by side. Reports a wrong rank or dtype, then raises FailedError."""
    declared, actual = match.declared.dims, match.tensor.type
    if DType(match.declared.dtype) is not actual.dtype:
        report.fail(
            "E0206",
            f"`{match.name}` is declared as {match.declared.dtype} but gets {actual}",
            match.span,
            f"gives {actual}",
            related=((match.declared.span, "declared here"), *match.origin),
        )
    dots = [i for i, d in enumerate(declared) if isinstance(d, ast.Dots)]
    fixed = len(declared) - len(dots)
    if actual.rank < fixed or (not dots and actual.rank != fixed):
        shape = match.declared.span.text
        report.fail(
            "E0205",
            f"`{match.name}` is declared as {shape} but gets {actual}",
            match.span,
            f"{actual.rank} dimensions where {'at least ' if dots else ''}{fixed} are declared",
            related=((match.declared.span, "declared here"), *match.origin),
        )
    head = dots[0] if dots else len(declared)
    tail = len(declared) - head - len(dots)
    sizes = [*actual.shape[:head], *(actual.shape[actual.rank - tail :] if tail else ())]
    return [
        (d, s) for d, s in zip((d for d in declared if isinstance(d, ast.Dim)), sizes, strict=True)
    ]


def bind_names(match: Match, frame: Frame, report: Reporter, bounds: Mapping[str, Bounds]) -> None:
    """Gives every plain dim name its size, or checks the size it has. Reports E0217."""
    failure: FailedError | None = None
    for dim, size in pairs(match, report):
        if not isinstance(dim.size, ast.Name) or dim.size.id == "_":
            continue
        name = dim.size.id
        if name not in frame.env:
            frame.env[name] = size
            frame.bound[name] = dim.size.span
        elif not _same(frame.env[name], size):
            failure = _differs(match, frame, report, name, dim, frame.env[name], size, bounds)
    if failure is not None:
        raise failure


def check_rest(
    match: Match,
    frame: Frame,
    report: Reporter,
    evaluate: EvaluateDim,
    bounds: Mapping[str, Bounds],
) -> None:
    """Checks integers, arithmetic and upper bounds of a declared shape. Reports E0217 and E0221."""
    failure: FailedError | None = None
    for dim, size in pairs(match, report):
        if not isinstance(dim.size, ast.Name):
            wanted = evaluate(dim.size, frame)
            if not _same(wanted, size):
                text = dim.size.span.text
                failure = _differs(match, frame, report, text, dim, wanted, size, bounds)
        if dim.bound is not None:
            limit = evaluate(dim.bound, frame)
            if not proves_ge(limit, size, bounds):
                failure = report.error(
                    "E0221",
                    f"`{match.name}` allows at most {limit} for `{dim.size.span.text}` and gets {size}",
                    match.span,
                    related=((dim.span, "bounded here"), *match.origin),
                    help=None
                    if isinstance(size, int)
                    else f"bound the dim where the input declares it: `{size} <= {limit}`",
                )
    if failure is not None:
        raise failure


def _same(wanted: Any, size: DimLike) -> bool:
    return not isinstance(wanted, bool) and isinstance(wanted, (int, Dim)) and wanted == size


def _differs(
    match: Match,
    frame: Frame,
    report: Reporter,
    text: str,
    dim: ast.Dim,
    wanted: Any,
    size: DimLike,
    bounds: Mapping[str, Bounds],
) -> FailedError:
    shown = text if text == str(wanted) else f"{text} = {wanted}"
    certain = not isinstance(wanted, (int, Dim)) or proves_ne(wanted, size, bounds)
    related = [(dim.span, "declared here")]
    if text in frame.bound and frame.bound[text] != dim.size.span:
        related.append(
            (
                frame.bound[text],
                f"`{text}` comes from here"
                if text == str(wanted)
                else f"`{text}` is bound to {wanted} here",
            )
        )
    return report.error(
        "E0217",
        f"`{match.name}` needs {shown} and gets {match.tensor.type}: {size}"
        + ("" if certain else f" may differ from {wanted}"),
        match.span,
        f"{size} where {shown} is declared",
        related=(*related, *match.origin),
    )
