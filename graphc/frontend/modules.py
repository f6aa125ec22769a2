"""Files and their imports: which names a file can see, and where they come from.

Nothing is read but the file that was named and the files its imports name, inside of the project's folder, and the
library that ships with graphc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from graphc.diagnostics import DiagnosticError, nearest
from graphc.frontend.limits import Limits
from graphc.frontend.report import FailedError, Reporter
from graphc.frontend.values import POISON, BlockDef
from graphc.source import Source, Span
from graphc.syntax import ast
from graphc.syntax.parser import decode, parse

LIBRARY = "nn"
"""The package name of the library in imports: `from nn.transformer import EncoderLayer`."""


@dataclass(eq=False)
class Module:
    """One parsed file: its definitions and what it imports, by name. `library` is true for files of graphc itself."""

    source: Source
    file: ast.File
    library: bool = False
    names: dict[str, Any] = field(default_factory=dict)  # BlockDef or POISON
    declared: dict[str, Span] = field(default_factory=dict)

    @property
    def models(self) -> tuple[ast.Model, ...]:
        """The models the file declares, in order."""
        return tuple(i for i in self.file.items if isinstance(i, ast.Model))


class Loader:
    """Reads a file and everything it imports. Mistakes go to `report`; names that failed are poison."""

    def __init__(self, report: Reporter, root: Path | None, limits: Limits) -> None:
        self.report = report
        self.root = root.resolve() if root is not None else None
        self.limits = limits
        self.modules: dict[str, Module | None] = {}
        self._open: list[tuple[str, Span]] = []

    def top(self, source: Source, path: Path | None) -> Module | None:
        """The module of the file that was asked for; None when it does not parse."""
        key = str(path.resolve()) if path is not None else source.name
        return self._module(key, lambda: source, path, False, None)

    def _module(
        self,
        key: str,
        read: Callable[[], Source],
        path: Path | None,
        library: bool,
        importer: ast.Import | None,
    ) -> Module | None:
        if key in self.modules:
            return self.modules[key]
        self.modules[key] = None
        try:
            source = read()
            module = Module(source, parse(source), library)
        except DiagnosticError as error:
            self.report.collector.extend(error.diagnostics)
            return None
        self.modules[key] = module
        self._open.append((key, importer.span if importer else source.span(0, 0)))
        for item in module.file.items:
            if isinstance(item, (ast.Block, ast.Model)):
                self._declare(module, item.name, BlockDef(item, module))
        for item in module.file.items:
            if isinstance(item, ast.Import):
                self._import(module, item, path)
        self._open.pop()
        return module

    def _declare(self, module: Module, name: ast.Name, value: Any) -> None:
        if name.id in module.declared:
            self.report.error(
                "E0305",
                f"`{name.id}` is defined twice in this file",
                name.span,
                "defined again here",
                related=[(module.declared[name.id], "first defined here")],
            )
            return
        module.declared[name.id] = name.span
        module.names[name.id] = value

    def _import(self, module: Module, item: ast.Import, path: Path | None) -> None:
        try:
            found = self._target(module, item, path)
        except FailedError:
            found = None
        for imported in item.names:
            value: Any = POISON
            if found is not None:
                value = found.names.get(imported.name.id)
                if not isinstance(value, BlockDef) or value.module is not found:
                    value = self._missing(found, imported.name)
            self._declare(module, imported.bound, value)

    def _missing(self, found: Module, name: ast.Name) -> Any:
        own = [n for n, v in found.names.items() if isinstance(v, BlockDef) and v.module is found]
        near = nearest(name.id, own)
        self.report.error(
            "E0508",
            f"{found.source.name} has no block `{name.id}`",
            name.span,
            "not defined there",
            help=f"did you mean `{near}`?"
            if near
            else f"it defines {', '.join(f'`{n}`' for n in own) or 'nothing'}",
        )
        return POISON

    def _target(self, module: Module, item: ast.Import, path: Path | None) -> Module | None:
        if len(self.modules) >= self.limits.files:
            self.report.fail(
                "E0503", f"this model imports more than {self.limits.files} files", item.module.span
            )
        if isinstance(item.module, ast.LibraryPath):
            return self._library(item, item.module)
        span, text = item.module.span, item.module.value
        relative = PurePosixPath(text)
        if module.library or path is None or self.root is None:
            self.report.fail(
                "E0506", f'"{text}" cannot be imported: this source is no file of a project', span
            )
        if relative.is_absolute() or "\\" in text or "\0" in text or ":" in text:
            self.report.fail(
                "E0506",
                f'"{text}" is not a path relative to this file',
                span,
                help="write the path from this file's folder, with `/` between folders",
            )
        target = (path.parent / relative).resolve()
        if not target.is_relative_to(self.root):
            self.report.fail(
                "E0506",
                f'"{text}" leaves the project',
                span,
                "outside of the project's folder",
                help="copy the file into the folder of the model, or below it",
            )
        self._check_cycle(str(target), item, text)
        if not target.is_file():
            self.report.fail("E0505", f'there is no file "{text}"', span, help=self._near(target))
        name = str(PurePosixPath(module.source.name).parent / relative)
        return self._module(
            str(target), lambda: self._read(target, name, span), target, False, item
        )

    def _near(self, target: Path) -> str | None:
        """Help with the nearest file name in the folder."""
        folder = target.parent
        if not folder.is_dir():
            return None
        names = sorted(p.name for p in folder.glob("*.nn"))[:1000]
        near = nearest(target.name, names)
        return f'did you mean "{near}"?' if near else None

    def _read(self, target: Path, name: str, span: Span) -> Source:
        try:
            if target.stat().st_size > self.limits.file_bytes:
                self.report.fail("E0505", f'"{name}" is too large to be a model file', span)
            return decode(name, target.read_bytes())
        except OSError as error:
            self.report.fail("E0505", f'"{name}" cannot be read: {error.strerror}', span)

    def _check_cycle(self, key: str, item: ast.Import, text: str) -> None:
        keys = [k for k, _ in self._open]
        if key not in keys:
            return
        steps = self._open[keys.index(key) + 1 :]
        self.report.fail(
            "E0507",
            f'importing "{text}" goes in a circle',
            item.module.span,
            "imports a file that is being read",
            related=[(span, "imported here") for _, span in steps],
            help="move what both files need into a third one",
        )

    def _library(self, item: ast.Import, module: ast.LibraryPath) -> Module | None:
        parts = [p.id for p in module.parts]
        text = ".".join(parts)
        files = library_files()
        if text not in files:
            near = nearest(text, files)
            self.report.fail(
                "E0505",
                f"the library has no file `{text}`",
                module.span,
                help=f"did you mean `{near}`?" if near else f"there are {', '.join(files)}",
            )
        key = f"<{text}>"
        self._check_cycle(key, item, text)
        name = f"graphc/{'/'.join(parts)}.nn"
        return self._module(key, lambda: decode(name, library_bytes(text)), None, True, item)


def library_files() -> tuple[str, ...]:
    """The import names of the files of the library, sorted: `nn.transformer`."""
    folder = resources.files("graphc") / LIBRARY
    names = [f.name for f in folder.iterdir() if f.name.endswith(".nn")]
    return tuple(f"{LIBRARY}.{n[:-3]}" for n in sorted(names))


def library_bytes(name: str) -> bytes:
    """The content of a file of the library by its import name."""
    return (resources.files("graphc") / LIBRARY / f"{name.split('.', 1)[1]}.nn").read_bytes()
