"""The README: its commands and programs run in order, in one folder, as a new user would type them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.cli import COMMANDS
from graphc.source import Source
from graphc.syntax.parser import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.M | re.S)


def shell(folder: Path) -> dict[str, str]:
    """The environment of a user who has installed graphc: `graphc` and `python` on the path."""
    bin = folder / "bin"
    bin.mkdir()
    program = bin / "graphc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m graphc "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = f"{bin}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def test_everything_in_the_readme_runs(tmp_path: Path) -> None:
    env = shell(tmp_path)
    (name,) = re.findall(r"^Save this as `([\w.]+)`", README, flags=re.M)
    models = [text for language, text in BLOCKS if language == "nn"]
    (tmp_path / name).write_text(models[1])
    said = ""
    for language, text in BLOCKS:
        if language not in ("sh", "python"):
            continue
        command = ["sh", "-e", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        missing_dot = "is not installed" in done.stderr and "draw" in text
        if (
            not missing_dot
        ):  # .svg needs Graphviz; the message with the install command is then right
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        said += done.stdout
    table = next(text for language, text in BLOCKS if language == "text" and "Layer" in text)
    shown = {" ".join(line.split()) for line in said.splitlines()}
    lines = [" ".join(line.split()) for line in table.splitlines() if "──" not in line]
    assert [line for line in lines if line not in shown] == []


def test_the_error_in_the_readme_is_the_real_one(tmp_path: Path) -> None:
    env = shell(tmp_path)
    model = next(text for language, text in BLOCKS if language == "nn" and "model Net" in text)
    wrong = model.replace("fc: Linear(classes)", "fc: Linear(classes, in_features=128)")
    (tmp_path / "net.nn").write_text(wrong)
    command = [sys.executable, "-m", "graphc", "check", "net.nn"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    shown = next(text for language, text in BLOCKS if language == "text" and "error[" in text)
    assert done.returncode == 1
    assert shown in done.stderr


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "nn"])
def test_models_in_the_readme_parse(text: str) -> None:
    parse(Source("README.md", text))


def test_lenet_in_the_readme_is_the_example() -> None:
    assert (
        next(t for language, t in BLOCKS if language == "nn")
        == (ROOT / "examples/lenet.nn").read_text()
    )


def test_the_readme_lists_every_command() -> None:
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `graphc (\w+)", table, flags=re.M) == list(COMMANDS)


def test_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README, flags=re.M)
    }
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert link[1:] in anchors if link.startswith("#") else (ROOT / link).exists(), link
