"""Pictures on disk."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import graphviz
import pytest

from graphc.diagram import render
from graphc.diagram.dot import draw
from tests.diagram.models import is_layer, lenet

HAS_DOT = shutil.which("dot") is not None


def test_dot_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = render.save("digraph {}\n", tmp_path / "x.dot")
    assert path.read_text() == "digraph {}\n"
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


@pytest.mark.parametrize(
    ("tool", "command"),
    [("apt-get", "sudo apt-get install graphviz"), ("brew", "brew install graphviz")],
)
def test_a_missing_dot_names_the_install_command(
    tool: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = tmp_path / tool
    manager.write_text("#!/bin/sh\n")
    manager.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(render.RenderError, match=command) as caught:
        render.save("digraph {}", tmp_path / "x.svg")
    assert "write the picture as .dot" in str(caught.value)
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize(
    ("platform", "command"),
    [("darwin", "brew"), ("win32", "winget"), ("linux", "apt-get")],
)
def test_without_a_known_manager_the_platform_decides(
    platform: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", platform)
    assert command in render.install_command()


@pytest.mark.parametrize("name", ["x", "x.jpeg", ".svg"])
def test_an_unknown_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(render.RenderError, match=r"\.svg, \.png, \.pdf, \.dot"):
        render.save("digraph {}", tmp_path / name)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(render.RenderError, match="cannot write"):
        render.save("digraph {}", tmp_path / "missing" / "x.dot")


@pytest.mark.parametrize(
    ("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_pictures_render(suffix: str, magic: bytes, tmp_path: Path) -> None:
    dot = draw(lenet(), is_layer=is_layer)
    if not HAS_DOT:
        with pytest.raises(render.RenderError, match="Install it with"):
            render.save(dot, tmp_path / f"lenet.{suffix}")
        return
    path = render.save(dot, tmp_path / f"lenet.{suffix}")
    assert path.read_bytes().startswith(magic)
    assert [p.name for p in tmp_path.iterdir()] == [f"lenet.{suffix}"]


def test_a_failing_dot_is_an_error() -> None:
    with pytest.raises(render.RenderError, match="failed" if HAS_DOT else "not installed"):
        render.render("digraph {", "svg")


def test_a_missing_executable_is_what_graphviz_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> bytes:
        raise graphviz.ExecutableNotFound(["dot"])

    monkeypatch.setattr(graphviz.Source, "pipe", missing)
    with pytest.raises(render.RenderError, match="is not installed"):
        render.render("digraph {}", "svg")


def test_a_crash_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*args: object, **kwargs: object) -> bytes:
        raise subprocess.CalledProcessError(-11, "dot", stderr=b"")

    monkeypatch.setattr(graphviz.Source, "pipe", crash)
    with pytest.raises(render.RenderError, match="choose a smaller depth"):
        render.render("digraph {}", "svg")
