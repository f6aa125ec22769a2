"""What is written: the same bytes every time, all or nothing, and only what should be there."""

from __future__ import annotations

import json
import os
import re
import resource
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from graphc.artifact import (
    ModuleCompilerError,
    ModuleError,
    ModuleFileError,
    ModuleSpecError,
    compiler,
)
from graphc.artifact import folder as artifact_folder
from graphc.artifact import open as open_module
from graphc.artifact.spec import ModuleSpec, Port, WeightSpec
from graphc.artifact.writer import drafting, write
from tests.artifact.conftest import Build
from tests.artifact.modules import (
    BIAS,
    LINEAR,
    WEIGHT,
    compile_object,
    copy_source,
    linear,
    linear_spec,
)

FILES = ["example.c", "graph.txt", "manifest.json", "module.h", "module.so", "weights.safetensors"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_bytes_wherever_it_is_written(build: Build) -> None:
    first = contents(build(linear_spec(), LINEAR, "first"))
    compiler._runtime_objects.cache_clear()
    second = contents(build(linear_spec(), LINEAR, "a/much/longer/path to/the second"))
    assert sorted(first) == FILES
    assert first == second


def test_the_same_bytes_in_another_process(linear_folder: Path, tmp_path: Path) -> None:
    program = f"""
from graphc.artifact.writer import write
from tests.artifact.modules import LINEAR, compile_object, linear_spec
write(linear_spec(), [compile_object(LINEAR)], {str(tmp_path / "m")!r})
"""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "123", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=tmp_path)
    assert contents(tmp_path / "m") == contents(linear_folder)


def test_nothing_of_this_machine_is_inside(linear_folder: Path) -> None:
    data = b"".join(contents(linear_folder).values())
    for word in (os.getcwd(), str(linear_folder.parent), "/tmp/", os.path.expanduser("~/")):
        assert word.encode() not in data


def test_the_library_needs_libc_only_and_shows_the_interface_only(linear_folder: Path) -> None:
    def tool(*command: str) -> str:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout

    library = str(linear_folder / "module.so")
    needed = re.findall(r"NEEDED.*\[(.*)\]", tool("readelf", "-d", library))
    assert needed == ["libc.so.6"]
    shown = re.findall(r" [TDBRVW] (\S+)", tool("nm", "-D", "--defined-only", library))
    assert sorted(shown) == sorted(compiler.EXPORTS)
    header = (linear_folder / "module.h").read_text()
    assert set(re.findall(r"GRAPHC_API [^;(]*?(graphc_\w+)\(", header)) == set(compiler.EXPORTS)
    assert "GNU_STACK" in tool("readelf", "-lW", library)
    assert not re.search(r"GNU_STACK.*RWE", tool("readelf", "-lW", library))


def test_weights_read_as_ordinary_safetensors(linear_folder: Path) -> None:
    tensors = safetensors.numpy.load_file(linear_folder / "weights.safetensors")
    names = [name for name in tensors if not name.startswith("__pad")]
    assert sorted(names) == ["fc.bias", "fc.weight"]
    np.testing.assert_array_equal(tensors["fc.weight"], WEIGHT)
    np.testing.assert_array_equal(tensors["fc.bias"], BIAS)


def test_an_existing_module_is_replaced_and_foreign_files_stay(build: Build) -> None:
    folder = build(linear_spec(), LINEAR)
    (folder / "example").write_text("built by the user")
    old = open_module(folder)
    spec = linear_spec(
        weights=(WeightSpec("fc.weight", -WEIGHT, 0), WeightSpec("fc.bias", BIAS, 64))
    )
    assert build(spec, LINEAR) == folder
    assert sorted(os.listdir(folder)) == sorted([*FILES, "example"])
    assert os.listdir(folder.parent) == [folder.name]
    x = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(old(x)["y"], linear(x))  # the old one is still mapped
    np.testing.assert_allclose(open_module(folder)(x)["y"], np.maximum(-x @ WEIGHT.T + BIAS, 0))


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(linear_spec(), [compile_object(LINEAR)], tmp_path / "empty")
    assert sorted(os.listdir(tmp_path / "empty")) == FILES


def test_what_is_no_module_is_not_overwritten(tmp_path: Path) -> None:
    objects = [compile_object(LINEAR)]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")
    for name in ("thesis", "file", "link", "other"):
        with pytest.raises(ModuleFileError, match=r"not a graphc module|is no folder|not replaced"):
            write(linear_spec(), objects, tmp_path / name)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "other", "thesis"]


def test_code_for_other_weights_is_refused(tmp_path: Path) -> None:
    spec = linear_spec()
    with (
        pytest.raises(ValueError, match="were not written, or others were"),
        drafting(tmp_path / "m") as draft,
    ):
        draft.write_weights(spec.weights[:1])
        draft.write_code(spec, [compile_object(LINEAR)])
    assert not os.listdir(tmp_path)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in (".m.1-0.new", ".m.2-0.new", ".m.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(b"half")
    for name in (".m.1-0.new", ".m.old"):
        os.utime(tmp_path / name, (0, 0))
    write(linear_spec(), [compile_object(LINEAR)], tmp_path / "m")
    # Somebody may still be writing the second, and the last is none of ours.
    assert sorted(os.listdir(tmp_path)) == [".m.2-0.new", ".m.old", "m"]


def test_a_full_disk_leaves_the_old_module(build: Build) -> None:
    folder = build(linear_spec(), LINEAR)
    before = contents(folder)
    big = WeightSpec("fc.weight", np.zeros((1 << 20,), np.float32), 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # a write past this fails
    try:
        with pytest.raises(ModuleFileError, match="cannot write the module"):
            build(linear_spec(weights=(big,)), LINEAR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(folder) == before
    assert os.listdir(folder.parent) == [folder.name]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    broken = compile_object("int graphc_main(void) { extern int nowhere(void); return nowhere(); }")
    with pytest.raises(ModuleCompilerError, match="nowhere"):
        write(linear_spec(), [broken], tmp_path / "module")
    with pytest.raises(ModuleSpecError, match="ELF"):
        write(linear_spec(), [b"text"], tmp_path / "module")
    with pytest.raises(ModuleSpecError, match="barrier"):
        write(linear_spec(), [b"\x7fELF __TVMBackendParallelBarrier"], tmp_path / "module")
    assert os.listdir(tmp_path) == []
    with pytest.raises(ModuleFileError, match="cannot write the module"):
        write(linear_spec(), [broken], "/proc/module")


def test_files_have_the_permissions_that_the_umask_gives(build: Build) -> None:
    mask = os.umask(0o027)
    try:
        folder = build(linear_spec(), LINEAR)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert stat.S_IMODE((folder / "module.so").stat().st_mode) == 0o750
    assert stat.S_IMODE((folder / "weights.safetensors").stat().st_mode) == 0o640


def test_a_missing_compiler_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModuleCompilerError, match=r"no C compiler found.*[Ii]nstall"):
        compiler.check_compiler()
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(ModuleCompilerError, match="no-such-compiler"):
        compiler.find_compiler()


def test_a_compiler_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "cc"
    fake.write_text("#!/bin/sh\necho 'fatal error: pthread.h: No such file' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    with pytest.raises(ModuleCompilerError, match=r"(?s)pthread\.h.*headers seem to be missing"):
        compiler.check_compiler()


def test_the_manifest_says_what_is_there(linear_folder: Path) -> None:
    body = json.loads((linear_folder / "manifest.json").read_text())
    assert sorted([*body["files"], "manifest.json"]) == FILES
    assert body["inputs"] == [{"name": "x", "dtype": "f32", "shape": ["N", 4]}]
    assert body["dims"] == [{"name": "N", "low": 1, "high": 1 << 20}]
    assert body["kernels"][0]["flops"] == ["*", "N", 24]
    assert body["ops"][0]["scope"] == "fc"
    assert body["graphc_version"]


def test_a_model_without_weights_inputs_or_dims(build: Build) -> None:
    spec = ModuleSpec("Constant", (), (Port("y", "f32", (3,)),))
    source = """
    #include <stdint.h>
    int32_t graphc_main(const void *weights, void *arena, float *y, int64_t *fault, uint64_t *clock) {
        y[0] = 1, y[1] = 2, y[2] = 3;
        return 0;
    }"""
    module = open_module(build(spec, source))
    np.testing.assert_array_equal(module()["y"], [1, 2, 3])
    assert module.profile().kernels == ()


def test_unicode_names_and_scalars(build: Build) -> None:
    spec = ModuleSpec("Gewicht", (Port("größe", "f64", ()),), (Port("größe", "f64", ()),))
    source = copy_source("double").replace("i < d0", "i < 1")
    module = open_module(build(spec, source))
    result = module.run({"größe": np.float64(2.5)})["größe"]
    assert result.shape == ()
    assert result == 2.5
    with pytest.raises(ModuleError, match="größe"):
        module.run({"größe": [1.0]})


def test_folders_are_swapped_without_renameat2(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(linear_spec(), LINEAR)
    (folder / "notes").write_text("mine")
    monkeypatch.setattr(artifact_folder, "_renameat2", lambda a, b: False)
    build(linear_spec(graph_text="new"), LINEAR)
    assert (folder / "graph.txt").read_text() == "new"
    assert (folder / "notes").read_text() == "mine"
    assert os.listdir(folder.parent) == [folder.name]
