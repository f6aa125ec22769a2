"""Targets: parsing, native detection, and what a machine must have."""

from __future__ import annotations

import pytest

from graphc.lowering.cpu import features
from graphc.lowering.cpu.features import CpuTarget, TargetError, parse_target

V3 = set(CpuTarget("x86-64-v3").required_features)
V4 = set(CpuTarget("x86-64-v4").required_features)


def test_levels() -> None:
    v2, v3, v4 = (parse_target(f"x86-64-v{n}") for n in (2, 3, 4))
    assert [t.vector_bits for t in (v2, v3, v4)] == [128, 256, 512]
    assert [t.vector_registers for t in (v2, v3, v4)] == [16, 16, 32]
    assert [t.lanes("float32") for t in (v2, v3, v4)] == [4, 8, 16]
    assert v4.lanes("float64") == 8 and v4.lanes("bfloat16") == 32 and v4.lanes("bool") == 64
    assert not v2.fma and v3.fma
    assert V3 < V4


def test_lanes_refuses_what_no_vector_holds() -> None:
    with pytest.raises(ValueError, match="no element type"):
        parse_target("x86-64-v3").lanes("complicated")


def test_native_takes_the_flags_not_the_name() -> None:
    assert parse_target("native", host_flags=V3 | {"amx_tile"}).name == "x86-64-v3"
    amx = parse_target("native", host_flags=V4 | {"amx_tile", "amx_bf16"})
    assert amx.name == "x86-64-v4+amx_bf16+amx_tile"
    assert amx.amx_bf16 and not amx.amx_int8
    assert parse_target(amx.name) == amx
    with pytest.raises(TargetError, match=r"older than x86-64-v2 .*sse4_2"):
        parse_target("native", host_flags={"sse2"})


def test_supported_by_lists_what_is_missing() -> None:
    v4 = parse_target("x86-64-v4")
    assert v4.supported_by(V4) == []
    assert v4.supported_by(V3) == ["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x86-64v3", "did you mean 'x86-64-v3'"),
        ("haswell", "unknown target 'haswell'; known"),
        ("x86-64-v4+amxtile", "did you mean 'amx_tile'"),
        ("x86-64-v3+amx_tile", "needs x86-64-v4"),
        ("native+amx_tile", "takes no extensions"),
    ],
)
def test_unknown_targets_name_the_nearest(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        parse_target(text)


def test_host_without_cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def __init__(self, _: str) -> None: ...

        def read_text(self, **_: str) -> str:
            raise FileNotFoundError(2, "No such file or directory")

    class Foreign(Missing):
        def read_text(self, **_: str) -> str:
            return "Features : fp asimd\n"

    for kind, message in ((Missing, "name a target instead"), (Foreign, "x86-64 only")):
        monkeypatch.setattr(features, "Path", kind)
        features.detect_host.cache_clear()
        with pytest.raises(TargetError, match=message):
            features.detect_host()
    monkeypatch.undo()
    features.detect_host.cache_clear()


def test_tvm_target_states_level_and_extensions() -> None:
    target = parse_target("x86-64-v4+amx_tile").tvm_target()
    assert target.attrs["mcpu"] == "x86-64-v4"
    assert list(target.attrs["mattr"]) == ["+amx-tile", "-prefer-256-bit"]
