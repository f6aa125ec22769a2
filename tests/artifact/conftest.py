from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphc.artifact import Module
from graphc.artifact import open as open_module
from graphc.artifact.spec import ModuleSpec
from graphc.artifact.writer import write
from tests.artifact.modules import LINEAR, LOOKUP, compile_object, linear_spec, lookup_spec

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes a module from a spec and C text to a fresh folder."""

    def build(spec: ModuleSpec, source: str, name: str = "module") -> Path:
        return write(spec, [compile_object(source)], tmp_path / name)

    return build


@pytest.fixture(scope="session")
def linear_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Linear module, on disk. Tests that alter it copy it first."""
    folder = tmp_path_factory.mktemp("linear") / "module"
    return write(linear_spec(), [compile_object(LINEAR)], folder)


@pytest.fixture(scope="session")
def lookup_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Lookup module, on disk."""
    folder = tmp_path_factory.mktemp("lookup") / "module"
    return write(lookup_spec(), [compile_object(LOOKUP)], folder)


@pytest.fixture(autouse=True)
def _at_once(all_processors: None) -> None:
    """Threads of a module run at the same time, as they do for users."""


@pytest.fixture
def linear_module(linear_folder: Path) -> Iterator[Module]:
    """The Linear module, open with two threads."""
    with open_module(linear_folder, threads=2) as module:
        yield module


@pytest.fixture
def lookup_module(lookup_folder: Path) -> Iterator[Module]:
    """The Lookup module, open with one thread."""
    with open_module(lookup_folder, threads=1) as module:
        yield module
