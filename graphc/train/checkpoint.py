"""Checkpoints: everything a run needs to go on, in folders that are whole or not there.

`checkpoints/step-00000120/` holds `weights.safetensors` (what the model computes with; `graphc compile --weights` takes
it), `state.safetensors` (the rest of the step's state) and `checkpoint.json` (where the run stands, and sizes and
SHA-256 of both). `last` and `best` are symbolic links to such folders. A folder is filled under a name that nobody
reads, brought to the disk, and renamed; then the links are; then what nobody points to is removed. So a process that
dies, a machine that crashes, or a disk that is full leaves the checkpoint before. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.artifact.errors import SafetensorsError
from graphc.artifact.folder import exchange, make_beside, remove_folder, sync
from graphc.artifact.safetensors_io import Array, read_safetensors, write_safetensors
from graphc.train.errors import CheckpointError
from graphc.train.files import point

FORMAT, VERSION = "graphc-checkpoint", 1
RECORD, WEIGHTS, STATE = "checkpoint.json", "weights.safetensors", "state.safetensors"
LAST, BEST = "last", "best"
MAX_RECORD = 64 << 20
"""Longest `checkpoint.json` that is read."""

_NAME = re.compile(r"step-\d{8,}")
_LEFTOVER = re.compile(r"\.(step-\d{8,}|last|best)\..*\.(new|old)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found undamaged.

    Attributes:
        folder: where it lies.
        state: every array of the step's state, as read-only views of the files.
        weights: the model's parameters.
        record: what the loop had written beside: JSON.
    """

    folder: Path
    state: Mapping[str, Array]
    weights: Mapping[str, Array]
    record: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: made when the first one is saved.
        keep: how many of the newest are kept besides the best.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        if keep < 1:
            raise CheckpointError(f"at least one checkpoint is kept, not {keep}")
        self.folder, self._keep = folder, keep

    def save(
        self,
        step: int,
        state: Mapping[str, Array],
        weights: Mapping[str, Array],
        record: Mapping[str, Any],
        *,
        best: bool = False,
    ) -> Path:
        """Writes a checkpoint after update number `step` and points `last` (and `best`) to it.

        Arrays of `state` that hold the same bits in `weights` are written once. Raises CheckpointError; then the
        checkpoints before are as they were.
        """
        name = f"step-{step:08d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = make_beside(self.folder / name)
            try:
                _fill(fresh, state, weights, record)
                self._put(fresh, self.folder / name)
            finally:
                remove_folder(fresh)
            if best:
                point(self.folder / BEST, name)
            point(self.folder / LAST, name)
        except OSError as error:
            before = self.target(LAST)
            intact = f"; {before} is as it was" if before else ""
            raise CheckpointError(
                f"cannot write the checkpoint {self.folder / name}: {error.strerror or error}{intact}"
            ) from error
        self._retain()
        return self.folder / name

    def target(self, link: str) -> Path | None:
        """The folder that `last` or `best` points to, if there is one."""
        path = self.folder / link
        with contextlib.suppress(OSError):
            name = os.readlink(path)
            if _NAME.fullmatch(name) and (self.folder / name).is_dir():
                return self.folder / name
        return None

    def load(self, link: str = LAST) -> Checkpoint | None:
        """The last or best checkpoint, or None when there is none. Raises CheckpointError when it is damaged."""
        path = self.target(link)
        if path is None:
            return None
        try:
            return load(path)
        except CheckpointError as error:
            others = sorted(p.name for p in self.folder.glob("step-*") if p.name != path.name)
            if not others:
                raise
            again = f"ln -sfn {others[-1]} {self.folder / link}"
            raise CheckpointError(f"{error}; to use the one before: {again}") from error

    def clean(self) -> None:
        """Removes what a process that died has left half-written."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    _remove(path)

    def _put(self, fresh: Path, final: Path) -> None:
        if final.exists():  # written before a kill, and not yet pointed to
            exchange(fresh, final)
        else:
            os.rename(fresh, final)
        sync(self.folder)

    def _retain(self) -> None:
        """Removes checkpoints that are neither among the newest nor pointed to."""
        pointed = {p.name for link in (LAST, BEST) if (p := self.target(link))}
        last = self.target(LAST)
        names = sorted(p.name for p in self.folder.iterdir() if _NAME.fullmatch(p.name))
        newest = [n for n in names if last is None or n <= last.name][-self._keep :]
        for name in names:
            if name not in pointed and name not in newest:
                doomed = self.folder / f".{name}.{os.getpid()}.old"
                with contextlib.suppress(OSError):
                    os.rename(self.folder / name, doomed)  # never half a checkpoint under its name
                    _remove(doomed)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        remove_folder(path)


def _fill(
    folder: Path,
    state: Mapping[str, Array],
    weights: Mapping[str, Array],
    record: Mapping[str, Any],
) -> None:
    shared = [n for n, array in state.items() if n in weights and _same_bits(array, weights[n])]
    rest = {name: array for name, array in state.items() if name not in shared}
    files = {}
    for name, arrays in ((WEIGHTS, weights), (STATE, rest)):
        info = write_safetensors(folder / name, arrays)
        files[name] = {"bytes": info.size, "sha256": info.sha256.hex()}
    body = {
        "format": FORMAT,
        "format_version": VERSION,
        "files": files,
        "shared": shared,
        "record": record,
    }
    text = json.dumps({**body, "sha256": _digest(body)}, indent=1, allow_nan=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8", newline="\n")
    for path in folder.iterdir():
        sync(path)
    sync(folder)


def _digest(body: Mapping[str, Any]) -> str:
    """Of all that a record says, however it is laid out."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _same_bits(a: Array, b: Array) -> bool:
    if a is b:
        return True
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    left, right = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
    return bool(np.array_equal(left, right))


def load(folder: str | Path) -> Checkpoint:
    """Reads a checkpoint's folder and checks every byte of it against its record.

    Raises CheckpointError: a file is missing, damaged, or of a newer format.
    """
    folder = Path(folder)
    body = _record(folder)
    arrays: dict[str, Mapping[str, Array]] = {}
    for name in (WEIGHTS, STATE):
        entry = body["files"].get(name)
        if not isinstance(entry, dict):
            raise _damaged(folder, f"its record does not list {name}")
        _verify(folder, name, entry)
        try:
            arrays[name] = read_safetensors(folder / name)
        except SafetensorsError as error:
            raise _damaged(folder, str(error)) from error
    missing = [n for n in body["shared"] if n not in arrays[WEIGHTS]]
    if missing:
        raise _damaged(folder, f"{WEIGHTS} lacks {missing[0]!r}")
    state = {name: arrays[WEIGHTS][name] for name in body["shared"]}
    return Checkpoint(folder, {**state, **arrays[STATE]}, arrays[WEIGHTS], body["record"])


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        if path.stat().st_size > MAX_RECORD:
            raise _damaged(folder, f"{RECORD} is too long")
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"no checkpoint in {folder}: {RECORD}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{RECORD} is no JSON") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise _damaged(folder, f"{RECORD} is of something else")
    version = body.get("format_version")
    if version != VERSION:
        raise CheckpointError(
            f"the checkpoint {folder} has format {version}, this graphc reads {VERSION}"
        )
    if body.pop("sha256", None) != _digest(body):
        raise _damaged(folder, f"{RECORD} is not what was written")
    kinds = {"files": dict, "shared": list, "record": dict}
    for key, kind in kinds.items():
        if not isinstance(body.get(key), kind):
            raise _damaged(folder, f"{RECORD} has no {key}")
    if not all(isinstance(name, str) for name in body["shared"]):
        raise _damaged(folder, f"{RECORD} lists what is no name")
    return body


def _verify(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    digest = hashlib.sha256()
    size = 0
    try:
        with open(folder / name, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise _damaged(folder, f"{name}: {error.strerror}") from error
    if size != entry.get("bytes"):
        raise _damaged(folder, f"{name} has {size} bytes, its record says {entry.get('bytes')}")
    if digest.hexdigest() != entry.get("sha256"):
        raise _damaged(folder, f"{name} is not what was written")


def _damaged(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint {folder} is damaged: {reason}")
