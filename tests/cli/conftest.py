"""Compiled modules for the commands that run them, made from C so that no compiler of ours is involved."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc.artifact.writer import write
from tests.artifact.modules import LINEAR, LOOKUP, compile_object, linear_spec, lookup_spec


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """relu(x @ weight.T + bias)."""
    folder = tmp_path_factory.mktemp("cli") / "linear"
    return write(linear_spec(), [compile_object(LINEAR)], folder)


@pytest.fixture(scope="session")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """table[index]."""
    folder = tmp_path_factory.mktemp("cli") / "lookup"
    return write(lookup_spec(), [compile_object(LOOKUP)], folder)
