"""Writing pictures: DOT text as it is, SVG, PNG and PDF through Graphviz's `dot`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import graphviz

FORMATS = ("svg", "png", "pdf", "dot")
PNG_DPI = 144

_INSTALL = (
    ("apt-get", "sudo apt-get install graphviz"),
    ("dnf", "sudo dnf install graphviz"),
    ("pacman", "sudo pacman -S graphviz"),
    ("zypper", "sudo zypper install graphviz"),
    ("apk", "sudo apk add graphviz"),
    ("brew", "brew install graphviz"),
    ("winget", "winget install Graphviz.Graphviz"),
    ("choco", "choco install graphviz"),
)
_BY_PLATFORM = {"darwin": "brew install graphviz", "win32": "winget install Graphviz.Graphviz"}


class RenderError(Exception):
    """A picture cannot be written; the text says what to do about it."""


def install_command() -> str:
    """How Graphviz is installed here, by the package managers that are present."""
    for tool, command in _INSTALL:
        if shutil.which(tool):
            return command
    return _BY_PLATFORM.get(sys.platform, "sudo apt-get install graphviz")


def format_of(path: str | Path) -> str:
    """The format a file name asks for. Raises RenderError for an unknown suffix."""
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix == "gv":
        return "dot"
    if suffix not in FORMATS:
        known = ", ".join(f".{f}" for f in FORMATS)
        raise RenderError(
            f"cannot tell the format of {str(path)!r}: its name has to end in {known}"
        )
    return suffix


def render(dot: str, format: str) -> bytes:
    """DOT text as the bytes of a picture.

    Raises:
        RenderError: `dot` is not installed (with the command that installs it), or it failed.
    """
    if format == "dot":
        return dot.encode()
    if format == "png":
        head, _, rest = dot.partition("\n")
        dot = f"{head}\n\tdpi={PNG_DPI}\n{rest}"
    try:
        return bytes(graphviz.Source(dot).pipe(format=format, quiet=True))
    except graphviz.ExecutableNotFound:
        raise RenderError(
            f"Graphviz's `dot` is needed for .{format} and is not installed.\n"
            f"Install it with:  {install_command()}\n"
            "or write the picture as .dot, which needs nothing installed."
        ) from None
    except subprocess.CalledProcessError as e:
        if e.returncode < 0:  # its spline router runs out of stack on very large pictures
            raise RenderError(
                "Graphviz's `dot` crashed on a picture this large; choose a smaller depth"
            ) from None
        said = (e.stderr or b"").decode(errors="replace").strip().splitlines()
        raise RenderError(
            f"Graphviz's `dot` failed ({said[-1] if said else f'exit status {e.returncode}'})"
        ) from None


def save(dot: str, path: str | Path) -> Path:
    """Writes DOT text as the picture that the name asks for: .svg, .png, .pdf or .dot (.gv).

    The file appears whole or not at all.

    Raises:
        RenderError: an unknown suffix, a missing `dot`, or a place that cannot be written.
    """
    path = Path(path)
    data = render(dot, format_of(path))
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as e:
        raise RenderError(f"cannot write {path}: {e.strerror or e}") from None
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
