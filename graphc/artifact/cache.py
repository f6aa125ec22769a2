"""What was compiled before: a folder of entries by the digest of everything that went into them.

An entry is a folder that appears by one rename, so that there is the whole of it or nothing, whoever else writes at the
same time and whatever interrupts; its files are compared with their digests when it is used. An entry that is damaged
counts as missing. Where the cache cannot be written (a full disk, no permission) nothing is kept, and nothing fails.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from graphc import __version__
from graphc.artifact.folder import remove_folder

VARIABLE = "GRAPHC_CACHE"
"""The environment variable that names the cache's folder, or says `off`."""

LIMIT = 4 << 30
"""Bytes that the cache may take; what was not used for longest goes first."""

_INDEX = "entry.json"
_ABANDONED = 3600.0  # seconds after which a half-written entry is nobody's
_PIECE = 4 << 20  # bytes that a thread digests at a time
_THREADS = 2


class Cache:
    """Entries below one folder."""

    def __init__(self, root: Path, limit: int = LIMIT) -> None:
        self.root, self.limit = root, limit

    def read(self, key: str) -> dict[str, bytes] | None:
        """The files of an entry by name, or None."""
        index = self._index(key)
        if index is None:
            return None
        found: dict[str, bytes] = {}
        try:
            for name, digest in index.items():
                found[name] = (self._entry(key) / name).read_bytes()
                if _digests([found[name]])[0].hex() != digest:
                    return None
        except OSError:
            return None
        return found

    def copy(self, key: str, folder: Path) -> bool:
        """Copies the files of an entry into a folder; False when there is none or not a whole one."""
        index = self._index(key)
        if index is None:
            return False
        try:
            return all(
                _copied(self._entry(key) / name, folder / name) == digest
                for name, digest in index.items()
            )
        except OSError:
            return False

    def write(self, key: str, files: Mapping[str, bytes]) -> None:
        """Keeps files as an entry, unless it is there: a key tells all that is in it."""

        def fill(folder: Path) -> dict[str, str]:
            for name, data in files.items():
                (folder / name).write_bytes(data)
            digests = _digests(list(files.values()))
            return {name: d.hex() for name, d in zip(files, digests, strict=True)}

        self._add(key, fill)

    def keep(self, key: str, folder: Path) -> None:
        """Keeps the files of a folder as an entry, unless it is there."""
        self._add(
            key,
            lambda fresh: {p.name: _copied(p, fresh / p.name) for p in sorted(folder.iterdir())},
        )

    def _entry(self, key: str) -> Path:
        return self.root / key

    def _index(self, key: str) -> dict[str, str] | None:
        """Names and digests of an entry's files; using it makes it young again."""
        entry = self._entry(key)
        try:
            index = json.loads((entry / _INDEX).read_bytes())
            os.utime(entry)
        except (OSError, ValueError, RecursionError):
            return None
        plain = isinstance(index, dict) and all(
            isinstance(v, str) and "/" not in k and k not in ("", ".", "..")
            for k, v in index.items()
        )
        return index if plain else None

    def _add(self, key: str, fill: Callable[[Path], dict[str, str]]) -> None:
        """Makes an entry of what `fill` puts into a new folder; an OSError means that nothing is kept."""
        fresh = self.root / f".{key}.{os.getpid()}.{time.monotonic_ns()}"
        try:
            fresh.mkdir(parents=True, mode=0o700)
            (fresh / _INDEX).write_text(json.dumps(fill(fresh)), encoding="utf-8")
            try:
                fresh.rename(self._entry(key))
            except (
                OSError
            ):  # there is one: another process was faster, with the same, or it is damaged
                if self._whole(key):
                    return
                self._drop(key)
                fresh.rename(self._entry(key))
            self._trim()
        except OSError:
            pass
        finally:
            if fresh.exists():
                remove_folder(fresh)

    def _whole(self, key: str) -> bool:
        """Whether all files of an entry are there, as they were written. Such a one stays: others may be reading it."""
        index = self._index(key)
        try:
            return index is not None and all(
                _copied(self._entry(key) / name, None) == digest for name, digest in index.items()
            )
        except OSError:
            return False

    def _drop(self, key: str) -> None:
        """Removes an entry, out of sight first: nobody reads half of one."""
        aside = self.root / f".{key}.old.{os.getpid()}.{time.monotonic_ns()}"
        with contextlib.suppress(OSError):
            self._entry(key).rename(aside)
            remove_folder(aside)

    def _trim(self) -> None:
        """Removes what was not used for longest until the rest fits, and what a crash left behind."""
        entries = []
        for path in self.root.iterdir():
            try:
                used = path.stat().st_mtime
                size = sum(f.stat().st_size for f in path.iterdir())
            except OSError:
                continue  # another process was faster
            if not path.name.startswith("."):
                entries.append((used, path.name, size))
            elif time.time() - used > _ABANDONED:
                remove_folder(path)
        total = sum(size for _, _, size in entries)
        for _, name, size in sorted(entries):
            if total <= self.limit:
                break
            self._drop(name)
            total -= size


def find() -> Cache | None:
    """The user's cache: `$GRAPHC_CACHE`, or `graphc` in the user's folder for caches; None when it is off.

    None too where somebody else could put code there: the folder has to be the user's own.
    """
    place = os.environ.get(VARIABLE, "")
    if place == "off":
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        root = Path(place) if place else base / "graphc"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = root.stat()
    except (OSError, RuntimeError):
        return None
    others = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return None if about.st_uid != os.getuid() or others else Cache(root)


def key_of(kind: str, parts: Sequence[str | bytes | Mapping[str, Any]]) -> str:
    """The key of an entry: a digest of texts and of arrays by name, and of graphc itself."""
    digest = hashlib.sha256(f"{kind}\0{_self()}".encode())
    for part in parts:
        if isinstance(part, Mapping):
            arrays = {name: np.ascontiguousarray(array) for name, array in part.items()}
            inside = _digests([x.reshape(-1).view(np.uint8).data for x in arrays.values()])
            for (name, x), one in zip(arrays.items(), inside, strict=True):
                digest.update(f"\0{name}\0{x.dtype}\0{x.shape}\0".encode())
                digest.update(one)
        else:
            data = part.encode() if isinstance(part, str) else part
            digest.update(f"\0{len(data)}\0".encode())
            digest.update(data)
    return f"{kind}-{digest.hexdigest()}"


@functools.lru_cache(maxsize=1)
def _self() -> str:
    """A digest of this graphc: versions, and its sources, since people work on them."""
    digest = hashlib.sha256(__version__.encode())
    with contextlib.suppress(metadata.PackageNotFoundError):
        digest.update(metadata.version("apache-tvm").encode())
    package = Path(__file__).parent.parent
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".c", ".h", ".cuh"):
            digest.update(path.relative_to(package).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _digests(blocks: Sequence[bytes | memoryview]) -> list[bytes]:
    """For each block the SHA-256 of the SHA-256s of its pieces, which several threads make."""
    pieces = [
        (number, memoryview(block)[start : start + _PIECE])
        for number, block in enumerate(blocks)
        for start in range(0, len(block), _PIECE)
    ]
    whole = [hashlib.sha256() for _ in blocks]
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda piece: hashlib.sha256(piece[1]).digest(), pieces)
        for (number, _), digest in zip(pieces, digests, strict=True):
            whole[number].update(digest)
    return [each.digest() for each in whole]


def _copied(source: Path, target: Path | None) -> str:
    """Copies bytes and permissions, if anywhere; the digest of what was read, as `_digests` makes it."""
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open(source, "rb")).fileno()
        writer = None if target is None else stack.enter_context(open(target, "wb")).fileno()

        def piece(start: int) -> bytes:
            data = os.pread(reader, _PIECE, start)
            if writer is not None:
                _write(writer, data, start)
            return hashlib.sha256(data).digest()

        starts = range(0, os.fstat(reader).st_size, _PIECE)
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS))
        whole = hashlib.sha256()
        for digest in pool.map(piece, starts):
            whole.update(digest)
    if target is not None:
        target.chmod(source.stat().st_mode)
    return whole.hexdigest()


def _write(file: int, data: bytes, at: int) -> None:
    """Writes all of it, however much the system takes at a time."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(file, rest, at)
        rest, at = rest[done:], at + done
