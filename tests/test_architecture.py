"""The house holds: imports point to earlier rooms only, and heavy libraries stay at the edge."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import graphc

ROOT = Path(__file__).parent.parent / "graphc"

# Rooms in order; an import may point to its own room or to one further up. Keep in step with ARCHITECTURE.md.
ROOMS = (
    "source",
    "limits",
    "snippet",
    "codes",
    "diagnostics",
    "syntax",
    "ir",
    "ops",
    "reference",
    "autodiff",
    "optim",
    "nn",
    "frontend",
    "passes",
    "artifact",
    "lowering",
    "diagram",
    "driver",
    "model",
    "train",
    "cli",
    "__main__",
)
ORDER = {room: i for i, room in enumerate(ROOMS)}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def files() -> list[Path]:
    return sorted(p for p in ROOT.rglob("*.py") if "grammar" not in p.relative_to(ROOT).parts)


def imported_modules(path: Path) -> list[tuple[str, bool]]:
    """Dotted names imported anywhere in a file, and whether inside a function."""
    tree = ast.parse(path.read_text())
    inside = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef))
        for n in ast.walk(f)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, id(node) in inside) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            found += [(f"{base}.{a.name}", id(node) in inside) for a in node.names]
    return found


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_to_earlier_rooms(path: Path) -> None:
    here = room_of(path)
    if here == "__init__":  # the package's lazy front door
        return
    assert here in ORDER, f"{here} is a room that ROOMS does not know"
    for name, inside in imported_modules(path):
        top, _, rest = name.partition(".")
        if top == "graphc" and rest.split(".")[0] in ORDER:
            there = rest.split(".")[0]
            assert ORDER[there] <= ORDER[here], f"{here} imports {there}"
        if top in ("tvm", "tvm_ffi"):
            assert here == "lowering" and inside, "TVM is imported in lowering only, and lazily"
        if top == "networkx":
            assert path == ROOT / "ir" / "graph.py"
        if inside:
            assert here == "lowering", f"{name} is imported inside a function"


@pytest.mark.parametrize("room", ["generic", "cuda"])
def test_what_is_for_all_targets_and_for_gpus_needs_nothing_of_cpus(room: str) -> None:
    for path in sorted((ROOT / "lowering" / room).rglob("*.py")):
        for name, _ in imported_modules(path):
            assert not name.startswith("graphc.lowering.cpu"), f"{path.name} imports {name}"
            assert room == "cuda" or not name.startswith("graphc.lowering.cuda"), path.name


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_graphc_is_light() -> None:
    heavy = {"tvm", "lark", "networkx", "graphviz", "numpy", "click", "rich"}
    assert not heavy & modules_after("import graphc")


def test_opening_a_module_needs_numpy_only() -> None:
    heavy = {"tvm", "lark", "networkx", "graphviz", "click", "rich", "ml_dtypes"}
    assert not heavy & modules_after("import graphc\ngraphc.open")


def test_compiling_imports_tvm_only_when_code_is_generated() -> None:
    assert "tvm" not in modules_after("import graphc\ngraphc.load\nimport graphc.driver")


def test_the_public_surface_is_this_list() -> None:
    assert graphc.__all__ == [
        "Diagnostic",
        "DiagnosticError",
        "Model",
        "Module",
        "ModuleError",
        "Trainer",
        "__version__",
        "grad",
        "load",
        "open",
    ]
    assert all(hasattr(graphc, name) for name in graphc.__all__)


def test_reading_a_model_does_not_load_the_compiler() -> None:
    done = "import graphc, sys\ngraphc.load('examples/mlp.nn')\nassert 'graphc.lowering' not in sys.modules"
    assert "tvm" not in modules_after(done)
