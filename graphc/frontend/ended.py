"""Names of a body that runs at run time, used after it: what became of them."""

from __future__ import annotations

from typing import NoReturn

from graphc.frontend.provenance import Provenance
from graphc.frontend.report import Reporter
from graphc.frontend.scope import assigned
from graphc.frontend.values import Tensor, Undecided, describe
from graphc.syntax import ast


def ended(report: Reporter, node: ast.Name, region: ast.Scan | ast.Cond) -> NoReturn:
    """Reports a name that has ended with the body of `region`. Raises FailedError (E0301, E0808)."""
    if isinstance(region, ast.Scan):
        report.fail(
            "E0301",
            f"`{node.id}` exists inside of its scan only",
            node.span,
            related=[(region.span, "the scan")],
            help=f"`emit {node.id}` there stacks it, and `{node.id}.stacked` is what it stacked",
        )
    places = [name.span for name in assigned(region) if name.id == node.id]
    report.fail(
        "E0808",
        f"`{node.id}` has a value in one branch of a cond only",
        node.span,
        related=[(span, "gets it here") for span in places[-1:]],
        help="give it one in the other branch too"
        if region.orelse is not None
        else "give it one before the cond, or in an `else`",
    )


def undecided(
    report: Reporter, node: ast.Name, value: Undecided, provenance: Provenance
) -> NoReturn:
    """Reports a name to which the branches of a cond give values of different kinds. Raises FailedError (E0806)."""
    tensors = [each for each in (value.yes, value.no) if isinstance(each, Tensor)]
    places = [place for each in tensors for place in provenance.of(each.value)]
    if len(tensors) < 2:
        names = [name.span for name in assigned(value.node) if name.id == node.id]
        places = [(span, "gets a value here") for span in names]
    report.fail(
        "E0806",
        f"`{node.id}` is {describe(value.yes)} in one branch of a cond and "
        f"{describe(value.no)} in the other",
        node.span,
        related=places,
        help="both branches give a name one dtype and one shape"
        if len(tensors) == 2
        else "a cond chooses between tensors; a number is one with `full([], 3)`",
    )
