"""The module from C: the generated header and example, and a program that does everything wrong."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from graphc.artifact import open as open_module
from graphc.artifact.codegen import module_c
from graphc.artifact.compiler import RUNTIME
from graphc.artifact.header import BUILD_COMMAND, NATIVE, identifiers
from graphc.artifact.safetensors_io import WeightsInfo
from graphc.artifact.spec import DTYPES, DimSpec, ModuleSpec, Port
from graphc.artifact.writer import write
from tests.artifact.conftest import Build
from tests.artifact.modules import (
    LINEAR,
    T,
    compile_object,
    copy_source,
    linear,
    linear_spec,
    lookup_spec,
)

HERE = Path(__file__).parent
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]


def sh(command: str, folder: Path) -> str:
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pattern(n: int, dtype: type) -> np.ndarray:
    """What example.c fills inputs with."""
    i = np.arange(n)
    return ((i * 7 % 13 - 6) / 8).astype(dtype) if dtype is np.float32 else (i % 2).astype(dtype)


def test_the_printed_command_builds_the_example(linear_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(linear_folder, tmp_path / "module"))
    assert BUILD_COMMAND in (folder / "module.h").read_text()
    assert BUILD_COMMAND in (folder / "example.c").read_text()
    sh(BUILD_COMMAND.replace("cc ", "cc " + " ".join(STRICT) + " "), folder)
    x = pattern(20, np.float32).reshape(5, 4)
    expected = open_module(folder)(x=x)["y"]
    text = sh("./example N=5 y=y.bin", folder)
    assert text.startswith("y f32[5, 3] fnv1a ")
    assert (folder / "y.bin").read_bytes() == expected.tobytes()
    printed = np.array(text.split("\n")[1].split()[:10], np.float32)
    np.testing.assert_array_equal(printed, expected.reshape(-1)[:10])

    data = np.random.default_rng(1).standard_normal((3, 4), np.float32)
    data.tofile(folder / "x.bin")
    sh("./example x=x.bin N=3 y=y.bin", folder)
    assert (folder / "y.bin").read_bytes() == open_module(folder)(x=data)["y"].tobytes()
    sh("cd / && " + str(folder / "example"), folder)  # it finds its files from anywhere
    failed = subprocess.run(["./example", "N=0"], cwd=folder, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "N = 0, but N is at least 1" in failed.stderr


def test_the_example_of_every_dtype(build: Build) -> None:
    c_types = ["double", "float", "uint16_t", "uint16_t", "int64_t", "int32_t", "int16_t", "int8_t",
               "uint8_t", "bool"]  # fmt: skip
    spec = ModuleSpec(
        "Every-one".replace("-", "."),
        tuple(Port(f"in_{d}", d, (2 * T + 1,)) for d in DTYPES),
        tuple(Port(f"out_{d}", d, (2 * T + 1,)) for d in DTYPES),
        dims=(DimSpec("T", 3),),
    )
    folder = build(spec, copy_source(*c_types, dims=1).replace("i < d0", "i < 2 * d0 + 1"))
    sh(BUILD_COMMAND.replace("cc ", "cc " + " ".join(STRICT) + " "), folder)
    text = sh("./example " + " ".join(f"out_{d}={d}.bin" for d in DTYPES), folder)
    module = open_module(folder)
    inputs = {}
    for port, dtype in zip(module.inputs, module._in_dtypes, strict=True):
        i = np.arange(7)
        values = (i * 7 % 13 - 6) / 8 if port.dtype in ("f64", "f32", "f16", "bf16") else i % 2
        inputs[port.name] = values.astype(dtype)
    for name, value in module.run(inputs).items():
        dtype = name.removeprefix("out_")
        assert (folder / f"{dtype}.bin").read_bytes() == value.tobytes(), dtype
        assert f"{name} {dtype}[7] fnv1a" in text


COMPILERS = ["cc -x c -std=c99"]
if shutil.which("g++"):  # where only C can be compiled, the guard below is what is left to check
    COMPILERS.append("g++ -x c++ -std=c++11")


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_header_is_plain_c_and_cpp(linear_folder: Path, tmp_path: Path, compiler: str) -> None:
    (tmp_path / "program").write_text('#include "module.h"\n')
    flags = "-Wall -Wextra -Wpedantic -Werror -fsyntax-only"
    sh(f"{compiler} {flags} -I{linear_folder} program", tmp_path)
    header = (linear_folder / "module.h").read_text()
    assert 'extern "C"' in header
    assert "LINEAR_INPUT_X = 0" in header
    assert "0 x            f32[N, 4]" in header


def test_a_c_program_that_makes_every_mistake(linear_folder: Path, tmp_path: Path) -> None:
    library = linear_folder / "module.so"
    sh(
        f"cc -O1 {' '.join(STRICT)} -I{linear_folder} {HERE / 'mistakes.c'} -ldl -o mistakes",
        tmp_path,
    )
    assert sh(f"./mistakes {library}", tmp_path) == (HERE / "mistakes.txt").read_text()


def test_two_modules_in_one_program(
    linear_folder: Path, lookup_folder: Path, tmp_path: Path
) -> None:
    program = HERE / "two_modules.c"
    sh(f"cc -O1 {' '.join(STRICT)} -I{linear_folder} {program} -ldl -o two", tmp_path)
    text = sh(f"./two {linear_folder}/module.so {lookup_folder}/module.so", tmp_path)
    assert text == "Linear 1 Lookup 1\n"


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_runtime_under_sanitizers(tmp_path: Path, sanitizer: str) -> None:
    """Several threads open, run (parallel loops, wrong and misaligned inputs), fail and close
    models. A compiler without the sanitizer still runs the program, which checks its results.
    """
    flag = f"-fsanitize={sanitizer}"
    probe = subprocess.run(
        f"echo 'int main(void){{return 0;}}' | cc {flag} -xc - -o probe && ./probe",
        shell=True, cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    if probe.returncode:
        flag = ""
    write(linear_spec(), [compile_object(LINEAR)], tmp_path / "m")
    tables = _module_c(tmp_path)
    sources = " ".join(str(NATIVE / name) for name in RUNTIME)
    (tmp_path / "kernels.c").write_text(LINEAR)
    (tmp_path / "module.c").write_text(tables)
    sh(
        f"cc -g -O1 {flag} -fno-sanitize-recover=all -fno-omit-frame-pointer -std=gnu11 "
        f"-I{NATIVE} -DWEIGHTS='\"m/weights.safetensors\"' -pthread "
        f"{HERE / 'stress.c'} module.c kernels.c {sources} -o stress",
        tmp_path,
    )
    assert sh("TSAN_OPTIONS=halt_on_error=1 ./stress", tmp_path) == "done\n"


def _module_c(folder: Path) -> str:
    """module.c of the Linear model, for the weights that were written to `folder`/m."""
    data = (folder / "m" / "weights.safetensors").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    digests = (hashlib.sha256(data).digest(), hashlib.sha256(data[:header]).digest())
    return module_c(linear_spec(), WeightsInfo(len(data), header, *digests))


def test_identifiers_are_distinct() -> None:
    assert identifiers(["a.b", "a_b", "größe", "x"]) == ["a_b", "a_b_2", "gr__e", "x"]


def test_lookup_example_uses_valid_indices(lookup_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(lookup_folder, tmp_path / "module"))
    sh(BUILD_COMMAND, folder)
    assert "  0 10 0 10 0" in sh("./example N=5", folder)
    assert lookup_spec().dims[0].low == 0
    np.testing.assert_allclose(linear(np.zeros((1, 4), np.float32)), [[0.5, 0, 1]])
