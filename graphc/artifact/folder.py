"""Writing a folder all at once: there is the old module, or the new one, and never half of one.

The steps of it are here too, for others that write folders.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from graphc.artifact.errors import ModuleError, ModuleFileError
from graphc.artifact.manifest import NAME, read_manifest

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_ABANDONED = 3600.0  # seconds after which a half-written folder is nobody's


@contextlib.contextmanager
def replacing(target: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Gives an empty folder beside `target` to fill; when the block ends well it takes the place of
    `target`.

    `target` may be missing, an empty folder, or a graphc module; files in it that are not the old
    module's are kept. Whatever fails, nothing half-written stays behind; nor does a crash of the machine
    leave any, if it is to be `durable`, which takes as long as the disk does. Raises ModuleFileError
    when `target` is something else, or for any OSError on the way (disk full, no permission).
    """
    final = Path(os.path.abspath(target))
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        raise ModuleFileError(
            f"{os.fspath(target)!r} exists and is no folder: choose another place for the module"
        )
    old_files = _module_files(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        fresh = make_beside(final)
    except OSError as error:
        raise _failed(target, error) from error
    try:
        yield fresh
        for path in fresh.iterdir() if durable else ():
            sync(path)
        _put_in_place(fresh, final, old_files)
    except OSError as error:
        if isinstance(error, ModuleError):
            raise
        raise _failed(target, error) from error
    finally:
        remove_folder(fresh)


def copy_file(source: Path, target: Path) -> None:
    """Copies bytes and permissions. (Importing shutil takes longer than opening a small module.)"""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while chunk := reader.read(1 << 20):
            writer.write(chunk)
    target.chmod(source.stat().st_mode)


def remove_folder(folder: Path) -> None:
    """Removes what is left of a folder of plain files, as far as it can."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _failed(target: str | os.PathLike[str], error: OSError) -> ModuleFileError:
    return ModuleFileError(
        f"cannot write the module {os.fspath(target)!r}: {error.strerror or error}"
    )


def _module_files(final: Path) -> set[str]:
    """The files of the module that is in the way; raises when what is there is no module."""
    if not final.exists():
        return set()
    if not (final / NAME).exists():
        if any(final.iterdir()):
            raise ModuleFileError(
                f"{str(final)!r} exists and is not a graphc module (it has no {NAME}): choose "
                "another folder, or remove it first"
            )
        return set()
    try:
        return {NAME, *read_manifest(final).files}
    except ModuleError as error:
        raise ModuleFileError(
            f"{str(final)!r} holds a {NAME} that cannot be read, so it is not replaced; remove "
            f"the folder first ({error})"
        ) from error


def make_beside(final: Path) -> Path:
    """A new, empty folder on the same file system, with the permissions that the user's umask
    gives. What a process that was killed left half-written there before is removed.
    """
    name = re.compile(rf"\.{re.escape(final.name)}\.\d+-\d+\.new")
    for path in final.parent.iterdir():
        if name.fullmatch(path.name) and not path.is_symlink():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    remove_folder(path)
    for attempt in range(1000):
        path = final.parent / f".{final.name}.{os.getpid()}-{attempt}.new"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise FileExistsError(f"no free name beside {str(final)!r}")


def sync(path: Path) -> None:
    """A file's bytes, or a folder's names, on disk: before a rename, so that a crash of the machine
    cannot leave empty files under the final name.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(fresh: Path, final: Path, old_files: set[str]) -> None:
    if not final.exists():
        os.rename(fresh, final)
        return
    exchange(fresh, final)  # now `fresh` is the old module
    for path in fresh.iterdir():
        if path.name not in old_files:
            os.rename(path, final / path.name)


def exchange(a: Path, b: Path) -> None:
    """Swaps two folders, atomically where the kernel and the file system can."""
    if _renameat2(a, b):
        return
    aside = a.with_name(a.name + ".old")
    os.rename(b, aside)
    try:
        os.rename(a, b)
    except OSError:
        os.rename(aside, b)
        raise
    os.rename(aside, a)


def _renameat2(a: Path, b: Path) -> bool:
    """The system call that swaps two names; False where it does not exist or the file system
    refuses.
    """
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = (_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b))
    return bool(rename(*names, _RENAME_EXCHANGE) == 0)
