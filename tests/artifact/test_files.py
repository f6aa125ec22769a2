"""Damaged, foreign and hostile module folders: always a clear error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.artifact import (
    ModuleError,
    ModuleFileError,
    ModuleTargetError,
    ModuleVersionError,
    manifest,
)
from graphc.artifact import open as open_module
from graphc.artifact.features import CPUID
from tests.artifact.conftest import Build
from tests.artifact.modules import LINEAR, linear_spec

FILES = ("module.so", "weights.safetensors", "module.h", "example.c", "graph.txt", "manifest.json")


@pytest.fixture
def folder(linear_folder: Path, tmp_path: Path) -> Path:
    """A copy of the Linear module to damage."""
    return Path(shutil.copytree(linear_folder, tmp_path / "copy"))


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    for size in (0, len(data) // 2, len(data) - 1):
        (folder / name).write_bytes(data[:size])
        with pytest.raises(ModuleFileError, match=r"truncated|altered"):
            open_module(folder)


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_is_found(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    for at in (len(data) // 3, len(data) // 2, len(data) - 3):
        changed = data.copy()
        changed[at] ^= 1
        (folder / name).write_bytes(changed)
        with pytest.raises(ModuleFileError, match=name.replace(".", r"\.")):
            open_module(folder)


@pytest.mark.parametrize("name", ["module.so", "weights.safetensors", "manifest.json"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_file_is_found(folder: Path, name: str, verify: bool) -> None:
    (folder / name).unlink()
    with pytest.raises(ModuleFileError, match=f"{name}.*(No such file|missing)"):
        open_module(folder, verify=verify)


def test_what_only_people_read_may_be_left_out(folder: Path) -> None:
    for name in ("module.h", "example.c", "graph.txt"):
        (folder / name).unlink()
    open_module(folder)


def test_without_verification_the_runtime_still_checks_the_weights(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1])
    with pytest.raises(ModuleFileError, match="331 bytes, but `Linear` was built with 332"):
        open_module(folder, verify=False)
    weights.write_bytes(data.replace(b"fc.weight", b"fc.Weight"))
    with pytest.raises(ModuleFileError, match="altered or belongs to another module"):
        open_module(folder, verify=False)
    weights.unlink()
    weights.mkdir()
    with pytest.raises(ModuleFileError):
        open_module(folder, verify=False)


@pytest.mark.parametrize("left", [0, 100, 3000, -1])
def test_a_truncated_library_without_verification(folder: Path, left: int) -> None:
    """Where its tables are cut off, the system's loader would end the process."""
    library = folder / "module.so"
    data = library.read_bytes()
    library.unlink()
    library.write_bytes(data[:left])
    with pytest.raises(ModuleFileError, match=r"module\.so' is truncated"):
        open_module(folder, verify=False)


def test_what_is_no_module(tmp_path: Path) -> None:
    with pytest.raises(ModuleFileError, match="no such folder"):
        open_module(tmp_path / "nothing")
    with pytest.raises(ModuleFileError, match="is no compiled module"):
        open_module(tmp_path)
    for text in ("{}", "[]", "7", '{"format": "other"}', "[" * 100000, '"' + "\\ud800" * 3 + '"'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ModuleFileError):
            open_module(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ModuleFileError, match="no JSON"):
        open_module(tmp_path)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest as someone would who also mends its checksum."""
    body = json.loads((folder / "manifest.json").read_text())
    del body["sha256"]
    change(body)
    (folder / "manifest.json").write_text(manifest.to_text(body))


def test_a_newer_format_says_update(folder: Path) -> None:
    rewrite(folder, lambda body: body.update(format_version=2, graphc_version="9.9"))
    with pytest.raises(ModuleVersionError, match=r"format 2, written by graphc 9\.9.*update"):
        open_module(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", "", "a\0b", "manifest.json"])
def test_names_that_leave_the_folder_are_refused(folder: Path, name: str) -> None:
    def change(body: dict[str, Any]) -> None:
        body["files"][name] = body["files"]["module.h"]

    rewrite(folder, change)
    with pytest.raises(ModuleFileError, match="leads out of the module's folder"):
        open_module(folder)


@pytest.mark.parametrize("name", ["module.so", "weights.safetensors"])
@pytest.mark.parametrize("verify", [True, False])
def test_links_that_leave_the_folder_are_refused(folder: Path, name: str, verify: bool) -> None:
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(ModuleFileError, match="link that leads out"):
        open_module(folder, verify=verify)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inputs", [{"name": "x"}]),
        ("inputs", [{"name": "x", "dtype": "f32", "shape": [["^", "N", 2]]}]),
        ("inputs", [{"name": "x", "dtype": "f32", "shape": [1.5]}]),
        ("inputs", [{"name": "x", "dtype": "f33", "shape": []}]),
        ("inputs", 7),
        ("outputs", None),
        ("dims", [{"name": 3, "low": 1, "high": None}]),
        ("kernels", [{}]),
        ("files", {}),
        ("files", []),
        ("interface", None),
        ("name", ["Linear"]),
        ("format_version", "1"),
        ("format_version", 0),
    ],
)
def test_a_malformed_manifest_is_an_error(folder: Path, key: str, value: object) -> None:
    rewrite(folder, lambda body: body.update({key: value}))
    with pytest.raises(ModuleFileError):
        open_module(folder)


def test_a_deep_size_in_the_manifest_is_an_error(folder: Path) -> None:
    size: Any = "N"
    for _ in range(500):
        size = ["+", size, 1]
    rewrite(folder, lambda body: body["inputs"][0].update(shape=[size]))
    with pytest.raises(ModuleFileError, match="is no size"):
        open_module(folder)


def test_library_and_manifest_of_two_modules_do_not_mix(folder: Path, build: Build) -> None:
    other = build(linear_spec(name="Other"), LINEAR)
    (folder / "module.so").unlink()
    shutil.copy(other / "module.so", folder / "module.so")
    with pytest.raises(ModuleFileError, match="not the library that the manifest describes"):
        open_module(folder, verify=False)


def test_a_lying_manifest_cannot_make_the_runtime_read_elsewhere(folder: Path) -> None:
    def change(body: dict[str, Any]) -> None:
        body["inputs"][0]["shape"] = ["N", 1]
        body["outputs"][0].update(dtype="i8", shape=[1])

    rewrite(folder, change)
    module = open_module(folder)
    with pytest.raises(ModuleError, match="axis 1 must be 4, not 1"):
        module(x=np.ones((5, 1), np.float32))
    with pytest.raises(ModuleError, match="needs 60 bytes, but its buffer has 15"):
        module(x=np.ones((5, 4), np.float32))


def test_a_cpu_without_the_features_gets_a_message(build: Build) -> None:
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    assert set(flags) & set(CPUID), "the table and the system agree on no name"
    missing = sorted(set(CPUID) - set(flags))
    spec = linear_spec(
        target="x86-64-v9", cpu_features=(*sorted(set(CPUID) & set(flags)), *missing)
    )
    with pytest.raises(ModuleTargetError) as error:
        open_module(build(spec, LINEAR))
    assert f"compiled for x86-64-v9, but this CPU lacks: {', '.join(missing)};" in str(error.value)


def test_features_of_this_cpu_are_all_found(build: Build) -> None:
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    spec = linear_spec(cpu_features=tuple(sorted(set(CPUID) & set(flags))))
    open_module(build(spec, LINEAR))(x=np.ones((1, 4), np.float32))
