"""Imports point one way: adapters to harness to report, and the comparison to the report."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[1] / "jobs"
FRAMEWORKS = {"tensorflow", "keras", "torch", "torchvision"}
ALLOWED = {
    "report": {"report"},
    "harness": {"harness", "report"},
    "comparison": {"comparison", "report"},
    "mnist_tf": {"mnist_tf", "harness", "report"},
    "mnist_torch": {"mnist_torch", "harness", "report"},
}
SHARED = {"errors", "exit_codes", "streams", "whole_file", "__version__"}
FRAMEWORKS_OF = {"mnist_tf": {"tensorflow", "keras"}, "mnist_torch": {"torch", "torchvision"}}


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_from_where_it_may(room: str) -> None:
    files = sorted((JOBS / room).rglob("*.py"))
    assert files
    for path in files:
        for name in _imports(path):
            top, _, rest = name.partition(".")
            if top == "jobs":
                assert rest.partition(".")[0] in ALLOWED[room] | SHARED, f"{path} imports {name}"
            if top in FRAMEWORKS:
                assert top in FRAMEWORKS_OF.get(room, set()), f"{path} imports {name}"


def test_the_sampler_s_process_imports_nothing_large() -> None:
    """It starts in a fraction of a second and stays small beside the job."""
    program = "import sys, jobs.harness.sampling.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"numpy", "pydantic", "rich", "typer", "scipy"} & set(done.stdout.split())


def test_the_two_adapters_mirror_each_other() -> None:
    tf = {path.name for path in (JOBS / "mnist_tf").glob("*.py")}
    torch = {path.name for path in (JOBS / "mnist_torch").glob("*.py")}
    # A CUDA graph is captured by hand in torch, whose dropout is slow on a CPU; only TensorFlow talks while it starts.
    assert tf - {"quiet.py"} == torch - {"cpu.py", "graph.py"}
    for name in ("framework.py", "numerics.py", "model.py", "optimizer.py"):
        public = [{f for f in _functions(f"{room}/{name}") if not f.startswith("_")} for room in FRAMEWORKS_OF]
        shared = public[0] & public[1]
        # What only one framework needs: which of its types a precision stores, and autocast.
        assert shared
        assert public[0] ^ public[1] <= {"variable_dtype", "autocast"}, name


def _functions(path: str) -> set[str]:
    tree = ast.parse((JOBS / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
