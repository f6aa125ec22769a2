"""What the assembler makes of products: tensor-core instructions, and nothing spilled to local memory."""

from collections import Counter
from pathlib import Path

import pytest

from graphc import driver, frontend
from graphc.artifact.cuda.target import parse_cuda_target
from graphc.artifact.cuda.toolchain import compile_source
from graphc.lowering.cuda.generate import generate_device
from graphc.passes import pipeline
from tests.cuda.sass import instructions, resources

MODELS = Path(__file__).parents[2] / "benchmarks" / "gpu_models.nn"

LINEAR = (
    "model Linear2() {\n    input x: f32[N, 256]\n    output y = x -> fc: Linear(512) -> GELU\n}\n"
)


def compiled(
    file: Path, model: str | None, settings: dict[str, int], precision: str, arch: str
) -> Counter[str]:
    """How often each instruction occurs in the program of a model; no kernel of it spills or waits for each product."""
    loaded = frontend.load(file, model=model, settings=settings)
    weights = frontend.initialise(loaded.parameters, 0)
    target = parse_cuda_target(f"cuda:{arch}")
    graph, _ = driver.optimise(loaded.graph, keep=pipeline.device_kernels)
    _, program = generate_device(graph, weights, target, precision)
    binary = compile_source(program.source, target)
    assert not [k for k, r in resources(binary.log).items() if r.spilled or r.stack]
    assert "serializ" not in binary.log and "setmaxnreg" not in binary.log
    return sum(instructions(binary.cubin).values(), Counter())


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_90a"])
@pytest.mark.parametrize("precision", ["bf16", "f16", "tf32"])
def test_products_of_networks_run_on_tensor_cores(
    precision: str, arch: str, tmp_path: Path
) -> None:
    (tmp_path / "m.nn").write_text(LINEAR)
    found = compiled(tmp_path / "m.nn", None, {}, precision, arch)
    if arch == "sm_90a" and precision != "tf32":
        assert found["HGMMA"] and found["UTMALDG"] and not found["HMMA"]
    else:
        assert found["HMMA"] and found["LDGSTS"] and not found["HGMMA"]
    assert not found["LDL"] and not found["STL"]


@pytest.mark.parametrize(
    ("precision", "arch"), [("bf16", "sm_90"), ("f16", "sm_90"), ("bf16", "sm_90a")]
)
def test_convolutions_run_on_tensor_cores(precision: str, arch: str) -> None:
    settings = {"batch": 32, "channels": 64, "size": 28}
    found = compiled(MODELS, "Conv", settings, precision, arch)
    assert found["HGMMA" if arch == "sm_90a" else "HMMA"] and not found["LDL"] and not found["STL"]


def test_large_products_are_stored_in_wide_runs() -> None:
    found = compiled(MODELS, "Gemm", {"n": 4096}, "f32", "sm_90a")
    assert found["HGMMA"] and found["UTMALDG"] and found["USETMAXREG"] == 2
    assert found["STG"] == 16 and found["F2FP"] == 64  # 8 and 2 elements each
    assert not found["LDL"] and not found["STL"]


def test_bf16_values_multiply_as_they_are() -> None:
    found = compiled(MODELS, "Gemm", {"n": 256}, "f32", "sm_90")
    assert found["HMMA"] and not found["LDL"] and not found["STL"]


def test_f32_does_not(tmp_path: Path) -> None:
    """Nothing is rounded that the user did not ask to be rounded."""
    (tmp_path / "m.nn").write_text(LINEAR)
    found = compiled(tmp_path / "m.nn", None, {}, "f32", "sm_90")
    assert not found["HMMA"] and found["FFMA"]


@pytest.mark.parametrize("width", [64, 128])
def test_attention_runs_on_tensor_cores_both_ways(width: int, tmp_path: Path) -> None:
    """Whatever heads: a block's sums and scores stay in registers."""
    (tmp_path / "m.nn").write_text(f"""model Both() {{
        input q: bf16[2, 4, 512, {width}]
        input k: bf16[2, 4, 512, {width}]
        input v: bf16[2, 4, 512, {width}]
        y = scaled_dot_product_attention(q, k, v, is_causal=true)
        loss = mean(astype(y, f32))
        output y = y
        output dq = grad(loss, q)
        output dk = grad(loss, k)
        output dv = grad(loss, v)
    }}""")
    found = compiled(tmp_path / "m.nn", None, {}, "f32", "sm_80")
    assert found["HMMA"] and not found["LDL"] and not found["STL"]
