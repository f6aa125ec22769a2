"""From files to a graph: `load` reads a `.nn` file and everything it imports, checks it and elaborates one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.diagnostics import Diagnostic, DiagnosticError, nearest
from graphc.frontend import names
from graphc.frontend.blocks import WORDS, fits
from graphc.frontend.limits import LimitError, Limits
from graphc.frontend.modules import Loader, Module
from graphc.frontend.report import FailedError, Reporter
from graphc.frontend.scope import Frame, constant_labels
from graphc.frontend.settings import from_text
from graphc.frontend.stages import LayerUse
from graphc.frontend.store import Mode, ParameterInfo
from graphc.frontend.training import Augmentation, TrainBlocks, Training
from graphc.frontend.values import POISON, describe
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.source import Source
from graphc.syntax import ast
from graphc.syntax.parser import decode


@dataclass(frozen=True)
class Elaborated:
    """A checked model.

    Attributes:
        name: The model's name.
        graph: Its graph; nodes that no output needs are dropped.
        parameters: All its parameters, in the order of first use.
        layers: Every use of a layer or block, outer ones before inner ones.
        sources: The files that were read, by name.
        warnings: What is suspicious but not wrong.
        training: What its train block says; None without one, or in mode `infer`.
        augmentation: What its train block does to inputs, in mode `train`; None where it does nothing.
    """

    name: str
    graph: Graph
    parameters: tuple[ParameterInfo, ...]
    layers: tuple[LayerUse, ...]
    sources: tuple[Source, ...]
    warnings: tuple[Diagnostic, ...]
    training: Training | None = None
    augmentation: Augmentation | None = None


class ElaborationError(DiagnosticError):
    """Diagnostics, with the part of the graph that could be built: everything before what failed.

    `partial` has no outputs but the values nobody uses; None when not even inputs exist.
    """

    def __init__(self, diagnostics: tuple[Diagnostic, ...], partial: Graph | None) -> None:
        super().__init__(diagnostics)
        self.partial = partial


def load(
    source: str | Path | Source,
    *,
    model: str | None = None,
    settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None,
    project_root: str | Path | None = None,
    limits: Limits | None = None,
    mode: Mode = "infer",
    freeze: Sequence[str] | None = None,
    block: bool = True,
) -> Elaborated:
    """Reads a file (or text) and elaborates a model of it.

    Args:
        source: The file, or text that is not on disk and can import from the library only.
        model: Which model, where the file has several.
        settings: Values for the model's own arguments; strings are read as the kind that is declared.
        dims: Named dims of inputs to fix.
        project_root: The folder that imports may not leave; the file's own where it is left out.
        limits: What elaboration may cost.
        mode: What for: to be used, to be trained, or to be evaluated (see `training.py`).
        freeze: Patterns of parameters that stay as they are in training, instead of those of the train block.
        block: Whether the last two modes need a train block, and run it; else the outputs are the model's own.

    Raises:
        DiagnosticError: Every mistake found; an ElaborationError where a part of the graph exists.
        OSError: The file cannot be read.
    """
    limits = limits or Limits()
    report = Reporter()
    path: Path | None = None
    root: Path | None = None
    if not isinstance(source, Source):
        path = Path(source)
        root = Path(project_root) if project_root is not None else path.resolve().parent
        source = _read(path, limits)
    loader = Loader(report, root, limits)
    module = loader.top(source, path)
    for each in loader.modules.values():
        if each is not None:
            names.check(each, report)
    if module is None:
        raise DiagnosticError(report.collector.diagnostics)
    definition = _choose(module, model, report)
    section = _section(module, definition, report) if block and mode != "infer" else None
    elaborator = Elaborator(definition, module, report, limits, dict(dims or {}), mode, section)
    elaborator.frozen = None if freeze is None else tuple(freeze)
    elaborator.run(dict(settings or {}))
    if report.collector.errors:
        raise ElaborationError(report.collector.diagnostics, elaborator.partial())
    return Elaborated(
        definition.name.id,
        elaborator.b.build(elaborator.results(), prune=True),
        tuple(info for _, info, _ in elaborator.declared.values()),
        tuple(u for u in elaborator.uses if u is not None),
        tuple(m.source for m in loader.modules.values() if m is not None),
        report.collector.warnings,
        elaborator.training() if mode != "infer" else None,
        elaborator.augmentation() if mode == "train" else None,
    )


def _section(module: Module, definition: ast.Model, report: Reporter) -> ast.Train:
    """The train block of a model. Raises DiagnosticError (E0825) when there is none or several."""
    found = [
        item
        for item in module.file.items
        if isinstance(item, ast.Train) and item.model.id == definition.name.id
    ]
    if len(found) == 1:
        return found[0]
    name = definition.name.id
    if not found:
        report.error(
            "E0825",
            f"`{name}` has no train block",
            definition.name.span,
            help=f"write `train {name} {{ ... }}` with a loss and an optimizer",
        )
    else:
        report.error(
            "E0825",
            f"`{name}` has two train blocks",
            found[1].model.span,
            related=[(found[0].model.span, "the first one")],
        )
    raise DiagnosticError(report.collector.diagnostics)


def _read(path: Path, limits: Limits) -> Source:
    """The source of a file, named as it was typed, or by its file name where that is an absolute path."""
    name = path.name if path.is_absolute() or ".." in path.parts else path.as_posix()
    with path.open("rb") as file:
        data = file.read(limits.file_bytes + 1)
    return decode(name, data)


def _choose(module: Module, wanted: str | None, report: Reporter) -> ast.Model:
    """The model to elaborate. Raises DiagnosticError (E0309) when it is not clear which."""
    models = {m.name.id: m for m in reversed(module.models)}
    found = ", ".join(f"`{m.name.id}`" for m in module.models)
    if wanted is None and len(models) == 1:
        return module.models[0]
    if wanted in models:
        return models[wanted]
    span = module.source.span(0, 0)
    if not models:
        report.error("E0309", f"{module.source.name} declares no model", span)
    elif wanted is None:
        report.error(
            "E0309",
            f"{module.source.name} declares several models: {found}",
            module.models[1].name.span,
            help="name the one you mean",
        )
    else:
        near = nearest(wanted, models)
        report.error(
            "E0309",
            f"{module.source.name} declares no model `{wanted}`",
            span,
            help=f"did you mean `{near}`?" if near else f"it declares {found}",
        )
    raise DiagnosticError(report.collector.diagnostics)


class Elaborator(TrainBlocks):
    """One elaboration of one model."""

    def __init__(
        self,
        definition: ast.Model,
        module: Module,
        report: Reporter,
        limits: Limits,
        dims: Mapping[str, int],
        mode: Mode = "infer",
        section: ast.Train | None = None,
    ) -> None:
        super().__init__(GraphBuilder(definition.name.id), report, limits)
        self.definition = definition
        self.mode, self.section = mode, section
        self.fixed = dims
        self.outputs = []
        self.declared = {}
        self.uses = []
        self.parameter_count = 0
        self.here = definition.name.span
        self.frame = Frame(module, definition, "", (), 0, reserved=constant_labels(definition.body))

    def run(self, settings: Mapping[str, object]) -> None:
        """Runs the model's body. Everything wrong is in the report afterwards."""
        self.begin_training(self.frame)
        try:
            self._settings(settings)
            self.body(self.definition.body, self.frame)
            self.end_training(self.frame)
        except LimitError as limit:
            if not limit.reported:
                self.report.error(limit.code, limit.message, self.here, help=limit.help)
            return
        except RecursionError:
            self.report.error("E0501", "this is nested too deeply", self.here)
            return
        if not self.outputs and not self.frame.failed:
            self.report.error(
                "E0511",
                f"model `{self.definition.name.id}` has no output",
                self.definition.name.span,
                help="end it with `output y`",
            )
        self._check_dims()

    def results(self) -> list[tuple[str, Value]]:
        """The outputs of the mode."""
        own = [] if self.mode == "train" and self.section is not None else self.outputs
        return [*self.train_outputs, *own, *self.updates.items()]

    def partial(self) -> Graph | None:
        """The graph as far as it was built, its outputs the values that nothing uses."""
        if not self.b.nodes:
            return None
        used = {v for node in self.b.nodes for v in node.operands}
        loose = [v for n in self.b.nodes for v in n.values if v not in used]
        return self.b.build([(f"value{v.node}", v) for v in loose])

    def _check_dims(self) -> None:
        """Fixed dims must exist and lie in their bounds."""
        for name, value in self.fixed.items():
            if name not in self.frame.bound or self.frame.env.get(name) != value:
                near = nearest(name, self.b.dims)
                self.report.error(
                    "E0509",
                    f"`{self.definition.name.id}` has no dim `{name}` to fix",
                    self.definition.name.span,
                    help=f"did you mean `{near}`?" if near else None,
                )

    def _settings(self, settings: Mapping[str, object]) -> None:
        """The model's own arguments, from outside or by default."""
        declared = {p.name.id: p for p in self.definition.parameters}
        for name in settings:
            if name not in declared:
                near = nearest(name, declared)
                known = ", ".join(f"`{n}`" for n in declared) or "none"
                self.report.error(
                    "E0407",
                    f"`{self.definition.name.id}` has no argument `{name}`",
                    self.definition.name.span,
                    help=f"did you mean `{near}`?" if near else f"its arguments: {known}",
                )
        for parameter in self.definition.parameters:
            name = parameter.name.id
            try:
                self.frame.env[name] = self._setting(parameter, settings)
            except FailedError:
                self.frame.env[name] = POISON

    def _setting(self, parameter: ast.Parameter, settings: Mapping[str, object]) -> Any:
        name = parameter.name.id
        if isinstance(parameter.type, ast.TensorType):
            self.report.fail(
                "E0515",
                "a model declares its tensors in its body",
                parameter.span,
                help=f"write `input {name}: {parameter.type.span.text}` inside",
            )
        kind = parameter.type.kind
        optional = isinstance(parameter.default, ast.Nothing)
        if name not in settings:
            if parameter.default is None:
                self.report.fail(
                    "E0402",
                    f"`{self.definition.name.id}` needs a value for `{name}`",
                    parameter.span,
                    help=f"give it with `--set {name}=...` or a default here",
                )
            value = self.value(parameter.default, self.frame)
            if fits(kind, value) or (value is None and optional):
                return value
            place, code = parameter.default.span, "E0404"
        else:
            value = settings[name]
            value = from_text(kind, value) if isinstance(value, str) else value
            if fits(kind, value) or (value is None and optional):
                return value
            place, code = parameter.span, "E0408"
        self.report.fail(code, f"`{name}` has to be {WORDS[kind]} and is {describe(value)}", place)


__all__ = ["Elaborated", "ElaborationError", "load"]
