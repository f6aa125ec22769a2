"""What was compiled for another machine is compiled all the same, and says so when it is used on this one."""

from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.artifact import capi, open_compiled
from graphc.artifact.errors import ModuleTargetError


def test_a_module_for_another_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.nn").write_text("model M() {\n    input x: f32[3]\n    output y = x + 1\n}\n")

    def refuse(*args: object) -> capi.Handle:
        raise ModuleTargetError("this CPU lacks: avx9")

    with monkeypatch.context() as patch:
        patch.setattr(capi, "Handle", refuse)
        module = graphc.load(tmp_path / "m.nn").compile(directory=tmp_path / "m.module")
        with pytest.raises(ModuleTargetError, match="avx9"):
            module(x=np.zeros(3, np.float32))
        with pytest.raises(ModuleTargetError, match="avx9"):
            graphc.open(tmp_path / "m.module")
    module.close()
    assert graphc.open(tmp_path / "m.module")(x=np.zeros(3, np.float32))["y"].tolist() == [1, 1, 1]
    assert open_compiled(tmp_path / "m.module")(x=np.ones(3, np.float32))["y"].tolist() == [2, 2, 2]
