"""Targets, and the compilers of kernels: NVRTC as it is installed, a stand-in nvcc, and none."""

from pathlib import Path

import pytest

from graphc.artifact import ModuleCompilerError, cache
from graphc.artifact.cuda import nvrtc, toolchain
from graphc.artifact.cuda.target import ARCHITECTURES, CudaTarget, is_cuda, parse_cuda_target
from graphc.artifact.cuda.toolchain import compile_source
from graphc.artifact.errors import TargetError
from tests.cuda.sass import instructions, resources

SCALE = """\
#include <cuda_fp16.h>
extern "C" __global__ void scale(float* y, const half* x, int64_t n) {
  int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (i < n) y[i] = i ? (float)x[i] / 3.0f : INFINITY;
}
"""
SM_90 = CudaTarget("sm_90")


def test_targets_are_read_back() -> None:
    assert parse_cuda_target("cuda") == SM_90 and SM_90.name == "cuda:sm_90"
    for arch in ARCHITECTURES:
        assert parse_cuda_target(f" CUDA:{arch} ") == CudaTarget(arch)
    assert CudaTarget("sm_90a").specific and not SM_90.specific
    assert CudaTarget("sm_90a").capability == (9, 0) and CudaTarget("sm_120").capability == (12, 0)
    assert is_cuda("cuda:nonsense") and not is_cuda("native")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuda:sm_95", "unknown GPU architecture 'sm_95'; did you mean cuda:sm_90"),
        ("cuda:", "unknown GPU architecture ''; Known: sm_80, sm_86"),
        ("cuda:sm_75", "unknown GPU architecture 'sm_75'; did you mean"),
    ],
)
def test_unknown_architectures(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        parse_cuda_target(text)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_compiles(arch: str) -> None:
    target = CudaTarget(arch)
    binary = compile_source(SCALE, target)
    assert binary.cubin[:4] == b"\x7fELF"
    if target.specific:
        assert binary.ptx == b""
    else:
        assert f".target {arch}".encode() in binary.ptx and binary.ptx.endswith(b"\0")
    assert resources(binary.log)["scale"].spilled == 0
    again = compile_source(SCALE, target)
    assert (again.cubin, again.ptx) == (binary.cubin, binary.ptx)


def test_division_is_exact() -> None:
    """Without fast-math a division is more than one approximate reciprocal, and small numbers are kept."""
    binary = compile_source(SCALE, SM_90)
    assert b"div.rn.f32" in binary.ptx and b".ftz" not in binary.ptx
    assert instructions(binary.cubin)["scale"]["FFMA"] >= 3


def test_what_the_compiler_says_is_in_the_error() -> None:
    with pytest.raises(ModuleCompilerError, match=r'(?s)kernels.cu\(3\): error: identifier "q"'):
        compile_source(SCALE.replace("(int64_t)blockIdx", "q + blockIdx"), SM_90)


def test_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    first = compile_source(SCALE, SM_90)
    monkeypatch.setattr(toolchain, "_compile", None)  # would fail
    assert compile_source(SCALE, SM_90) == first


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nvrtc, "_roots", list)
    monkeypatch.setenv("PATH", str(tmp_path))
    nvrtc.find_nvrtc.cache_clear()
    yield
    nvrtc.find_nvrtc.cache_clear()


@pytest.mark.usefixtures("nothing_installed")
def test_no_compiler_at_all() -> None:
    with pytest.raises(
        ModuleCompilerError, match=r"no CUDA compiler .* pip install 'graphc\[cuda\]'"
    ):
        compile_source(SCALE, SM_90)


def fake_nvcc(folder: Path, script: str) -> Path:
    path = folder / "nvcc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("nothing_installed")
def test_an_nvcc_on_the_path(tmp_path: Path) -> None:
    script = 'echo "$@" >&2\ncase "$1" in -cubin) echo code > kernels.cubin;; -ptx) echo text > kernels.ptx;; esac'
    fake_nvcc(tmp_path, script)
    binary = compile_source(SCALE, SM_90)
    assert (binary.cubin, binary.ptx) == (b"code\n", b"text\n\0")
    assert "-arch=sm_90 --std=c++17 --fmad=true -Xptxas=-v kernels.cu" in binary.log
    assert compile_source(SCALE, CudaTarget("sm_90a")).ptx == b""


def test_the_nvcc_that_the_user_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(toolchain.VARIABLE, str(fake_nvcc(tmp_path, "echo no license >&2; exit 1")))
    with pytest.raises(ModuleCompilerError, match=r"(?s)nvcc failed: .*no license"):
        compile_source(SCALE, SM_90)
    monkeypatch.setenv(toolchain.VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(
        ModuleCompilerError, match=r"named by \$GRAPHC_NVCC, .*missing', was not found"
    ):
        compile_source(SCALE, SM_90)
