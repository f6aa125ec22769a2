"""TVM is imported once, without PyTorch, and is the same TVM as by a plain import."""

import subprocess
import sys
import threading

import pytest

from graphc.lowering import toolkit


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


NAMES = """
names = sorted(
    f"{m}.{n}"
    for m, module in sys.modules.items()
    if m.startswith("tvm") and m.endswith("_ffi_api")
    for n in vars(module)
    if not n.startswith("__")
)
print(len(names), *names)
"""


FAST = """
import sys
from graphc.lowering import toolkit
toolkit.preload().join()
assert "tvm" in sys.modules and "torch" not in sys.modules
"""
PLAIN = """
import sys
import tvm, tvm.script.ir_builder.tirx
"""
TORCH = """
import torch
print(torch.ones(2).sum().item())
"""


def test_same_functions_as_a_plain_import_and_torch_can_be_imported_later() -> None:
    *names, two = run(FAST + NAMES + TORCH).splitlines()
    assert names == run(PLAIN + NAMES).splitlines()
    assert two == "2.0"


def test_other_threads_may_import_what_this_one_may_not() -> None:
    seen = []
    with toolkit.without("colorsys"):
        sys.modules.pop("colorsys", None)
        with pytest.raises(ImportError):
            __import__("colorsys")
        other = threading.Thread(target=lambda: seen.append(__import__("colorsys")))
        other.start()
        other.join()
    assert seen[0].__name__ == "colorsys"
