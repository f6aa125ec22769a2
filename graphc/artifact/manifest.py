"""`manifest.json`: what a module is, for people and programs, and the digests that show whether it
is intact.

The manifest lists the other files with size and SHA-256, and ends with the SHA-256 of its own
content. That finds accidents and careless edits; it is no signature. A `module.so` is code: open
modules only from where you would run a program from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.artifact import expr
from graphc.artifact.errors import ModuleFileError, ModuleVersionError

FORMAT = "graphc-module"
"""What `format` says in every manifest."""

FORMAT_VERSION = 1
"""Raised when a manifest of the new kind would be misread by the old code."""

NAME = "manifest.json"
"""The manifest's file name; a folder that holds one is a module."""

LIBRARY, WEIGHTS, GRAPH = "module.so", "weights.safetensors", "graph.txt"

MAX_BYTES = 256 << 20
"""Largest manifest that is read."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: name, dtype as in .nn files, shape of integers and expressions of named
    dims. An input that is `state` is overwritten with its next value by every call.
    """

    name: str
    dtype: str
    shape: tuple[expr.Expr, ...]
    state: bool = False

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(expr.to_text(d) for d in self.shape)}]"


@dataclass(frozen=True)
class DimInfo:
    """A named dim with its inclusive bounds; `high=None` is unbounded."""

    name: str
    low: int
    high: int | None

    def __str__(self) -> str:
        return f"{self.low} <= {self.name}" + ("" if self.high is None else f" <= {self.high}")


@dataclass(frozen=True)
class KernelEntry:
    """One kernel call: compiled name, what it computes, root op, place in the source, its work."""

    name: str
    label: str
    op: str
    source: str
    flops: expr.Expr
    bytes: expr.Expr


@dataclass(frozen=True)
class FileEntry:
    """Size and SHA-256 (hexadecimal) of a file of the module."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. `data` is everything it says, including the op-to-source table
    (`data["ops"]`).
    """

    name: str
    interface: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    dims: tuple[DimInfo, ...]
    kernels: tuple[KernelEntry, ...]
    files: Mapping[str, FileEntry]
    data: Mapping[str, Any]


def to_text(body: Mapping[str, Any]) -> str:
    """The manifest file for `body`: one line per key, one per item of a long table, and the digest
    at the end.
    """
    lines = []
    for key, value in {**body, "sha256": _digest(body)}.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            rows = ",\n".join(f"    {json.dumps(item)}" for item in value)
            text = f"[\n{rows}\n  ]"
        elif isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
            rows = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            text = f"{{\n{rows}\n  }}"
        else:
            text = json.dumps(value)
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Reads and checks the manifest of a module folder.

    Raises ModuleFileError when the folder is no module or the manifest is damaged,
    ModuleVersionError when it is of a newer format.
    """
    path = Path(folder, NAME)
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        what = "no such folder" if not os.path.isdir(folder) else (error.strerror or str(error))
        raise ModuleFileError(
            f"{os.fspath(folder)!r} is no compiled module: {NAME}: {what}"
        ) from error
    if len(raw) > MAX_BYTES:
        raise ModuleFileError(f"{str(path)!r} is too large for a manifest")
    try:
        body = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModuleFileError(f"{str(path)!r} is truncated or altered: it is no JSON") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ModuleFileError(f"{str(path)!r} is no manifest of a graphc module")
    version = body.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise ModuleVersionError(
            f"{os.fspath(folder)!r} has module format {version}, written by graphc "
            f"{body.get('graphc_version')}; this graphc reads format {FORMAT_VERSION}: update it "
            "with pip install -U graphc"
        )
    digest = body.pop("sha256", None)
    if version != FORMAT_VERSION or digest != _digest(body) or raw != to_text(body).encode():
        raise ModuleFileError(f"{str(path)!r} was altered: its checksum does not match")
    try:
        return _manifest(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModuleFileError(f"{str(path)!r} is malformed: {error}") from error


def _manifest(body: dict[str, Any]) -> Manifest:
    files = {_file_name(name): _file(entry) for name, entry in body["files"].items()}
    for name in (LIBRARY, WEIGHTS):
        if name not in files:
            raise ValueError(f"it lists no {name}")
    return Manifest(
        name=_text(body["name"]),
        interface=_text(body["interface"]),
        inputs=tuple(map(_tensor, body["inputs"])),
        outputs=tuple(map(_tensor, body["outputs"])),
        dims=tuple(DimInfo(_text(d["name"]), int(d["low"]), d["high"]) for d in body["dims"]),
        kernels=tuple(map(_kernel, body["kernels"])),
        files=files,
        data=body,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def _file_name(name: str) -> str:
    """Plain names only: a module's files lie in its folder."""
    if not name or name in (".", "..", NAME) or any(c in name for c in "/\\\0"):
        raise ValueError(f"the file name {name!r} leads out of the module's folder")
    return name


def _file(entry: Mapping[str, Any]) -> FileEntry:
    return FileEntry(int(entry["bytes"]), _text(entry["sha256"]))


def _tensor(entry: Mapping[str, Any]) -> TensorInfo:
    shape = tuple(expr.from_json(d) for d in entry["shape"])
    state = entry.get("state", False) is True
    return TensorInfo(_text(entry["name"]), _text(entry["dtype"]), shape, state)


def _kernel(entry: Mapping[str, Any]) -> KernelEntry:
    name, label, op, source = (_text(entry[key]) for key in ("name", "label", "op", "source"))
    flops, moved = expr.from_json(entry["flops"]), expr.from_json(entry["bytes"])
    return KernelEntry(name, label, op, source, flops, moved)


def verify_files(folder: str | os.PathLike[str], manifest: Manifest, names: Sequence[str]) -> None:
    """Compares size and SHA-256 of the named files with the manifest.

    Raises ModuleFileError for a file that is missing, truncated, altered, or a link that leads out
    of the folder.
    """
    for name in names:
        path, entry = Path(folder, name), manifest.files[name]
        check_size(folder, manifest, name)
        try:
            digest = file_sha256(path)
        except OSError as error:
            raise ModuleFileError(f"{str(path)!r}: {error.strerror or error}") from error
        if digest != entry.sha256:
            raise ModuleFileError(
                f"{str(path)!r} was altered: its SHA-256 is {digest}, the manifest says "
                f"{entry.sha256}"
            )


def check_size(folder: str | os.PathLike[str], manifest: Manifest, name: str) -> None:
    """Compares a file's size with the manifest: the system's loader ends the process over a library that is cut short.

    Raises ModuleFileError as `verify_files` does, but for what only a digest shows.
    """
    path, entry = Path(folder, name), manifest.files[name]
    check_inside(folder, path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModuleFileError(f"{str(path)!r}: {error.strerror or error}") from error
    if size != entry.bytes:
        problem = "truncated" if size < entry.bytes else "altered"
        raise ModuleFileError(
            f"{str(path)!r} is {problem}: it has {size} bytes instead of {entry.bytes}"
        )


def check_inside(folder: str | os.PathLike[str], path: Path) -> None:
    """Raises ModuleFileError when `path` is a link to somewhere outside of `folder`."""
    if path.is_symlink() and not path.resolve().is_relative_to(Path(folder).resolve()):
        raise ModuleFileError(f"{str(path)!r} is a link that leads out of the module's folder")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
