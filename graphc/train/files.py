"""Files that are there whole or not at all, and a folder that one run at a time writes to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from graphc.artifact.folder import copy_file, sync
from graphc.train.errors import TrainError

LOCK = ".lock"

_LEFTOVER = re.compile(r"\.[\w.]+\.\d+\.new")


def write_whole(path: Path, text: str) -> None:
    """Replaces a text file in one step. Raises OSError; the old file is then as it was."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(fresh, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def copy_whole(source: Path, target: Path) -> None:
    """Replaces a file by a copy of another in one step. Raises OSError."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        copy_file(source, fresh)
        sync(fresh)
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def point(link: Path, name: str) -> None:
    """Makes a symbolic link point to its neighbour `name`, in one step. Raises OSError."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    try:
        os.symlink(name, fresh)
        os.replace(fresh, link)
    finally:
        fresh.unlink(missing_ok=True)
    sync(link.parent)


def clean(folder: Path) -> None:
    """Removes what a process that died has left of `write_whole` and `copy_whole`."""
    for path in folder.glob(".*.new"):
        if _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder, which is made, while the block runs. The lock dies with the process.

    Raises TrainError when another run has it, OSError when the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainError(
                f"another run is writing to {folder}: choose another folder, or wait"
            ) from error
        yield
