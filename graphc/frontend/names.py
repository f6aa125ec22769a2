"""The check of names: undefined, unused, shadowing, in every block of a file, whether it is expanded or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from graphc.diagnostics import nearest
from graphc.frontend.builtins import BUILTINS, TRAINING
from graphc.frontend.modules import Module
from graphc.frontend.report import Reporter
from graphc.frontend.scope import assigned, children, walk
from graphc.syntax import ast


def check(module: Module, report: Reporter) -> None:
    """Reports every undefined name (E0301), and warns of unused (E0303) and shadowing ones (E0304)."""
    used: set[str] = set()
    for item in module.file.items:
        if isinstance(item, (ast.Model, ast.Block)):
            used |= _Definition(item, module, report).check()
        elif isinstance(item, ast.Train):
            used |= _train(item, module, report)
    for item in module.file.items:
        if isinstance(item, ast.Import):
            for imported in item.names:
                if imported.bound.id not in used:
                    report.warn(
                        "E0303",
                        f"`{imported.bound.id}` is imported and never used",
                        imported.bound.span,
                        "unused",
                    )


def undefined(report: Reporter, name: ast.Name, known: Iterable[str]) -> None:
    """Reports a name that means nothing here, with the nearest one that does."""
    near = nearest(name.id, known)
    report.error(
        "E0301",
        f"`{name.id}` is not defined",
        name.span,
        "means nothing here",
        help=f"did you mean `{near}`?" if near else None,
    )


def unbound_dims(
    node: ast.Expr, known: Mapping[str, object], module: Module, report: Reporter
) -> None:
    """Reports E0218 for a name in the arithmetic of a shape that nothing gives a value. Raises FailedError."""
    for name in uses(node):
        if not any(name.id in table for table in (known, module.names, BUILTINS)):
            report.fail(
                "E0218",
                f"the dim `{name.id}` cannot be bound from `{node.span.text}`",
                name.span,
                "has no value yet",
                help=f"a dim gets its value where it stands alone: `[{name.id}, ...]`",
            )


class _Definition:
    """One model or block: what it declares, what it uses."""

    def __init__(self, item: ast.Model | ast.Block, module: Module, report: Reporter) -> None:
        self.item, self.module, self.report = item, module, report
        self.used: set[str] = set()
        self.dims: dict[str, ast.Name] = {}
        self.local: dict[str, ast.Name] = {p.name.id: p.name for p in item.parameters}

    def check(self) -> set[str]:
        """Checks all names; returns those used."""
        types = [p.type for p in self.item.parameters if isinstance(p.type, ast.TensorType)]
        types += [n.type for n in walk(self.item.body) if isinstance(n, (ast.Input, ast.Param))]
        for type in types:
            for dim in type.dims:
                if isinstance(dim, ast.Dim) and isinstance(dim.size, ast.Name):
                    if dim.size.id in self.local:
                        self.used.add(dim.size.id)
                    else:
                        self.dims.setdefault(dim.size.id, dim.size)
        first = {name.id: name for name in reversed(list(assigned(self.item.body)))}
        self.assigned = {**first, **self._scan_names()}
        self._uses(self.item.body)
        for parameter in self.item.parameters:
            for part in children(parameter):
                if part is not parameter.name:
                    self._uses(part)
        self._collisions()
        self._unused()
        return self.used

    def _scan_names(self) -> dict[str, ast.Name]:
        scans = [n for n in walk(self.item.body) if isinstance(n, ast.Scan)]
        return {i.name.id: i.name for scan in scans for i in scan.inputs}

    def _known(self) -> set[str]:
        return {*self.local, *self.dims, *self.assigned, *self.module.names, *BUILTINS}

    def _uses(self, node: ast.Node) -> None:
        in_shapes = {
            id(name)
            for each in walk(node)
            if isinstance(each, ast.TensorType)
            for dim in each.dims
            if isinstance(dim, ast.Dim) and not isinstance(dim.size, ast.Name)
            for name in uses(dim.size)
        }  # these are reported as dims that cannot be bound, where the shape is elaborated
        for name in uses(node):
            self.used.add(name.id)
            if id(name) in in_shapes:
                continue
            known = (self.local, self.dims, self.assigned, self.module.names, BUILTINS)
            if not any(name.id in table for table in known):
                undefined(self.report, name, self._known())

    def _collisions(self) -> None:
        for name in [*self.local.values(), *self.assigned.values()]:
            if name.id in self.dims and name.id not in self.local:
                self.report.error(
                    "E0307",
                    f"`{name.id}` is a dimension and cannot be assigned",
                    name.span,
                    related=[(self.dims[name.id].span, "the dimension")],
                    help="use another name",
                )
            elif name.id in BUILTINS or name.id in self.module.names:
                kind = "a built-in name" if name.id in BUILTINS else "a name of this file"
                self.report.warn(
                    "E0304", f"`{name.id}` hides {kind}", name.span, "hides it from here on"
                )

    def _unused(self) -> None:
        loops = {
            n.id
            for each in walk(self.item.body)
            if isinstance(each, ast.For)
            for n in walk(each.target)
            if isinstance(n, ast.Name)
        }
        for name in [*self.local.values(), *self.assigned.values()]:
            skip = name.id in self.used or name.id in loops or name.id in self.dims
            if skip or name.id.startswith("_"):
                continue
            what = "an argument that" if name.id in self.local else "given a value that"
            self.report.warn(
                "E0303",
                f"`{name.id}` is {what} is never used",
                name.span,
                "unused",
                help=f"remove it, or call it `_{name.id}`",
            )


def uses(node: ast.Node) -> Iterator[ast.Name]:
    """The names that a node reads, in the order written."""
    if isinstance(node, ast.Name):
        yield node
    elif isinstance(node, (ast.Attribute, ast.Keyword, ast.Assign, ast.Metric)):
        yield from uses(node.value)
    elif isinstance(node, ast.For):
        yield from uses(node.iterable)
        yield from uses(node.body)
    elif isinstance(node, ast.Output):
        yield from node.names
        if node.value is not None:
            yield from uses(node.value)
    elif isinstance(node, (ast.Input, ast.Param, ast.Shared, ast.ScanInput, ast.Carry)):
        for child in children(node):
            if child is not node.name:
                yield from uses(child)
    elif isinstance(node, ast.TensorType):
        for dim in node.dims:
            if isinstance(dim, ast.Dim):
                parts = [dim.bound] if isinstance(dim.size, ast.Name) else [dim.size, dim.bound]
                for part in parts:
                    if part is not None:
                        yield from uses(part)
    else:
        for child in children(node):
            yield from uses(child)


def _train(item: ast.Train, module: Module, report: Reporter) -> set[str]:
    """A training section sees the model's names, its own, and the names of training."""
    used = {item.model.id}
    models = {m.name.id: m for m in module.models}
    model = models.get(item.model.id)
    if model is None:
        near = nearest(item.model.id, models)
        report.error(
            "E0309",
            f"there is no model `{item.model.id}` to train in this file",
            item.model.span,
            help=f"did you mean `{near}`?" if near else None,
        )
    known = {*module.names, *BUILTINS, *TRAINING, *(n.id for n in assigned(item.body))}
    if model is not None:
        known |= {n.id for n in assigned(model.body)} | {p.name.id for p in model.parameters}
        known |= {
            d.size.id
            for n in walk(model.body)
            if isinstance(n, ast.Input)
            for d in n.type.dims
            if isinstance(d, ast.Dim) and isinstance(d.size, ast.Name)
        }
    for name in uses(item.body):
        used.add(name.id)
        if name.id not in known and model is not None:
            undefined(report, name, known)
    return used
